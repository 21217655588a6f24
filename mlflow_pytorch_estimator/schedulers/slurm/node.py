"""What the batch script starts on the first node of a job: the agent, which knows that it lives in Slurm.

python -m mlflow_pytorch_estimator.schedulers.slurm.node JOBDIR
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from mlflow_pytorch_estimator import agent
from mlflow_pytorch_estimator.attempt import Verdict
from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.relay import door
from mlflow_pytorch_estimator.reporter import NoReporter
from mlflow_pytorch_estimator.schedulers.base import ALLOCATION_VARIABLE, JOB_DIRECTORY_VARIABLE
from mlflow_pytorch_estimator.schedulers.slurm import far, memory, place, script
from mlflow_pytorch_estimator.schedulers.slurm.handover import Handover
from mlflow_pytorch_estimator.status import Phase


class SlurmAgent(agent.Agent):
    """Tells a request to end from the end of the job's time, and both from what Slurm alone can explain."""

    def __init__(self, directory: JobDir) -> None:
        super().__init__(directory, [])
        if directory.job.relay:
            self.reporter = NoReporter(directory)
        elif not directory.job.shared_filesystem:
            self.reporter = Handover(directory)
        self._time_is_over = False
        signal.signal(signal.Signals[f"SIG{script.END_SIGNAL}"], self._on_time)

    def conclude_canceled(self) -> None:
        """The last word on a job that was ended from outside, if this side knows why.

        After a bare SIGTERM the job may have been canceled in Slurm, preempted or requeued: its state will tell whoever
        watches it, and a requeued job comes back to this directory.
        """
        if self.directory.cancel_requested:
            super().conclude_canceled()
        elif self._time_is_over and self.directory.outcome is None:
            self.last_word(Phase.FAILED, "TIMEOUT: the job's time limit in Slurm was over")

    def _conclude(self, verdict: Verdict) -> None:
        super()._conclude(memory.explained(verdict, self.directory.logs))

    def _on_time(self, number: int, frame: FrameType | None) -> None:
        self._time_is_over = self._asked_to_end = True


def main(argv: list[str]) -> int:
    """Run the job on this allocation."""
    path = Path(argv[0])
    directory = JobDir(path.readlink() if path.is_symlink() else path)  # a link for a task of an array
    if directory.outcome is not None:
        return _status(directory)  # Slurm has requeued what had ended
    job_agent = SlurmAgent(directory)
    try:
        here = place.here(os.environ)
        others = place.others(os.environ, here)
    except GpuClusterError as error:
        directory.conclude(Phase.FAILED, str(error))
    else:
        environ = place.without_tasks(os.environ)
        os.environ.clear()
        os.environ.update(environ, **{ALLOCATION_VARIABLE: here.to_json(), JOB_DIRECTORY_VARIABLE: str(directory.path)})
        if directory.job.relay:
            os.environ[door.FOLDER_VARIABLE] = str(directory.relay)
        door.serve(here.node)
        if job_agent.canceled:
            job_agent.conclude_canceled()
        else:
            job_agent.run(here, others)
    job_agent.deliver()
    return far.exit_status(directory) or _status(directory)


def _status(directory: JobDir) -> int:
    """For Slurm, whose ``afterok`` believes it: 0 for a run that has completed, and nothing else."""
    outcome = directory.outcome
    return 0 if outcome is not None and outcome.phase is Phase.COMPLETED else 1


if __name__ == "__main__":
    exit_status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(exit_status)  # as the local scheduler's agent
