"""The process of ``gpu-cluster``: what a short one need not do costs it seconds with MLflow loaded."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys

from mlflow_pytorch_estimator.cli import main

_OBJECTS_PER_COLLECTION = 100_000


def run() -> None:
    """The command, as a program of its own; leaves with its exit status."""
    # Importing MLflow makes half a million objects that all stay: looking through them again and again finds nothing.
    gc.set_threshold(_OBJECTS_PER_COLLECTION, 20, 20)
    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it tells of tables that it creates
    end = _End()
    atexit.register(end.leave)  # the first one, and therefore the last to be called
    try:
        main(prog_name="gpu-cluster")
    except SystemExit as exit_:
        end.status = _number(exit_.code)
        raise


class _End:
    """Ends the process where the interpreter would begin to take MLflow's modules apart, which takes a second."""

    def __init__(self) -> None:
        self.status: int | None = None

    def leave(self) -> None:
        """Called when threads and all other exit handlers are done; does nothing without a status."""
        if self.status is None:
            return
        try:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        except (OSError, ValueError):  # nobody reads any more: the interpreter has its own words and status for that
            return
        os._exit(self.status)


def _number(code: object) -> int | None:
    """The exit status as the system gets it; None for words, which the interpreter has to print."""
    return 0 if code is None else code & 0xFF if isinstance(code, int) else None
