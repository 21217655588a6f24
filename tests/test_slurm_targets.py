"""Partitions of a real Slurm as compute targets, and the estimator's flow against one that starts at zero nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, wait_until
from mlflow.tracking import MlflowClient
from slurm_cluster import Slurm, asleep

from mlflow_pytorch_estimator import (
    AmlCompute,
    ComputeTarget,
    ComputeTargetException,
    Experiment,
    PyTorch,
    PyTorchConfiguration,
    SlurmCluster,
    Workspace,
)
from mlflow_pytorch_estimator.schedulers.base import NodeState
from mlflow_pytorch_estimator.schedulers.slurm.nodes import node_state


@pytest.fixture
def workspace(store: MlflowClient, slurm: Slurm) -> Workspace:
    """On the test's store, with Slurm at hand."""
    return Workspace()


def test_a_partition_is_attached_by_name(workspace: Workspace) -> None:
    target = ComputeTarget.attach(workspace, "lab", SlurmCluster.attach_configuration(partition="debug"))
    assert isinstance(target, SlurmCluster)
    assert isinstance(ComputeTarget(workspace, "lab"), SlurmCluster)
    assert target.type == "SlurmCluster"
    assert target.scale_settings.maximum_node_count == 2
    status = target.get_status()
    assert (status.current_node_count, status.target_node_count, status.provisioning_state) == (2, 2, "Succeeded")
    assert [(node["nodeId"], node["nodeState"]) for node in target.list_nodes()] == [("n1", "idle"), ("n2", "idle")]
    assert target.serialize()["properties"]["properties"]["gpusPerNode"] == 2
    again = ComputeTarget.attach(workspace, "lab", SlurmCluster.attach_configuration(partition="debug"))
    assert again.created_on == target.created_on
    with pytest.raises(ComputeTargetException, match="lab exists already and is another one"):
        ComputeTarget.attach(workspace, "lab", SlurmCluster.attach_configuration(partition="cloud"))
    with pytest.raises(ComputeTargetException, match="was attached, not created here; use detach"):
        target.delete()
    target.detach()
    assert ComputeTarget.list(workspace) == []


def test_the_default_partition(workspace: Workspace) -> None:
    target = ComputeTarget.attach(workspace, "lab", SlurmCluster.attach_configuration())
    assert [node["nodeId"] for node in target.list_nodes()] == ["n1", "n2"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"partition": "none-such"}, "Slurm has no partition 'none-such'; there is cloud, debug"),
        ({"scheduler_options": {"nodes": 2}}, "'nodes' is set by the backend"),
    ],
)
def test_what_cannot_be_attached(workspace: Workspace, settings: dict[str, object], words: str) -> None:
    with pytest.raises(ComputeTargetException, match=words):
        ComputeTarget.attach(workspace, "lab", SlurmCluster.attach_configuration(**settings))  # type: ignore[arg-type]
    assert ComputeTarget.list(workspace) == []


def test_a_node_that_is_down_is_shown(workspace: Workspace, slurm: Slurm) -> None:
    target = ComputeTarget.attach(workspace, "lab", SlurmCluster.attach_configuration())
    slurm.command("scontrol", "update", "NodeName=n1,n2", "State=DOWN", "Reason=a broken fan")
    try:
        assert {node["nodeState"] for node in target.list_nodes()} == {"unusable"}
        assert target.provisioning_errors[0] == "n1: a broken fan"
        assert target.provisioning_state == "Failed"
    finally:
        slurm.command("scontrol", "update", "NodeName=n1,n2", "State=RESUME")
        wait_until(lambda: set(slurm.states().values()) == {"idle"}, 30, "the nodes")


def test_the_estimators_flow_from_zero_nodes_and_back(workspace: Workspace, slurm: Slurm, tmp_path: Path) -> None:
    wait_until(lambda: asleep(slurm), 60, "powered off nodes")
    target = ComputeTarget.attach(workspace, "cloud", SlurmCluster.attach_configuration(partition="cloud"))
    assert target.list_nodes() == []
    target.wait_for_completion(min_node_count=2, timeout_in_minutes=2)
    assert {node["nodeId"] for node in target.list_nodes()} == {"c1", "c2"}
    source = tmp_path / "src"
    source.mkdir()
    (source / "train.py").write_text(
        "import os, time\nfrom mlflow_pytorch_estimator import Run, rank, world_size\n"
        "print('here', rank(), world_size(), os.environ['SLURMD_NODENAME'], flush=True)\n"
        "if rank() == 0:\n    Run.get_context().log('loss', 0.5)\n"
        "while not os.path.exists(os.environ['GO']):\n    time.sleep(0.1)\n"
    )
    go = tmp_path / "go"
    estimator = PyTorch(
        source_directory=str(source),
        entry_script="train.py",
        compute_target=target,
        node_count=2,
        distributed_training=PyTorchConfiguration(process_count=2, node_count=2),
        environment_variables={"GO": str(go)},
        user_managed=True,
    )
    run = Experiment(workspace, "slurm").submit(estimator)
    wait_until(lambda: run.get_status() == "Running", 90, "the run")
    wait_until(lambda: {node["runId"] for node in target.list_nodes()} == {run.id}, 20, "the nodes' run")
    assert {node["nodeState"] for node in target.list_nodes()} == {"running"}
    assert target.get_active_runs() == [run.id]
    go.touch()
    run.wait_for_completion()
    assert run.get_status() == "Completed"
    assert run.get_metrics() == {"loss": 0.5}
    wait_until(lambda: asleep(slurm), 90, "nodes that are powered down again")
    assert target.list_nodes() == []


