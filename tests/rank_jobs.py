"""Jobs of several ranks, handed to the local scheduler as the preparer does when the environment is ready."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import Finished, processes_with, wait_until
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import library
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.spec import Distribution, InterpreterSpec, JobSpec, Resources
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

BEGUN = "import os, time\nprint('begun', flush=True)\n"


@dataclass
class Jobs:
    """Submits scripts; ``python`` is the interpreter of their ranks."""

    client: MlflowClient
    python: str
    scheduler: str = "local"
    manager: str = "local"

    def submit(
        self,
        script: str,
        count: int = 2,
        nodes: int = 1,
        kind: str = "horovod",
        cpus: int | None = None,
        distribution: Distribution | None = None,
        files: Path | None = None,
        gpus: int | None = None,
        memory: float | None = None,
        **fields: Any,
    ) -> GpuClusterSubmittedRun:
        """A job of ``nodes`` x ``count`` ranks that run a script, beside copies of files.

        Further fields are those of ``JobSpec``.
        """
        staged, lock = JobDir.stage()
        if files is None:
            staged.source.mkdir()
        else:
            shutil.copytree(files, staged.source)
        (staged.source / "train.py").write_text(script, encoding="utf-8")
        run = self.client.create_run("0")
        directory = staged.settle(run.info.run_id)
        fields.setdefault("grace_seconds", 5.0)
        described = JobSpec(
            run_id=run.info.run_id,
            experiment_id="0",
            scheduler=self.scheduler,
            project="toy",
            entry_point="main",
            command=fields.pop("command", "python train.py"),
            parameters={},
            interpreter=InterpreterSpec(self.manager, python=self.python),
            resources=Resources(nodes, cpus, gpus, memory),
            distribution=distribution or Distribution(kind, count),
            **fields,
        )
        if self.python != sys.executable:
            library.deliver(directory.library)  # as the preparer does for environments, which do not hold this package
        scheduler = load_scheduler(self.scheduler)
        scheduler.check(described)
        directory.write_job(described)
        directory.enter(Phase.QUEUED)
        directory.write_job_id(scheduler.submit(described, directory, lock, os.environ))
        lock.close()
        return GpuClusterSubmittedRun.of_run(run.info.run_id)


def logs(done: Finished) -> list[str]:
    """What the ranks have printed."""
    return [path.read_text(encoding="utf-8") for path in done.directory.rank_logs()]


def everything(done: Finished) -> str:
    """All that is known of a job that went wrong, for the message of an assertion."""
    outcome = done.directory.outcome
    paths = sorted(done.directory.logs.iterdir())
    return f"{outcome}\n" + "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)


def gone(submitted: GpuClusterSubmittedRun) -> bool:
    """Whether nothing of a job is left, its servers and other agents included."""
    return processes_with(submitted.run_id) == []


def begin(submitted: GpuClusterSubmittedRun, count: int = 2, word: str = "begun", seconds: float = 90) -> None:
    """Wait until all ranks have printed a word."""
    logs = [submitted.directory.rank_log(rank) for rank in range(count)]
    wait_until(
        lambda: all(log.exists() and word in log.read_text(errors="replace") for log in logs), seconds, "the ranks"
    )
