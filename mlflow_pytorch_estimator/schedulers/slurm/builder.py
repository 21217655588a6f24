"""What a job of Slurm does that prepares another one: builds its environment and downloads its inputs, on a node.

python -m mlflow_pytorch_estimator.schedulers.slurm.builder JOBDIR
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import FrameType

from mlflow_pytorch_estimator.environments import BuildCancelled
from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.files import write_atomic
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.preparation import Preparation
from mlflow_pytorch_estimator.status import Phase

REASON = "reason"


class Builder:
    """Prepares the job in a directory, as long as anybody wants it."""

    def __init__(self, directory: JobDir) -> None:
        self._directory = directory
        self._asked_to_end = False
        signal.signal(signal.SIGTERM, self._on_signal)

    def run(self) -> str:
        """Why it did not work; "" if it did."""
        try:
            job = Preparation(self._directory, self._say, self._canceled).make(self._directory.job)
        except BuildCancelled:
            return "canceled by request"
        except GpuClusterError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - the outer edge of the process: somebody waits for its word
            return f"preparing the job failed: {type(error).__name__}: {error}"
        self._directory.write_job(job)
        return ""

    def _say(self, line: str) -> None:
        self._directory.enter(Phase.PREPARING, line)

    def _canceled(self) -> bool:
        """Also when nobody waits any more: whoever submitted this was killed, and the run has ended."""
        return self._asked_to_end or self._directory.cancel_requested or self._directory.outcome is not None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_end = True


def main(argv: list[str]) -> int:
    """Prepare, and say how it went."""
    directory = JobDir(Path(argv[0]))
    reason = Builder(directory).run()
    write_atomic(directory.prepared, json.dumps({REASON: reason}))
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
