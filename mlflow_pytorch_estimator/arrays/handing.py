"""From jobs that are described to jobs that wait in a queue, all of an array together."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mlflow_pytorch_estimator import library
from mlflow_pytorch_estimator.environments import BUILT, claim
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.base import Scheduler, Task
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase


def outfit(job: JobSpec, directory: JobDir, model: JobSpec, fitted: JobDir) -> JobSpec:
    """The job with the environment or the image of another one of its array, which has it already."""
    if model.interpreter.python is None or job.interpreter.python is not None:
        return job
    if model.interpreter.manager in BUILT:
        claim(Path(model.interpreter.python), directory.path)
    if fitted.library.exists():
        library.deliver(directory.library)
    for ours, theirs in (
        (directory.environment, fitted.environment),
        (directory.horovod, fitted.horovod),
        (directory.environment_log, fitted.environment_log),
    ):
        if theirs.exists():
            shutil.copyfile(theirs, ours)
    return replace(job, interpreter=model.interpreter, container=model.container, notices=model.notices)


def hand_over(group: JobDir, tasks: Sequence[Task], scheduler: Scheduler, environ: Mapping[str, str]) -> None:
    """Give the jobs of an array, which are ready, to their scheduler.

    Raises SchedulerError when not all were accepted; those that were are asked to end, and have an id.
    """
    group.tasks.mkdir(mode=0o700)
    for number, task in enumerate(tasks):
        if task.job.interpreter.manager in BUILT and task.job.interpreter.python:
            claim(Path(task.job.interpreter.python), task.directory.path)
        task.directory.write_job(task.job)
        task.directory.enter(Phase.QUEUED)
        (group.tasks / str(number)).symlink_to(task.directory.path)
    group.write_job(replace(group.job, interpreter=tasks[0].job.interpreter, container=tasks[0].job.container))
    group.enter(Phase.QUEUED)
    try:
        scheduler.submit_array(tasks, group, environ)
    except BaseException:
        for task in tasks:
            if task.directory.job_id is not None:
                task.directory.request_cancel()
        raise
