"""What a job needs before it is queued: its environment or its image, and its inputs. On whichever machine."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mlflow_pytorch_estimator import jobdir, library
from mlflow_pytorch_estimator.containers import mounts, runtime
from mlflow_pytorch_estimator.environments import EnvironmentSpec, ReadyEnvironment, prepare
from mlflow_pytorch_estimator.environments.runner import Runner
from mlflow_pytorch_estimator.errors import ProjectError, one_line
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.progress import ProgressFile
from mlflow_pytorch_estimator.spec import Container, JobSpec


@dataclass(frozen=True)
class Preparation:
    """The work of preparing one job."""

    directory: JobDir
    say: Callable[[str], None]
    """Gets what the user should see: one short line at a time."""
    canceled: Callable[[], bool]
    lock: int = -1
    """Descriptor of the job's lock: what a pull starts holds it, too."""

    def make(self, job: JobSpec) -> JobSpec:
        """Return the job with all that it needs; raises what goes wrong, and BuildCancelled."""
        if job.inputs:
            job = download(job, self.directory, self.say)
        if job.container is not None and job.container.image_id is None:
            return self._pull(job, job.container)
        if job.interpreter.python is None:
            self.directory.restore_source(job)
            spec = EnvironmentSpec.from_json(job.interpreter.description)
            with self.directory.environment_log.open("a", encoding="utf-8") as log:
                ready = self._ready(spec, log, upgrade=job.upgrade_environment)
                while not ready.claim(self.directory.path):  # somebody tidied up at this very moment
                    ready = self._ready(spec, log)
            ProgressFile(self.directory.progress).clear()
            job = use_environment(job, self.directory, ready)
        return job

    def _ready(self, spec: EnvironmentSpec, log: TextIO, *, upgrade: bool = False) -> ReadyEnvironment:
        return prepare(
            spec,
            self.directory.workdir,
            jobdir.environments(),
            log=log,
            cancelled=self.canceled,
            say=self.say,
            measured=ProgressFile(self.directory.progress),
            upgrade=upgrade,
        )

    def _pull(self, job: JobSpec, container: Container) -> JobSpec:
        with self.directory.environment_log.open("a", encoding="utf-8") as log:
            runner = Runner(log, self.canceled, self.say, self.lock)
            found = runtime.ensure_image(container, runner, os.environ, upgrade=job.upgrade_environment)
        return use_image(job, self.directory, found)


def download(job: JobSpec, directory: JobDir, say: Callable[[str], None]) -> JobSpec:
    """The job with paths for its inputs; raises ProjectError."""
    from mlflow.artifacts import download_artifacts

    from mlflow_pytorch_estimator.project import resolve_inputs

    paths = {}
    for placeholder, uri in job.inputs.items():
        say(f"downloading {uri}")
        root = Path(job.storage_dir) / job.run_id if job.storage_dir else directory.inputs
        folder = root / placeholder.lower()
        folder.mkdir(parents=True)
        try:
            found = download_artifacts(artifact_uri=uri, dst_path=str(folder))
        except Exception as error:  # an artifact store may fail in any way
            raise ProjectError(f"cannot download the input {uri}: {one_line(error)}") from error
        paths[placeholder] = str(Path(found).absolute())
    named = {name: paths.get(path, path) for name, path in job.input_paths.items()}
    datasets = {name: {**data, "path": paths.get(data["path"], data["path"])} for name, data in job.datasets.items()}
    container = job.container and mounts.with_paths(job.container, paths.values())
    command = resolve_inputs(job.command, paths)
    return dataclasses.replace(
        job, command=command, input_paths=named, datasets=datasets, inputs={}, container=container
    )


def is_prepared(job: JobSpec) -> bool:
    """Whether nothing is left to do before the job is queued."""
    return job.interpreter.python is not None and not job.inputs


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
