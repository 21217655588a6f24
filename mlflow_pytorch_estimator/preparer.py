"""Between submission and queue, detached from the client: builds the environment or pulls the image, downloads inputs.

It comes before queueing, so no node waits for a download.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TextIO

from mlflow_pytorch_estimator import after, jobdir, library, locks
from mlflow_pytorch_estimator.containers import mounts, runtime
from mlflow_pytorch_estimator.environments import (
    BUILT,
    BuildCancelled,
    EnvironmentSpec,
    ReadyEnvironment,
    claim,
    prepare,
)
from mlflow_pytorch_estimator.environments.runner import Runner
from mlflow_pytorch_estimator.errors import GpuClusterError, ProjectError, one_line
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.reporter import Reporter
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.schedulers.base import Scheduler
from mlflow_pytorch_estimator.spec import Container, JobSpec
from mlflow_pytorch_estimator.status import Phase


class Preparer:
    """Prepares one job and hands it to its scheduler."""

    def __init__(self, directory: JobDir, lock: locks.HeldLock) -> None:
        self._directory = directory
        self._lock = lock
        self._reporter = Reporter(directory)
        self._asked_to_end = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def run(self) -> None:
        """Prepare and submit; whatever goes wrong ends the run with its reason."""
        try:
            job = self._prepare(self._directory.job)
            scheduler = load_scheduler(job.scheduler)
            after.wait(job, scheduler, self._say_waiting, self._canceled)
            if self._canceled():
                raise BuildCancelled("canceled by request")
            hand_over(job, scheduler, self._directory, self._lock, os.environ)
        except BuildCancelled:
            self._directory.conclude(Phase.CANCELED, "canceled by request")
        except GpuClusterError as error:
            self._directory.conclude(Phase.FAILED, str(error))
        except Exception as error:  # noqa: BLE001 - the outer edge of the process: the run must not stay SCHEDULED
            self._directory.conclude(Phase.FAILED, f"preparing the job failed: {type(error).__name__}: {error}")
        else:
            return
        self._reporter.deliver()

    def _prepare(self, job: JobSpec) -> JobSpec:
        if job.inputs:
            job = download(job, self._directory)
        if job.container is not None and job.container.image_id is None:
            return self._pull(job, job.container)
        if job.interpreter.python is None:
            self._directory.restore_source(job)
            spec = EnvironmentSpec.from_json(job.interpreter.description)
            with self._directory.environment_log.open("a", encoding="utf-8") as log:
                ready = self._ready(spec, log, upgrade=job.upgrade_environment)
                while not ready.claim(self._directory.path):  # somebody tidied up at this very moment
                    ready = self._ready(spec, log)
            job = use_environment(job, self._directory, ready)
        return job

    def _ready(self, spec: EnvironmentSpec, log: TextIO, *, upgrade: bool = False) -> ReadyEnvironment:
        return prepare(
            spec,
            self._directory.workdir,
            jobdir.environments(),
            log=log,
            cancelled=self._canceled,
            say=self._say,
            upgrade=upgrade,
        )

    def _pull(self, job: JobSpec, container: Container) -> JobSpec:
        with self._directory.environment_log.open("a", encoding="utf-8") as log:
            runner = Runner(log, self._canceled, self._say, self._lock.fd)
            found = runtime.ensure_image(container, runner, os.environ, upgrade=job.upgrade_environment)
        return use_image(job, self._directory, found)

    def _say(self, line: str) -> None:
        self._directory.enter(Phase.PREPARING, line)

    def _say_waiting(self, line: str) -> None:
        self._directory.enter(Phase.QUEUED, line)
        self._reporter.start()

    def _canceled(self) -> bool:
        return self._asked_to_end or self._directory.cancel_requested

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_end = True


def download(job: JobSpec, directory: JobDir) -> JobSpec:
    """The job with paths for its inputs; raises ProjectError."""
    from mlflow.artifacts import download_artifacts

    from mlflow_pytorch_estimator.project import resolve_inputs

    paths = {}
    for placeholder, uri in job.inputs.items():
        directory.enter(Phase.PREPARING, f"downloading {uri}")
        root = Path(job.storage_dir) / job.run_id if job.storage_dir else directory.inputs
        folder = root / placeholder.lower()
        folder.mkdir(parents=True)
        try:
            found = download_artifacts(artifact_uri=uri, dst_path=str(folder))
        except Exception as error:  # an artifact store may fail in any way
            raise ProjectError(f"cannot download the input {uri}: {one_line(error)}") from error
        paths[placeholder] = str(Path(found).absolute())
    named = {name: paths.get(path, path) for name, path in job.input_paths.items()}
    container = job.container and mounts.with_paths(job.container, paths.values())
    command = resolve_inputs(job.command, paths)
    return dataclasses.replace(job, command=command, input_paths=named, inputs={}, container=container)


def hand_over(
    job: JobSpec, scheduler: Scheduler, directory: JobDir, lock: locks.HeldLock, environ: Mapping[str, str]
) -> None:
    """Give a job that is ready to its scheduler."""
    if job.interpreter.manager in BUILT and job.interpreter.python:
        claim(Path(job.interpreter.python), directory.path)
    directory.write_job(job)
    directory.enter(Phase.QUEUED)
    directory.write_job_id(scheduler.submit(job, directory, lock, environ))


def use_environment(job: JobSpec, directory: JobDir, ready: ReadyEnvironment) -> JobSpec:
    """The job with its interpreter filled in; delivers the package and the list of what is installed."""
    if job.interpreter.manager != "local":
        library.deliver(directory.library)
        directory.environment.write_text(ready.freeze, encoding="utf-8")
    if ready.horovod:
        directory.horovod.write_text(ready.horovod, encoding="utf-8")
    interpreter = dataclasses.replace(job.interpreter, python=str(ready.python), key=ready.key)
    return dataclasses.replace(job, interpreter=interpreter, notices=(*job.notices, *ready.notices))


def use_image(job: JobSpec, directory: JobDir, container: Container) -> JobSpec:
    """The job with an image that is on this machine; delivers the package and what the job runs with."""
    library.deliver(directory.library)
    directory.environment.write_text(runtime.freeze(container), encoding="utf-8")
    interpreter = dataclasses.replace(job.interpreter, python="python")
    return dataclasses.replace(job, interpreter=interpreter, container=container)


def main(argv: list[str]) -> None:
    """``python -m mlflow_pytorch_estimator.preparer JOBDIR LOCK_FD``."""
    directory = JobDir(Path(argv[0]))
    Preparer(directory, locks.adopt(directory.lock, int(argv[1]))).run()


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(0)  # the reporter may be importing MLflow, which nobody waits for
