"""Jobs that Slurm has, and whose submitter was killed before it could write down their ids.

Slurm knows each by its comment, which is the id of its run. As long as `sbatch` is on its way it holds the job's lock.
"""

from __future__ import annotations

import os

from mlflow_pytorch_estimator.errors import SchedulerError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.slurm import arrays, client, options
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase


def adopt(directory: JobDir) -> bool:
    """Write down the id of a job that Slurm has; False if it has none. Raises SchedulerError if it cannot be asked."""
    if directory.alive or directory.phase is Phase.PREPARING:
        return directory.alive
    job = directory.job
    above = directory.beside(job.array) if job.array else None
    if above is None:
        job_id = _find(job, directory.path.name)
    elif above.exists and directory.path.name in above.job.members:
        number = above.job.members.index(directory.path.name)
        whole = above.job_id or _find(job, above.path.name)
        if whole and above.job_id is None:
            above.write_job_id(whole)
        job_id = arrays.task(whole, number) if whole else None
    else:
        job_id = None
    if job_id is not None:
        directory.write_job_id(job_id)
    return job_id is not None


def _find(job: JobSpec, comment: str) -> str | None:
    """As `sbatch --parsable` would have said it."""
    cluster = options.cluster(job.scheduler_options)
    where = (f"--clusters={cluster}",) if cluster else ()
    asked = ("squeue", *where, "--noheader", f"--user={os.getuid()}", "--states=all", "--format=%F|%k")
    answer = client.run(*asked, patient=True)
    if answer.code != 0:
        raise SchedulerError(f"squeue: {answer.reason}")
    jobs = (line.partition("|") for line in answer.output.splitlines())
    job_id = next((number for number, _, said in jobs if said == comment), None)
    return f"{job_id};{cluster}" if job_id and cluster else job_id
