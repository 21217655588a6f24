"""The tags that this backend sets on a run."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.jobdir import Outcome
    from mlflow_pytorch_estimator.spec import JobSpec

STATUS = "gpu_cluster.status"
SCHEDULER = "gpu_cluster.scheduler"
JOB_ID = "gpu_cluster.job_id"
COMPUTE = "gpu_cluster.compute"
DISTRIBUTION = "gpu_cluster.distribution"
ATTEMPT = "gpu_cluster.attempt"
AFTER = "gpu_cluster.after"
WAITING = "gpu_cluster.waiting"
"""Why the job is not running yet; taken away when it is."""
NOTICE = "gpu_cluster.notice"
SUBMISSION = "gpu_cluster.submission"
HOME = "gpu_cluster.home"
"""Machine and folder from which it was submitted: the only place that knows whether its job lives."""
RETRY_OF = "gpu_cluster.retry_of"
"""Id of the run whose job runs again in this one."""
EXIT_CODE = "gpu_cluster.exit_code"
FAILURE = "gpu_cluster.failure"
UNDELIVERED = "gpu_cluster.undelivered"
NOTE = "mlflow.note.content"
PROPERTY = "gpu_cluster.property."
"""Prefix of the properties of runs and of model versions, which do not change."""


def of_job(job: JobSpec) -> dict[str, str]:
    """Tags that say how the job was asked for."""
    result = {SCHEDULER: job.scheduler}
    if job.compute:
        result[COMPUTE] = job.compute
    if job.distribution.kind != "single":
        result[DISTRIBUTION] = (
            f"{job.distribution.kind}, {job.resources.node_count} x {job.distribution.processes_per_node}"
        )
    if job.after:
        result[AFTER] = ", ".join(job.after)
    if job.notices:
        result[NOTICE] = "; ".join(job.notices)
    return result


def here() -> dict[str, str]:
    """Tags that say where a job was submitted."""
    from mlflow_pytorch_estimator import jobdir

    return {HOME: f"{socket.gethostname()}:{jobdir.home()}"}


def of_outcome(outcome: Outcome, problems: list[str]) -> dict[str, str]:
    """Tags that say how the job ended, and what of it could not be stored."""
    result = {}
    if outcome.exit_code is not None:
        result[EXIT_CODE] = str(outcome.exit_code)
    if outcome.reason:
        result[FAILURE] = outcome.reason
    if problems:
        result[UNDELIVERED] = "; ".join(problems)
    return result
