"""Dry runs: what they say is what a submission then does, and they leave nothing behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from conftest import Project, command_line, finish, processes_with, submit
from mlflow.tracking import MlflowClient
from slurm_cluster import Slurm, watchers

from mlflow_pytorch_estimator import Experiment, PyTorch, PyTorchConfiguration, ScriptRunConfig, TrainingException
from mlflow_pytorch_estimator.dryrun.plan import Plan
from mlflow_pytorch_estimator.errors import ConfigError, DryRunError, ProjectError

SHOW = "import json, os\nprint(json.dumps(sorted(os.environ)))\n"
LOCAL = ("-b", "gpu-cluster", "--env-manager", "local")


def plan_of(project: Project, **options: object) -> Plan:
    """What MLflow's Python API says of a dry run."""
    config = {**dict(options.pop("config", {})), "dry_run": True}  # type: ignore[call-overload]
    with pytest.raises(DryRunError, match="dry run: nothing was submitted; this error's `plan` is what") as caught:
        submit(project, config=config, **options)
    assert isinstance(caught.value.plan, Plan)
    return caught.value.plan


def dry(project: Project, config: dict[str, object]) -> subprocess.CompletedProcess[str]:
    """What the command line says of one."""
    process = command_line("run", str(project.path), *LOCAL, "-c", json.dumps({**config, "dry_run": True}))
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess((), process.returncode, out, err)


def nothing_is_left(store: MlflowClient, home: Path) -> bool:
    return store.search_runs(["0"]) == [] and list((home / "jobs").iterdir()) == [] and watchers(home) == []


def section(text: str, title: str) -> list[str]:
    """The lines below a heading, without their indentation."""
    (found,) = [part for part in text.split("\n\n") if part.partition("\n")[0] == title]
    return [line.strip() for line in found.splitlines()[1:]]


# --- what is said


def test_a_job_of_slurm(project: Project, store: MlflowClient, home: Path, slurm: Slurm) -> None:
    project.entry("main", "python train.py {word}", "{word: {type: string, default: 'it is'}}")
    config: dict[str, object] = {
        "scheduler": "slurm",
        "scheduler_options": {"partition": "cloud"},
        "node_count": 2,
        "process_count_per_node": 2,
        "distributed_training": "torchrun",
        "gpus_per_node": 2,
    }
    done = dry(project, config)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "gpu-cluster: dry run: nothing was submitted"
    assert section(done.stdout, "Command") == ["python train.py 'it is'"]
    assert section(done.stdout, "4 ranks on 2 nodes (world size 4), started by torchrun") == [
        "node 0: ranks 0-1 (local ranks 0-1)",
        "node 1: ranks 2-3 (local ranks 0-1)",
    ]
    assert section(done.stdout, "Environment")[0] == f"the interpreter that submits: {sys.executable}"
    folder = home / "jobs/RUN_ID"
    assert done.stdout.endswith(f"""
What the scheduler slurm would get
sbatch --parsable --export=ALL <<'END'
#!/bin/bash
#SBATCH --job-name=toy
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --output={folder}/logs/agent.log
#SBATCH --open-mode=append
#SBATCH --chdir={folder}
#SBATCH --comment=RUN_ID
#SBATCH --signal=B:USR2@40
#SBATCH --no-requeue
#SBATCH --gres=gpu:2
#SBATCH --partition=cloud

exec {sys.executable} -m mlflow_pytorch_estimator.schedulers.slurm.node {folder}
END
""")
    assert "calls go through the job directory" in section(done.stdout, "Notes")[0]
    assert nothing_is_left(store, home)
    assert slurm.command("squeue", "--noheader") == ""


def test_a_job_of_this_machine(project: Project, store: MlflowClient, home: Path) -> None:
    config = {"node_count": 2, "distributed_training": "torchrun", "cpus_per_node": 1, "memory_gb_per_node": 0.5}
    text = str(plan_of(project.script(SHOW), config={**config, "gpus_per_node": 0, "low_priority": True}))
    assert section(text, "2 ranks on 2 nodes (world size 2), started by torchrun") == [
        "node 0: rank 0 (local rank 0)",
        "node 1: rank 1 (local rank 0)",
    ]
    queue, command = section(text, "What the scheduler local would get")
    assert re.fullmatch(
        r"a place in the queue of this machine: 2 of \d+ CPUs?, 0 of \d+ GPUs?, 1 GiB of memory set aside, "
        "shared by 2 simulated nodes, after jobs of normal priority",
        queue,
    )
    assert command == f"{sys.executable} -m mlflow_pytorch_estimator.schedulers.local_node {home}/jobs/RUN_ID TICKET"
    assert nothing_is_left(store, home)
    assert processes_with(f"GPU_CLUSTER_HOME={home}") == []


