"""Through the installed command line, as a user's shell would: exit status, output, signals, and the main path."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from conftest import ROOT, Project, Server, command_line, companion, processes_with, wait_until
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator.jobdir import JobDir

LOCAL = ("-b", "gpu-cluster", "--env-manager", "local")


def run_to_end(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    process = command_line("run", *arguments, **options)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def only_run(client: MlflowClient) -> mlflow.entities.Run:
    runs = client.search_runs([item.experiment_id for item in client.search_experiments()])
    assert len(runs) == 1
    return runs[0]


def test_success_streams_phases_and_output(store: MlflowClient, project: Project) -> None:
    project.entry("main", "echo out; echo err >&2")
    done = run_to_end(str(project.path), *LOCAL, "--experiment-name", "named", "--run-name", "first")
    assert (done.returncode, done.stdout) == (0, "out\nerr\n")
    run = only_run(store)
    assert run.info.run_name == "first"
    assert store.get_experiment(run.info.experiment_id).name == "named"
    ours = [line for line in done.stderr.splitlines() if line.startswith("gpu-cluster: ")]
    assert ours[0] == f"gpu-cluster: run {run.info.run_id}"
    assert [line.split()[1] for line in ours[2:]] == ["Queued", "Running", "Finalizing", "Completed"]


def test_failure_exits_1_with_rank_status_and_traceback(store: MlflowClient, project: Project) -> None:
    done = run_to_end(str(project.script("raise ValueError('no luck')\n").path), *LOCAL)
    assert done.returncode == 1
    assert done.stderr.count("ValueError: no luck") == 2  # the traceback, then the verdict
    verdict = done.stderr.splitlines()[-1]
    assert (
        f"run {only_run(store).info.run_id} ended Failed: rank 0 exited with status 1 (ValueError: no luck)" in verdict
    )
    assert "mlflow/" not in done.stderr  # no stack of ours or MLflow's


def test_detached_returns_at_once_and_says_how_to_go_on(store: MlflowClient, project: Project) -> None:
    project.entry("main", "echo up; sleep 3; echo down")
    done = run_to_end(str(project.path), *LOCAL, "-c", '{"detach": true}')
    run = only_run(store)
    assert done.returncode == 0
    assert "up" not in done.stdout
    assert f"gpu-cluster logs --follow {run.info.run_id}" in done.stderr
    assert f"gpu-cluster cancel {run.info.run_id}" in done.stderr
    assert store.get_run(run.info.run_id).info.status in {"SCHEDULED", "RUNNING"}
    followed = companion("logs", "--follow", run.info.run_id)
    assert (followed.returncode, followed.stdout) == (0, "up\ndown\n")
    assert store.get_run(run.info.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_lets_go_first_and_cancels_second(store: MlflowClient, project: Project, times: int) -> None:
    project.entry("main", "echo up; sleep 12")
    client = command_line("run", str(project.path), *LOCAL, start_new_session=True)
    assert client.stdout is not None
    assert client.stdout.readline() == "up\n"
    for _ in range(times):
        os.killpg(client.pid, signal.SIGINT)
        time.sleep(1)
    _, err = client.communicate(timeout=60)
    assert client.returncode == 1
    assert "press Ctrl-C again within 5 s to cancel" in err
    directory = JobDir.of_run(only_run(store).info.run_id)
    if times == 1:
        assert directory.alive
        assert "its job goes on" in err
        wait_until(lambda: store.get_run(directory.path.name).info.status == "FINISHED", 60)
    else:
        assert not directory.alive
        assert store.get_run(directory.path.name).info.status == "KILLED"
        assert processes_with(directory.path.name) == []


def test_a_killed_client_changes_nothing(store: MlflowClient, project: Project) -> None:
    project.entry("main", "echo up; sleep 4; echo down")
    client = command_line("run", str(project.path), *LOCAL, start_new_session=True)
    assert client.stdout is not None
    assert client.stdout.readline() == "up\n"
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()
    run_id = only_run(store).info.run_id
    wait_until(lambda: store.get_run(run_id).info.status == "FINISHED", 60)
    assert Path(store.download_artifacts(run_id, "logs/rank_0.log")).read_text() == "up\ndown\n"


def test_a_reader_that_stops_reading_lets_go(store: MlflowClient, project: Project) -> None:
    project.entry("main", "echo up; sleep 2; seq 100000; sleep 1")
    client = command_line("run", str(project.path), *LOCAL)
    assert client.stdout is not None
    assert client.stderr is not None
    assert client.stdout.readline() == "up\n"
    client.stdout.close()
    err = client.stderr.read()
    client.stderr.close()
    assert client.wait(60) == 1
    assert "its job goes on" in err
    run_id = only_run(store).info.run_id
    wait_until(lambda: store.get_run(run_id).info.status == "FINISHED", 60)


def test_killed_submitters_leave_no_run_behind(store: MlflowClient, project: Project) -> None:
    """Whenever the client dies, there is either no run, or a job that brings its run to an end."""
    project.entry("main", "echo hi")
    for delay in (1.5, 2.0, 2.3, 2.6, 2.9, 3.2):
        client = command_line("run", str(project.path), *LOCAL, start_new_session=True)
        time.sleep(delay)
        os.killpg(client.pid, signal.SIGKILL)
        client.communicate()
    for run in store.search_runs([item.experiment_id for item in store.search_experiments()]):
        directory = JobDir.of_run(run.info.run_id)
        wait_until(lambda directory=directory: not directory.alive, 60)  # type: ignore[misc]  # mypy cannot type it
        assert companion("status", run.info.run_id).stdout.startswith(("Completed", "Failed: "))
        assert store.get_run(run.info.run_id).info.status in {"FINISHED", "FAILED"}


DIES = """
import os, signal, sys
import mlflow
from mlflow_pytorch_estimator import preparer
from mlflow_pytorch_estimator.jobdir import JobDir
owner, name = {"settle": (JobDir, "settle"), "hand_over": (preparer, "hand_over")}[sys.argv[1]]
setattr(owner, name, lambda *arguments: os.kill(os.getpid(), signal.SIGKILL))
mlflow.projects.run(sys.argv[2], backend="gpu-cluster", env_manager="local", synchronous=False)
"""


@pytest.mark.parametrize("place", ["settle", "hand_over"])
def test_a_submitter_killed_after_creating_the_run(
    store: MlflowClient, project: Project, home: Path, place: str
) -> None:
    project.entry("main", "echo hi")
    died = subprocess.run([sys.executable, "-c", DIES, place, str(project.path)], check=False, capture_output=True)
    assert died.returncode == -signal.SIGKILL
    orphan = only_run(store).info.run_id
    if place == "settle":
        staged = next((home / "jobs").iterdir())
        os.utime(staged, (0, 0))  # old enough not to be taken for one that is being made
        assert run_to_end(str(project.path), *LOCAL).returncode == 0
        assert not staged.exists()
    else:
        assert companion("status", orphan).stdout.startswith("Failed: ")
    run = store.get_run(orphan)
    assert run.info.status == "FAILED"
    assert "killed" in run.data.tags["gpu_cluster.failure"]


BAD: dict[str, tuple[list[str], str]] = {
    "typo": (
        ["-c", '{"gpu_per_node": 1}'],
        "unknown key 'gpu_per_node' in the backend config; did you mean 'gpus_per_node'?",
    ),
    "type": (["-c", '{"cpus_per_node": "two"}'], "cpus_per_node is 'two'; it must be a whole number of at least 1"),
    "zero": (["-c", '{"cpus_per_node": 0}'], "cpus_per_node is 0; it must be a whole number of at least 1"),
    "negative": (["-c", '{"gpus_per_node": -1}'], "gpus_per_node is -1; it must be a whole number of at least 0"),
    "too many": (["-c", '{"cpus_per_node": 9999}'], "cpus_per_node is 9999, but this machine has"),
    "scheduler": (["-c", '{"scheduler": "slrum"}'], "scheduler is 'slrum'; it must be one of: local"),
    "nodes": (["-c", '{"node_count": 2}'], "node_count is 2 and needs distributed_training"),
    "parameter": (["-e", "needs"], "No value given for missing parameters: 'x'"),
    "path": (["-e", "needs", "-P", "x=missing/file"], "parameter 'x' is 'missing/file', but there is no such file"),
    "entry point": (["-e", "nope"], "Could not find nope among entry points"),
    "docker": (["-A", "gpus=all"], "--docker-args is for a project with docker_env"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(store: MlflowClient, project: Project, home: Path, case: str) -> None:
    project.entry("main", "echo hi").entry("needs", "echo {x}", "{x: path}")
    arguments, message = BAD[case]
    done = run_to_end(str(project.path), *LOCAL, *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if "mlflow.store" not in line and "alembic" not in line]
    assert len(lines) == 1, done.stderr
    assert message in lines[0]
    assert store.search_runs([item.experiment_id for item in store.search_experiments()]) == []
    assert not (home / "jobs").exists() or list((home / "jobs").iterdir()) == []


def test_a_missing_project_is_one_line(store: MlflowClient, tmp_path: Path) -> None:
    done = run_to_end(str(tmp_path / "nowhere"), *LOCAL)
    assert done.returncode == 1
    assert f"there is no project directory {tmp_path}/nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_package_that_does_not_exist_fails_the_run_with_uvs_reason(store: MlflowClient, project: Project) -> None:
    project.entry("main", "echo hi")
    (project.path / "requirements.txt").write_text("no-such-package-of-ours-1234\n")
    done = run_to_end(str(project.path), "-b", "gpu-cluster")
    assert done.returncode == 1
    assert "no-such-package-of-ours-1234 was not found" in done.stderr
    assert "Traceback" not in done.stderr
    run = only_run(store)
    assert run.info.status == "FAILED"
    assert "no-such-package-of-ours-1234" in run.data.tags["gpu_cluster.failure"]


def test_the_backend_reaches_jobs_over_http(server: Server, project: Project) -> None:
    project.script(
        "import mlflow, pathlib\n"
        "with mlflow.start_run():\n    mlflow.log_metric('loss', 0.5)\n"
        "pathlib.Path('outputs/a b').mkdir()\npathlib.Path('outputs/a b/ü.txt').write_text('x')\n"
    )
    done = run_to_end(str(project.path), *LOCAL)
    assert done.returncode == 0, done.stderr
    run = only_run(server.client)
    assert f"{server.uri}/#/experiments/0/runs/{run.info.run_id}" in done.stderr
    assert run.info.status == "FINISHED"
    assert run.data.metrics["loss"] == 0.5
    names = {item.path for item in server.client.list_artifacts(run.info.run_id, "outputs/a b")}
    assert names == {"outputs/a b/ü.txt"}


# The main path: a fresh environment with nothing but the plug-in submits, the job gets an environment of its own.


@pytest.fixture(scope="session")
def clean_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`mlflow` of an environment in which only `pip install .` was done."""
    import uv

    folder = tmp_path_factory.mktemp("clean")
    binary = uv.find_uv_bin()
    subprocess.run([binary, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    subprocess.run([binary, "pip", "install", "--quiet", "--python", python, ROOT], check=True)
    found = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    assert found.returncode != 0, "submitting must not need torch"
    return folder / "venv/bin/mlflow"


def run_root_project(mlflow_binary: Path, home: Path, *arguments: str) -> str:
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHONDONTWRITEBYTECODE"}}
    environ.update(GPU_CLUSTER_HOME=str(home))
    command = [str(mlflow_binary), "run", str(ROOT), "-b", "gpu-cluster", *arguments]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False, timeout=900, cwd=home.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_main_path(client: MlflowClient, name: str) -> mlflow.entities.Run:
    run = only_run(client)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["onnx_max_abs_diff"] < 1e-3
    assert client.get_registered_model(name).latest_versions[0].run_id == run.info.run_id
    flavors = mlflow.models.get_model_info(f"models:/{name}/1").flavors
    assert {"onnx", "pytorch", "python_function"} <= set(flavors)
    environment = Path(client.download_artifacts(run.info.run_id, "gpu_cluster/environment.txt")).read_text()
    assert "torch==" in environment
    assert "mlflow==" + mlflow.__version__ in environment
    phases = json.loads(Path(client.download_artifacts(run.info.run_id, "gpu_cluster/timeline.json")).read_text())
    assert [entry["phase"] for entry in phases] == ["Preparing", "Queued", "Running", "Finalizing"]
    return run


def test_the_demo_learns_turkeys_from_chickens(
    store: MlflowClient, home: Path, clean_mlflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_root_project(clean_mlflow, home)
    run = check_main_path(store, "pytorch-birds")
    best = max(metric.value for metric in store.get_metric_history(run.info.run_id, "val_accuracy"))
    assert best > 0.9


def test_the_main_path_on_real_photographs_over_http(
    server: Server, home: Path, clean_mlflow: Path, photographs: Callable[[], Path]
) -> None:
    folder = photographs()
    out = run_root_project(
        clean_mlflow, home, "-P", f"data_dir={folder}", "-P", "num_epochs=2", "-P", "model_name=hymenoptera"
    )
    assert "ants" in out or "bees" in out or "epoch" in out.lower()
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(server.uri)
    mlflow.set_registry_uri(server.uri)
    try:
        run = check_main_path(server.client, "hymenoptera")
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])
    assert run.data.params["data_dir"] == str(folder)
