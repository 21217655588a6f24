"""On the submit host: one thread for each relayed job that runs, which talks to MLflow for all of the job."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.jobdir import JobDir

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.mirror import RunMirror

_NICENESS = 10
_LOOK_SECONDS = 0.1
_SYNC_SECONDS = 1.0
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 15.0


class Courier:
    """Sends on what the ranks say and mirrors the job directory, until the run has its end."""

    def __init__(self, directory: JobDir) -> None:
        self._directory = directory
        self._pause = _SHORTEST_PAUSE_SECONDS
        threading.Thread(target=self._work, name=f"relay {directory.path.name}", daemon=True).start()

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, os.nice(0) + _NICENESS))
        from mlflow_pytorch_estimator.mirror import RunMirror

        mirror = RunMirror(self._directory)
        try:
            self._carry(mirror)
        finally:
            mirror.close()

    def _carry(self, mirror: RunMirror) -> None:
        directory = self._directory
        synced = 0.0
        while directory.path.exists() and not directory.delivered.exists():
            if directory.outcome is not None:
                self._attempt(mirror.deliver)
                continue
            self._attempt(mirror.relay)
            if time.monotonic() > synced + _SYNC_SECONDS:
                self._attempt(mirror.sync)
                synced = time.monotonic()
            time.sleep(_LOOK_SECONDS)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the outer edge of the thread: a store may fail in any way
            name = self._directory.path.name
            print(f"{time.strftime('%F %T')} {name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            time.sleep(self._pause)
            self._pause = min(_LONGEST_PAUSE_SECONDS, self._pause * 2)
        else:
            self._pause = _SHORTEST_PAUSE_SECONDS
