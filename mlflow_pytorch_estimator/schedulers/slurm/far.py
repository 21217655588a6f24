"""Jobs without a shared file system (``"shared_filesystem": false``): what both sides have in common.

The batch script waits on the first node. On the submit host a courier (``courier``, one process for each such job that
runs) sends package, environment and sources to all nodes (``broadcast``) and keeps a teller (``teller``) on each, which
tells what grows in the node's copy of the job directory. It has the same path there, and so has the environment:
virtual environments do not move. The watcher writes the run, from the directory on the submit host (``attending``).
"""

from __future__ import annotations

from mlflow_pytorch_estimator.jobdir import JobDir

ARRIVAL_SECONDS = 1800
"""How long the nodes wait for the job."""
FETCH_SECONDS = 600.0
"""How long they wait for a sign of the submit host before they let the results lie."""
END_SECONDS = 90
"""How much earlier than usual a job ends before Slurm's time limit, for its results to be fetched."""
NOT_ARRIVED, NOT_FETCHED = 75, 76
"""Exit statuses of the batch script."""


class FarFiles:
    """The files of a job directory that only such jobs have."""

    def __init__(self, directory: JobDir) -> None:
        path = directory.path
        self.lock = path / "courier.lock"
        """Held by the courier, on the submit host."""
        self.log = path / "courier.log"
        self.sent = path / "sent"
        """All nodes have the job."""
        self.incoming = path / "incoming"
        """Files that are being fetched."""
        self.arrived = path / "arrived"
        """On the first node: the agent may begin."""
        self.over = path / "over"
        """On the first node: the agent has said all that it has to say."""
        self.contact = path / "contact"
        """On the first node: touched while the submit host is connected."""
        self.fetched = path / "fetched"
        """On the first node: nothing here is needed any more."""

    @property
    def private(self) -> frozenset[str]:
        """What is not sent along."""
        own = (self.lock, self.log, self.sent, self.incoming, self.arrived, self.over, self.contact, self.fetched)
        return frozenset(path.name for path in own) | {"lock", "delivery.lock", "delivered", "cancel", "outcome.json"}


def exit_status(directory: JobDir) -> int:
    """Of the batch script, once the agent has delivered."""
    return NOT_FETCHED if FarFiles(directory).over.exists() else 0


def last_word(directory: JobDir, exit_code: int | None, nodes: str, usual: str) -> str:
    """What is to be said of a job that ended in Slurm without an outcome here; ``usual`` of one that is not far."""
    files = FarFiles(directory)
    if directory.job.shared_filesystem:
        return usual
    if exit_code == NOT_ARRIVED:
        return f"the job was not sent to its nodes within {ARRIVAL_SECONDS} s; {files.log} says more"
    if not files.sent.exists():
        return usual
    where = f"on the disk of {nodes or 'its nodes'} in {directory.path}"
    if exit_code == NOT_FETCHED:
        return f"its results could not be fetched: they stay {where}"
    return f"{usual}; what was not fetched stays {where}"
