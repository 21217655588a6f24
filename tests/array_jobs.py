"""Arrays of small scripts, submitted as a user does, on any scheduler."""

from __future__ import annotations

import time
from pathlib import Path

from conftest import wait_until

from mlflow_pytorch_estimator import AmlCompute, ComputeTarget, Environment, Run, ScriptRunConfig, Workspace
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

# Waits for a file of its number beside the folder of all, so that a test decides when it ends.
SCRIPT = """
import argparse, os, sys, time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--number", type=int)
parser.add_argument("--fails", action="store_true")
arguments = parser.parse_args()
gates = Path(os.environ["GATES"])
(gates / f"begun-{arguments.number}").touch()
print("number", arguments.number, flush=True)
while not (gates / f"end-{arguments.number}").exists():
    time.sleep(0.05)
sys.exit(3 if arguments.fails else 0)
"""


class Gates:
    """Where the runs say that they have begun, and are told to end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def begun(self) -> set[int]:
        return {int(path.name.partition("-")[2]) for path in self.folder.glob("begun-*")}

    def wait_for(self, count: int, seconds: float = 90) -> set[int]:
        """Until so many have begun."""
        wait_until(lambda: len(self.begun()) >= count, seconds, f"the beginning of {count} runs")
        return self.begun()

    def end(self, *numbers: int) -> None:
        for number in numbers:
            (self.folder / f"end-{number}").touch()


def one_core(workspace: Workspace, scheduler: str) -> ComputeTarget:
    """A compute target of which each job gets one core, so that several fit."""
    wanted = AmlCompute.provisioning_configuration(scheduler=scheduler, max_nodes=4, cpus_per_node=1, gpus_per_node=0)
    return ComputeTarget.create(workspace, "cores", wanted)


def script(folder: Path, gates: Gates, target: ComputeTarget | None = None) -> ScriptRunConfig:
    """A description of the script, with the interpreter that submits."""
    (folder / "train.py").write_text(SCRIPT, encoding="utf-8")
    environment = Environment("as-it-is")
    environment.python.user_managed_dependencies = True
    environment.environment_variables = {"GATES": str(gates.folder)}
    return ScriptRunConfig(
        folder,
        "train.py",
        environment=environment,
        compute_target=target,
        backend_config={"grace_period_seconds": 2},
    )


def job(run: Run) -> GpuClusterSubmittedRun:
    found = run.job
    assert found is not None
    return found


def settled(runs: list[Run], seconds: float = 120) -> list[str]:
    """The statuses of runs that have ended, in MLflow."""
    for run in runs:
        run.wait_for_completion(raise_on_error=False)
    deadline = time.monotonic() + seconds
    while not all(JobDir.of_run(run.id).delivered.exists() for run in runs):
        assert time.monotonic() < deadline, [job(run).directory.outcome for run in runs]
        time.sleep(0.1)
    return statuses(runs)


def statuses(runs: list[Run]) -> list[str]:
    """As MLflow has them."""
    return [str(run._read().info.status) for run in runs]


def above(runs: list[Run]) -> Run:
    """The run above them all."""
    found = runs[0].parent
    assert found is not None
    return found
