"""The end of a job without a shared file system on its first node: the agent leaves when all has been fetched."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.reporter import Reporter
from mlflow_pytorch_estimator.schedulers.slurm import far
from mlflow_pytorch_estimator.schedulers.slurm.far import FarFiles

_POLL_SECONDS = 0.1


class Handover(Reporter):
    """In the place of the agent's reporter: the submit host writes the run, the node only hands over."""

    def __init__(self, directory: JobDir) -> None:
        super().__init__(directory)
        self._directory = directory
        self._files = FarFiles(directory)

    def start(self) -> None:
        """Nothing: the teller tells."""

    def deliver(self) -> None:
        """Wait until all is fetched, and leave nothing behind; gives up when nobody calls for ten minutes."""
        self._files.over.touch(mode=0o600)
        called, since = _touched(self._files.contact), time.monotonic()
        while not self._files.fetched.exists():
            time.sleep(_POLL_SECONDS)
            if _touched(self._files.contact) != called:
                called, since = _touched(self._files.contact), time.monotonic()
            if time.monotonic() > since + far.FETCH_SECONDS:
                print(f"nobody has fetched the results: they stay in {self._directory.path}", file=sys.stderr)
                return
        os.chdir("/")
        shutil.rmtree(self._directory.path, ignore_errors=True)


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
