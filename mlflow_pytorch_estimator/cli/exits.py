"""The exit statuses of ``gpu-cluster``."""

from __future__ import annotations

COMPLETED = 0
FAILED = 1
USAGE = 2
DETACHED = 3
CANCELED = 4
UNFINISHED = 5

STATUSES = {
    COMPLETED: "done; of commands that follow a run: it completed",
    FAILED: "an error, or the run failed",
    USAGE: "an option or argument that there is not, or that cannot be read",
    DETACHED: "you let go of the run (Ctrl-C), and its job goes on",
    CANCELED: "the run was canceled",
    UNFINISHED: "the run had not ended when the time was up",
}
"""What each means, for the help and the documentation."""


def of_phase(phase: str) -> int:
    """The exit status that says how a run has ended."""
    return {"Completed": COMPLETED, "Canceled": CANCELED}.get(phase, FAILED)