def test_no_value_of_a_variable_is_shown(
    project: Project, store: MlflowClient, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_API_TOKEN", "hunter22")
    monkeypatch.setenv("WORD", "an-open-word")
    project.entry("main", "python train.py {token}", "{token: string}")
    plan = plan_of(project, parameters={"token": "hunter22"})
    assert {"OUR_API_TOKEN", "WORD"} <= set(plan.environment_variables["from this shell"])
    text = str(plan)
    assert "hunter22" not in text
    assert "an-open-word" not in text
    assert section(text, "Command") == ['python train.py "${OUR_API_TOKEN}"']


def test_an_environment_that_is_not_there_and_one_that_is(project: Project, store: MlflowClient, home: Path) -> None:
    project.script("print('ran')")
    (project.path / "MLproject").write_text((project.path / "MLproject").read_text() + "conda_env: conda.yaml\n")
    (project.path / "conda.yaml").write_text("dependencies: [pip, {pip: [mlflow]}]\n")
    plan = plan_of(project, env_manager=None)
    assert section(str(plan), "Environment") == ["to be built by uv before it is queued, from conda.yaml", "mlflow"]
    assert not (home / "envs").exists()
    done = finish(submit(project, env_manager=None))
    assert done.succeeded, done.directory.outcome
    interpreter = done.directory.job.interpreter
    assert section(str(plan_of(project, env_manager=None)), "Environment") == [
        f"ready: {interpreter.key}",
        interpreter.python,
    ]
    anew = plan_of(project, env_manager=None, config={"upgrade_environment": True})
    assert (
        section(str(anew), "Environment")[0] == "to be chosen anew and built by uv before it is queued, from conda.yaml"
    )


# --- what is said is what happens


@pytest.mark.parametrize(("scheduler", "kind"), [("local", "torchrun"), ("slurm", None), ("slurm", "torchrun")])
def test_the_names_are_those_that_a_rank_has(
    project: Project, store: MlflowClient, slurm: Slurm, scheduler: str, kind: str | None
) -> None:
    config = {"scheduler": scheduler, "cpus_per_node": 1, "gpus_per_node": 0 if scheduler == "local" else 1}
    config |= {"distributed_training": kind} if kind else {}
    said = [*sum(plan_of(project.script(SHOW), config=config).environment_variables.values(), ())]
    done = finish(submit(project, config=config))
    assert done.succeeded, done.directory.outcome
    there = set(json.loads(done.log)) - {"_", "PWD", "OLDPWD", "SHLVL"}  # the shells have their own
    assert [name for name in there if not any(fnmatch(name, pattern) for pattern in said)] == []
    plain = {name for name in said if "*" not in name}
    assert plain - there - {"_", "PWD", "OLDPWD", "SHLVL", *OPTIONAL} == set()


OPTIONAL = {"ENVIRONMENT", "HOSTNAME", "TMPDIR", "GROUP_NAME"}
"""That a site or a version of torch may not set."""


def test_variables_of_the_estimator(experiment: Experiment, folder: Path) -> None:
    (folder / "train.py").write_text(SHOW)
    estimator = PyTorch(
        str(folder),
        compute_target="local",
        entry_script="train.py",
        environment_variables={"MINE": "a-value", "PATH": "/x"},
    )
    plan = experiment.plan(estimator)
    assert plan.environment_variables["from the project or the estimator"] == ("MINE", "PATH")
    assert "CHECKPOINT_DIR" in plan.environment_variables["from the backend"]
    assert "a-value" not in str(plan)


# --- the estimator


def test_the_plan_of_an_estimator(experiment: Experiment, folder: Path, home: Path) -> None:
    (folder / "train.py").write_text(SHOW)
    distribution = PyTorchConfiguration(process_count=4, node_count=2)
    plan = experiment.plan(
        ScriptRunConfig(str(folder), "train.py", arguments=["--lr", 0.1], distributed_job_config=distribution)
    )
    assert plan.ranks == ((0, 1), (2, 3))
    assert plan.job.command == "python train.py --lr 0.1"
    assert list(experiment.get_runs()) == []
    assert list((home / "jobs").iterdir()) == []


def test_the_estimators_word_for_it(folder: Path) -> None:
    (folder / "train.py").write_text(SHOW)
    with pytest.raises(TrainingException, match=r"dry_run is Experiment\.plan\(\.\.\.\) here, which submits nothing"):
        PyTorch(str(folder), compute_target="local", entry_script="train.py", backend_config={"dry_run": True})


# --- what is wrong is refused all the same


def test_what_slurm_would_refuse(project: Project, store: MlflowClient, home: Path, slurm: Slurm) -> None:
    config = {"scheduler": "slurm", "node_count": 9, "distributed_training": "torchrun"}
    with pytest.raises(ConfigError, match="Slurm does not take the job: allocation failure"):
        submit(project.script(SHOW), config={**config, "dry_run": True})
    assert nothing_is_left(store, home)


def test_what_this_machine_would_refuse(project: Project, store: MlflowClient, home: Path) -> None:
    with pytest.raises(ConfigError, match="cpus_per_node is 4096, but this machine has"):
        submit(project.script(SHOW), config={"cpus_per_node": 4096, "dry_run": True})
    assert nothing_is_left(store, home)


def test_a_rank_plans_nothing(project: Project, store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("RUN_ID", "0" * 32)):
        monkeypatch.setenv(f"GPU_CLUSTER_{name}", value)
    with pytest.raises(ProjectError, match="rank 1 of a job submits nothing"):
        submit(project.script(SHOW), config={"dry_run": True})
