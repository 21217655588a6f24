"""`gpu-cluster doctor` and `gpu-cluster init`: on this machine, on a real Slurm, and where something is wrong."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import Server
from mlflow.tracking import MlflowClient
from slurm_cluster import Slurm

from mlflow_pytorch_estimator import Workspace
from mlflow_pytorch_estimator.cli import main
from mlflow_pytorch_estimator.cli.doctor import machine
from mlflow_pytorch_estimator.config import read_config


def gpu_cluster(*arguments: str, text: str = "") -> Result:
    return CliRunner().invoke(main, arguments, prog_name="gpu-cluster", input=text)


def doctor() -> tuple[int, dict[str, dict[str, str]]]:
    result = gpu_cluster("doctor", "--json")
    return result.exit_code, {item["name"]: item for item in json.loads(result.stdout)}


def test_a_machine_that_is_well(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)  # whatever else is installed
    code, found = doctor()
    assert code == 0
    states = {name: item["state"] for name, item in found.items()}
    assert states.items() >= {"home": "ok", "uv": "ok", "tracking store": "ok", "artifact store": "ok"}.items()
    assert "slurm" not in found
    assert (found["compiler"]["state"], found["compiler"]["remedy"]) == ("warn", "apt install g++ make")
    shown = gpu_cluster("doctor").stdout
    assert "ok    tracking store" in shown
    assert "remedy: apt install g++ make" in shown


def test_a_server_and_its_clock(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: server.uri)
    code, found = doctor()
    assert code == 0
    assert found["clock"]["state"] == "ok"
    assert found["artifact store"]["text"].endswith("(not tried)")
    now = time.time
    monkeypatch.setattr("mlflow_pytorch_estimator.cli.doctor.stores.time.time", lambda: now() - 3600)
    _, found = doctor()
    assert found["clock"]["state"] == "warn"
    assert found["clock"]["text"].endswith("s behind the server's")


def test_stores_and_places_that_cannot_be(store: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: "http://me:hunter22@127.0.0.1:9")
    (tmp_path / "file").touch()
    monkeypatch.setenv("GPU_CLUSTER_HOME", str(tmp_path / "file/home"))
    code, found = doctor()
    assert code == 1
    assert found["tracking store"]["state"] == "fail"
    assert "hunter22" not in json.dumps(found)
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ  # nothing is left of its impatience
    assert found["home"]["state"] == "fail"
    assert found["home"]["remedy"] == "set GPU_CLUSTER_HOME to a folder of yours"


def test_a_home_that_others_may_write_to(store: MlflowClient, home: Path) -> None:
    home.mkdir(exist_ok=True)
    home.chmod(0o770)
    assert doctor()[1]["home"]["remedy"] == f"chmod go-w {home}"


def test_a_real_slurm(store: MlflowClient, slurm: Slurm) -> None:
    _, found = doctor()
    assert found["slurm"]["state"] == "ok"
    assert "debug (2 nodes with gpu:2)" in found["slurm"]["text"]
    assert "accounting" in found


def test_on_which_file_system_a_folder_is(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/a / ext4 rw 0 0\nserver:/x /net\\040work nfs4 rw 0 0\ntmpfs /net tmpfs rw 0 0\n")
    assert machine.file_system(Path("/net work/me"), str(mounts)) == ("/net work", "nfs4")
    assert machine.file_system(Path("/network"), str(mounts)) == ("/", "ext4")
    assert machine.file_system(Path("/net/x"), str(mounts)) == ("/net", "tmpfs")


def test_files_to_begin_with(store: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = gpu_cluster("init", text="sqlite:///mine.db\nslurm\ngpu\n")
    assert asked.exit_code == 0, asked.output
    workspace = Workspace.from_config()
    assert (workspace.scheduler, workspace.scheduler_options) == ("slurm", {"partition": "gpu"})
    assert workspace.get_mlflow_tracking_uri() == f"sqlite:///{tmp_path}/mine.db"
    assert read_config("gpu-cluster.json").scheduler_options == {"partition": "gpu"}
    refused = gpu_cluster("init", "-y")
    assert refused.exit_code == 1
    assert "--force replaces" in refused.output
    assert gpu_cluster("init", "-y", "--force", "--scheduler", "local").exit_code == 0
    assert Workspace.from_config().scheduler == "local"
    assert read_config("gpu-cluster.json").scheduler == "local"


@pytest.mark.parametrize(("answers", "chosen"), [(0, "slurm"), (1, "local")])
def test_slurm_is_usual_where_it_answers(
    store: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: int, chosen: str
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, status in (("sbatch", 0), ("scontrol", answers)):
        (tools / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.chdir(tmp_path)
    assert gpu_cluster("init", "-y").exit_code == 0
    assert Workspace.from_config().scheduler == read_config("gpu-cluster.json").scheduler == chosen
