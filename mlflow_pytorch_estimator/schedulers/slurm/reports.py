"""What the watcher tells MLflow, in a thread of its own."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from pathlib import Path

from mlflow_pytorch_estimator.jobdir import JobDir

_PAUSE_SECONDS = 5.0
_NICENESS = 10


class Reports:
    """The thread that tells MLflow, which may be slow or away, while Slurm is watched."""

    def __init__(self) -> None:
        self._wanted: queue.Queue[tuple[JobDir, bool]] = queue.Queue()
        self._waiting: set[tuple[Path, bool]] = set()
        self._thread = threading.Thread(target=self._work, name="reports", daemon=True)

    def sync(self, directory: JobDir) -> None:
        """Show the current phase in the run; if it does not work, the next phase will."""
        self._put(directory, last=False)

    def deliver(self, directory: JobDir) -> None:
        """See the outcome into the run, again and again until it is there."""
        self._put(directory, last=True)

    def _put(self, directory: JobDir, *, last: bool) -> None:
        key = (directory.path, last)
        if key in self._waiting:
            return
        self._waiting.add(key)
        self._wanted.put((directory, last))
        if self._thread.ident is None:
            self._thread.start()

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, os.nice(0) + _NICENESS))
        from mlflow_pytorch_estimator.mirror import RunMirror

        while True:
            directory, last = self._wanted.get()
            self._waiting.discard((directory.path, last))  # before: what changes meanwhile is wanted again
            try:
                mirror = RunMirror(directory)
                mirror.deliver() if last else mirror.sync()
            except Exception as error:  # noqa: BLE001 - the outer edge of the thread: a store may fail in any way
                said = f"{time.strftime('%F %T')} MLflow: {type(error).__name__}: {error}"
                with contextlib.suppress(OSError):  # the disk may be full
                    print(said, file=sys.stderr, flush=True)
                time.sleep(_PAUSE_SECONDS)
