"""Jobs of Slurm that wait for other runs: ``afterok`` for as long as it is true, and the reason when it cannot be."""

from __future__ import annotations

from mlflow_pytorch_estimator import after
from mlflow_pytorch_estimator.after import Predecessor
from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.slurm import client, options, queries
from mlflow_pytorch_estimator.schedulers.slurm.queries import Said
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase

_OURS = ("dependency", "kill-on-invalid-dep")
_REASON, _NEVER = "Dependency", "DependencyNeverSatisfied"


def check(job: JobSpec) -> None:
    """Raise ConfigError where the user's own options say what the job waits for, too."""
    for key in job.scheduler_options if job.after else ():
        if options.long_name(key) in _OURS:
            raise ConfigError(f"after and {key!r} in scheduler_options both say what the job waits for: leave out one")


def arguments(job: JobSpec) -> tuple[str, ...]:
    """For ``sbatch``; SchedulerError if the job will never start.

    A job that can never start stays in the queue until the watcher has said why.
    """
    ids = [item.directory.job_id for item in after.open_ones(job)]
    waits = ":".join(queries.address(job_id)[0] for job_id in ids if job_id is not None)
    return (f"--dependency=afterok:{waits}", "--kill-on-invalid-dep=no") if waits else ()


def message(directory: JobDir, said: Said) -> str:
    """``waits for run ID (Dependency)``; "" for a job that waits for something else."""
    waiting = [item for item in _predecessors(directory, said) if not item.completed]
    return f"{after.message(waiting)} ({said.reason})" if waiting else ""


def look(directory: JobDir, job_id: str, said: Said) -> None:
    """End a job whose predecessor did not complete; let one go whose predecessors all did, whatever Slurm thinks."""
    predecessors = _predecessors(directory, said)
    number, where = queries.address(job_id)
    lost = next((item for item in predecessors if item.verdict), None)
    if lost is not None and directory.outcome is None:
        directory.conclude(Phase.FAILED, after.never(lost))
        client.run("scancel", *where, number)
    elif predecessors and said.reason == _NEVER and all(item.completed for item in predecessors):
        # It completed, and then a node failed, or its time was over, while its files were stored.
        client.run("scontrol", *where, "update", f"JobId={number}", "Dependency=")


def _predecessors(directory: JobDir, said: Said) -> list[Predecessor]:
    if not said.reason.startswith(_REASON):
        return []
    return [Predecessor(JobDir.of_run(run_id)) for run_id in directory.job.after]