def test_the_tutorial_runs_unchanged_on_a_partition_of_no_nodes(
    store: MlflowClient, home: Path, slurm: Slurm, tmp_path: Path, photographs: Callable[[], Path]
) -> None:
    """All that is said of Slurm stands in the workspace's `config.json`."""
    wait_until(lambda: asleep(slurm), 90, "powered off nodes")
    Workspace(scheduler="slurm", scheduler_options={"partition": "cloud"}).write_config(tmp_path)
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/estimator/train_with_estimator.py"), str(photographs())],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Slurm starts c1" in done.stderr
    assert "nodes of partition cloud are smaller than Standard_NC6" in done.stderr
    assert "best validation accuracy:" in done.stdout
    assert (tmp_path / "model.pt").stat().st_size > 40_000_000
    run = next(iter(Workspace().experiments["pytorch-birds"].get_runs()))
    assert (run.status, run.tags["gpu_cluster.scheduler"]) == ("Completed", "slurm")


def test_a_created_target_with_more_nodes_than_there_are(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    configuration = AmlCompute.provisioning_configuration(cpus_per_node=1, max_nodes=5, scheduler="slurm")
    target = ComputeTarget.create(workspace, "big", configuration)
    assert "partition debug has 2 nodes: big gets no more" in caplog.text
    assert isinstance(target, SlurmCluster)
    target.delete()


def test_in_a_workspace_of_slurm_clusters_are_partitions(
    store: MlflowClient, slurm: Slurm, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Workspace(scheduler="slurm", scheduler_options={"partition": "cloud"}).write_config(tmp_path / "of slurm")
    workspace = Workspace.from_config(tmp_path / "of slurm")
    target = ComputeTarget.create(
        workspace, "birds", AmlCompute.provisioning_configuration(cpus_per_node=1, max_nodes=2)
    )
    assert isinstance(target, SlurmCluster)
    properties = target.serialize()["properties"]
    assert (properties["properties"]["scheduler"], properties["isAttachedCompute"]) == ("slurm", False)
    assert target.scale_settings.maximum_node_count == 2
    other = AmlCompute.provisioning_configuration(
        cpus_per_node=1, max_nodes=2, scheduler="slurm", scheduler_options={"partition": "debug"}
    )
    assert {node["nodeId"] for node in ComputeTarget.create(workspace, "other", other).list_nodes()} == {"n1", "n2"}
    named = ComputeTarget.create(workspace, "named", AmlCompute.provisioning_configuration("STANDARD_NC6", max_nodes=2))
    assert "nodes of partition cloud are smaller than Standard_NC6: those of named get" in caplog.text
    assert named.get_status().vm_size == "Standard_NC6"
    here = ComputeTarget.create(
        workspace, "here", AmlCompute.provisioning_configuration(cpus_per_node=1, scheduler="local")
    )
    assert here.type == "AmlCompute"
    default = workspace.get_default_compute_target()
    assert (default.type, default.scale_settings.maximum_node_count) == ("SlurmCluster", 2)
    assert workspace.get_default_compute_target().created_on == default.created_on


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("idle", NodeState.IDLE),
        ("idle~", None),
        ("idle#", NodeState.PREPARING),
        ("idle%", NodeState.LEAVING),
        ("allocated#", NodeState.PREPARING),
        ("mixed", NodeState.RUNNING),
        ("idle*", NodeState.UNUSABLE),
        ("down~", None),
        ("down*", NodeState.UNUSABLE),
        ("drained", NodeState.UNUSABLE),
        ("powering_up", NodeState.PREPARING),
        ("powered_down", None),
        ("POWERING_DOWN", NodeState.LEAVING),
        ("something new", NodeState.UNUSABLE),
    ],
)
def test_states_of_nodes(text: str, state: NodeState | None) -> None:
    assert node_state(text) is state


def test_no_slurm_here(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(ComputeTargetException, match="lab cannot be attached: sinfo is not on PATH"):
        ComputeTarget.attach(Workspace(), "lab", SlurmCluster.attach_configuration())
