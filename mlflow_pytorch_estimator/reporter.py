"""The thread in which the agent talks to MLflow, so that no slow server ever holds up the job."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import local_freeze
from mlflow_pytorch_estimator.files import write_atomic
from mlflow_pytorch_estimator.jobdir import JobDir

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.mirror import RunMirror

_NICENESS = 10
_INTERVAL_SECONDS = 1.0
_GIVE_UP_SECONDS = 1800.0
_LONGEST_PAUSE_SECONDS = 30.0
_PATIENCE_SECONDS = 30.0


class Reporter:
    """Mirrors the job directory into the run: every second while the job lives, and finally."""

    def __init__(self, directory: JobDir) -> None:
        self._directory = directory
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin to report; a second call does nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def deliver(self) -> None:
        """See to it that the outcome reaches the run; gives up after half an hour, for `reconcile` to finish.

        An attached client has MLflow loaded already and may be faster; whoever holds the lock does the work.
        """
        self.start()
        self._stop.set()
        while self._thread.is_alive() and not self._directory.delivered.exists():
            self._thread.join(0.02)

    def _work(self) -> None:
        # This thread only: importing MLflow takes seconds of a core just when the ranks start.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, os.nice(0) + _NICENESS))
        if self._directory.job.interpreter.manager == "local" and not self._directory.environment.exists():
            with contextlib.suppress(OSError):  # a full disk: the end of the job must be told all the same
                write_atomic(self._directory.environment, local_freeze())
        from mlflow_pytorch_estimator.mirror import RunMirror

        mirror = RunMirror(self._directory)
        while not self._stop.wait(_INTERVAL_SECONDS):
            _attempt(mirror.sync)
        self._deliver_until_done(mirror)

    def _deliver_until_done(self, mirror: RunMirror) -> None:
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        pause = 1.0
        while not _attempt(mirror.deliver) and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)


class NoReporter(Reporter):
    """For a job whose submit side reports: nothing of it talks to MLflow on the node."""

    def start(self) -> None:
        """Nothing to begin."""

    def deliver(self) -> None:
        """Give whoever looks after the job a moment to see the outcome into the run: other jobs may wait for that."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._directory.delivered.exists() and time.monotonic() < deadline:
            time.sleep(0.1)


def _attempt(action: Callable[[], None]) -> bool:
    try:
        action()
    except Exception as error:  # noqa: BLE001 - the outer edge of the thread: a store may fail in any way, the job goes on
        with contextlib.suppress(OSError):  # the disk may be full
            print(f"{time.strftime('%F %T')} MLflow: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return False
    return True
