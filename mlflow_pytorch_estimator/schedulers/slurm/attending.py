"""The watcher's part in jobs without a shared file system: each has a courier while it runs, and its run stays live."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from mlflow_pytorch_estimator import detached, jobdir, jobenv, locks
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.slurm import client, queries
from mlflow_pytorch_estimator.schedulers.slurm.far import FarFiles
from mlflow_pytorch_estimator.schedulers.slurm.queries import Said
from mlflow_pytorch_estimator.status import Phase

_COURIER = "mlflow_pytorch_estimator.schedulers.slurm.courier"
_INTERVAL_SECONDS = 1.0
_PAUSE_SECONDS = 5.0
_NICENESS = 10
_WITH_NODES = {Phase.RUNNING, Phase.FINALIZING}


class FarJobs:
    """Those jobs among all that a watcher watches."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}
        self._running: dict[str, JobDir] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="live", daemon=True)

    def owns(self, directory: JobDir) -> bool:
        """Whether it is such a job."""
        name = directory.path.name
        if name not in self._known:
            self._known[name] = not directory.job.shared_filesystem
        return self._known[name]

    def attend(self, directory: JobDir, said: Said) -> None:
        """See that a job has its courier while it has nodes."""
        if said.meaning is None or said.meaning.phase not in _WITH_NODES or not said.nodes or not self.owns(directory):
            return
        if directory.outcome is None:
            _ensure_courier(directory, said.nodes)
            with self._lock:
                self._running[directory.path.name] = directory
            if self._thread.ident is None:
                self._thread.start()

    def _work(self) -> None:
        """Show in the runs what comes from the nodes; there is no agent here that does it."""
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, os.nice(0) + _NICENESS))
        from mlflow_pytorch_estimator.mirror import RunMirror

        mirrors: dict[str, RunMirror] = {}
        while True:
            with self._lock:
                running = dict(self._running)
            for name, directory in running.items():
                try:
                    if directory.outcome is not None or not directory.exists:
                        mirrors.pop(name, None)
                        with self._lock:
                            self._running.pop(name)
                        continue
                    mirrors.setdefault(name, RunMirror(directory)).sync()
                except Exception as error:  # noqa: BLE001 - the outer edge of the thread: a store may fail in any way
                    words = f"{time.strftime('%F %T')} MLflow: {type(error).__name__}: {error}"
                    print(words, file=sys.stderr, flush=True)
                    time.sleep(_PAUSE_SECONDS)
            time.sleep(_INTERVAL_SECONDS)


def _ensure_courier(directory: JobDir, nodes: str) -> None:
    """Start a courier if the job has none; ``nodes`` as Slurm writes them (``gpu[01-04]``)."""
    files = FarFiles(directory)
    if locks.is_held(files.lock):
        return
    given = {name: value for name, value in client.environment().items() if name != jobenv.CARRIED_VARIABLE}
    given[jobdir.HOME_VARIABLE] = str(jobdir.home())
    names = queries.host_names(nodes)
    detached.spawn([sys.executable, "-m", _COURIER, str(directory.path), *names], files.log, Path("/"), given, ())
