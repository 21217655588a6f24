"""Jobs on a real Slurm whose nodes do not reach the tracking store: everything comes through the job directory."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlflow
import pytest
from conftest import Project, Server, finish, submit, wait_until
from gateway import Gateway
from mlflow.tracking import MlflowClient
from rank_jobs import Jobs, everything, logs
from slurm_cluster import Slurm

SCRIPT = """
import mlflow, os, pathlib, time
here = pathlib.Path(os.environ["GPU_CLUSTER_JOB_DIR"])
uri = mlflow.get_tracking_uri()
assert uri.startswith("http://127.0.0.1:"), uri
print("begun", flush=True)
with mlflow.start_run():
    mlflow.log_param("lr", 0.1)
    mlflow.log_metric("loss", 1.0, step=0)
    while not (here / "go").exists():
        time.sleep(0.1)
    for step in range(1, 200):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_param("lr", 0.2)
    pathlib.Path("outputs").mkdir(exist_ok=True)
    pathlib.Path("outputs/made.txt").write_text("made")
print("logged", flush=True)
"""


def losses(client: MlflowClient, run_id: str) -> list[int]:
    return sorted(metric.step for metric in client.get_metric_history(run_id, "loss"))


def test_what_ranks_log_is_seen_while_they_run(project: Project, store: MlflowClient, slurm: Slurm) -> None:
    project.script(SCRIPT)
    submitted = submit(project, config={"scheduler": "slurm", "cpus_per_node": 1})
    run_id = submitted.run_id
    wait_until(lambda: losses(store, run_id) == [0], 120, "the first metric")
    wait_until(lambda: store.get_run(run_id).data.tags["gpu_cluster.status"] == "Running", 60)
    wait_until(lambda: "begun" in mlflow.artifacts.load_text(f"runs:/{run_id}/logs/rank_0.log"), 60, "the live log")
    agent = json.loads(submitted.directory.agent.read_text())["pid"]
    assert "numpy" not in Path(f"/proc/{agent}/maps").read_text()  # MLflow is loaded on the submit host alone
    (submitted.directory.path / "go").touch()
    done = finish(submitted)
    assert done.succeeded, everything(done)
    assert losses(store, run_id) == list(range(200))
    assert done.run.info.status == "FINISHED"
    assert done.run.data.params["lr"] == "0.1"
    assert done.artifact("outputs/made.txt") == "made"
    assert "Changing param values is not allowed" in done.artifact("logs/relay.log")
    assert any(name.startswith("system/") for name in done.run.data.metrics)


def test_a_server_that_is_away_in_the_middle_loses_nothing(
    project: Project, slurm: Slurm, server: Server, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", gateway.uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", gateway.uri)
    mlflow.set_tracking_uri(gateway.uri)
    mlflow.set_registry_uri(gateway.uri)
    project.script(SCRIPT)
    submitted = submit(project, config={"scheduler": "slurm", "cpus_per_node": 1})
    run_id, directory = submitted.run_id, submitted.directory
    wait_until(lambda: losses(server.client, run_id) == [0], 120, "the first metric")
    gateway.away = True
    (directory.path / "go").touch()
    # The job ends although nobody takes what it says.
    wait_until(lambda: directory.outcome is not None, 120, "the end of the job")
    assert "logged" in directory.rank_log(0).read_text()
    wait_until(lambda: not slurm.command("squeue", "--noheader"), 60, "the end in Slurm")
    assert server.client.get_run(run_id).info.status == "RUNNING"
    assert losses(server.client, run_id) == [0]
    gateway.away = False
    wait_until(directory.delivered.exists, 120, "the delivery")
    assert losses(server.client, run_id) == list(range(200))
    found = server.client.get_run(run_id)
    assert (found.info.status, found.data.tags["gpu_cluster.status"]) == ("FINISHED", "Completed")
    assert [item.path for item in server.client.list_artifacts(run_id, "outputs")] == ["outputs/made.txt"]


def test_ranks_of_two_nodes_have_a_way_each(store: MlflowClient, slurm: Slurm) -> None:
    script = """
import mlflow, os
from mlflow_pytorch_estimator import rank
with mlflow.start_run():
    mlflow.log_metric("loss", 10.0 + rank())
print(mlflow.get_tracking_uri(), os.environ["SLURMD_NODENAME"])
"""
    done = finish(Jobs(store, sys.executable, "slurm").submit(script, 1, 2, "torch", rank_metrics="prefix", relay=True))
    assert done.succeeded, everything(done)
    assert {name: value for name, value in done.run.data.metrics.items() if "loss" in name} == {
        "loss": 10.0,
        "rank_1/loss": 11.0,
    }
    assert sorted(path.name for path in done.directory.relay.iterdir() if path.is_dir()) == ["n1", "n2"]
    assert all("http://127.0.0.1:" in log for log in logs(done))


def test_a_store_that_is_reached_is_not_relayed(project: Project, store: MlflowClient, slurm: Slurm) -> None:
    project.script("import mlflow\nprint(mlflow.get_tracking_uri())\nmlflow.log_metric('loss', 1)")
    done = finish(submit(project, config={"scheduler": "slurm", "cpus_per_node": 1, "relay": False}))
    assert done.succeeded, everything(done)
    assert done.log == f"{mlflow.get_tracking_uri()}\n"
    assert "and relay is false: their calls may fail" in done.tags["gpu_cluster.notice"]
    assert not Path(done.directory.relay).exists()
