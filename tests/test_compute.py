"""Compute targets: found or created by name, their status and nodes, and waiting for them."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from conftest import Project, finish, submit, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import clusters, jobdir
from mlflow_pytorch_estimator.clusters import Cluster
from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.estimator.compute import cluster as compute_module
from mlflow_pytorch_estimator.estimator.compute.cluster import (
    AmlCompute,
    ComputeTarget,
    GpuCluster,
    ProvisioningConfiguration,
)
from mlflow_pytorch_estimator.estimator.compute.status import wait_for_nodes
from mlflow_pytorch_estimator.estimator.exceptions import ComputeTargetException, UserErrorException
from mlflow_pytorch_estimator.schedulers.base import Allocation, ClusterState, Node, NodeState
from mlflow_pytorch_estimator.schedulers.local import LocalScheduler
from mlflow_pytorch_estimator.schedulers.machine import Capacity, capacity
from mlflow_pytorch_estimator.schedulers.pool import node_shape
from mlflow_pytorch_estimator.schedulers.queue import Queue, Request
from mlflow_pytorch_estimator.spec import InterpreterSpec, JobSpec, Resources
from mlflow_pytorch_estimator.status import Phase

configure = AmlCompute.provisioning_configuration


@dataclass(frozen=True)
class Workspace:
    home: Path
    scheduler: str = "local"
    scheduler_options: Mapping[str, object] = field(default_factory=dict)


@pytest.fixture
def workspace(tmp_path: Path, home: Path) -> Workspace:
    """With a home that is not the environment's, so that a forgotten ``at_home`` shows."""
    return Workspace(tmp_path / "workspace home")


def create(workspace: Workspace, name: str = "gpu-cluster", **options: object) -> GpuCluster:
    chosen: dict[str, object] = {"vm_size": "STANDARD_NC6", "max_nodes": 4, **options}
    return ComputeTarget.create(workspace, name, configure(**chosen))  # type: ignore[arg-type]  # passed through


# Found or created


def test_the_tutorials_try_and_except(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    created = 0
    for _ in range(2):
        try:
            target = ComputeTarget(workspace=workspace, name="gpu-cluster")
        except ComputeTargetException:
            created += 1
            target = ComputeTarget.create(workspace, "gpu-cluster", configure(vm_size="STANDARD_NC6", max_nodes=4))
            target.wait_for_completion(show_output=True)
    assert created == 1
    assert type(target) is GpuCluster is AmlCompute
    assert isinstance(target, ComputeTarget)
    assert (target.name, target.type, target.vm_size) == ("gpu-cluster", "AmlCompute", "Standard_NC6")
    assert target.workspace is workspace
    assert target.provisioning_state == "Succeeded"
    assert target.provisioning_errors == ()
    assert capsys.readouterr().out == (
        "Creating\nSucceeded\nAmlCompute wait for completion finished\n\n"
        "Minimum number of nodes requested have been provisioned\n"
    )
    assert repr(target) == "AmlCompute(name='gpu-cluster', Standard_NC6, 0 to 4 nodes, scheduler='local')"


def test_the_definition_is_kept_under_the_workspaces_home(workspace: Workspace, home: Path) -> None:
    create(workspace, tags={"team": "vision"}, description="ours")
    stored = json.loads((workspace.home / "compute/gpu-cluster.json").read_text())
    assert {name: stored[name] for name in ("cpus_per_node", "memory_gb_per_node", "gpus_per_node", "max_nodes")} == {
        "cpus_per_node": 6,
        "memory_gb_per_node": 56.0,
        "gpus_per_node": 1,
        "max_nodes": 4,
    }
    assert not home.exists()
    again = AmlCompute(workspace, "gpu-cluster")
    assert (again.tags, again.description) == ({"team": "vision"}, "ours")
    again.tags["team"] = "nlp"
    assert again.tags == {"team": "vision"}


def test_explicit_counts_win_over_the_size(workspace: Workspace) -> None:
    create(workspace, gpus_per_node=2)
    create(workspace, "counts", vm_size="", cpus_per_node=3, memory_gb_per_node=1.5)
    with jobdir.at_home(workspace.home):
        sized, counted = clusters.find("gpu-cluster"), clusters.find("counts")
    assert sized is not None
    assert counted is not None
    assert (sized.cpus_per_node, sized.memory_gb_per_node, sized.gpus_per_node) == (6, 56.0, 2)
    assert (counted.vm_size, counted.cpus_per_node, counted.memory_gb_per_node, counted.gpus_per_node) == (
        *(None, 3, 1.5, 0),
    )


def test_defaults_are_the_originals(workspace: Workspace) -> None:
    target = create(workspace, max_nodes=None, idle_seconds_before_scaledown=None)
    scale = target.scale_settings
    assert (scale.minimum_node_count, scale.maximum_node_count, scale.idle_seconds_before_scaledown) == (0, 4, 1800)
    assert target.vm_priority == "Dedicated"
    assert configure("STANDARD_NC6", "LowPriority", 1, 2, 3).vm_priority == "lowpriority"


def test_creating_again_is_fine_only_with_the_same_settings(workspace: Workspace) -> None:
    first = create(workspace)
    assert create(workspace).created_on == first.created_on
    with pytest.raises(ComputeTargetException, match="exists already with max_nodes=4; update it to change the scale"):
        create(workspace, max_nodes=2)
    assert first.get_status().scale_settings.maximum_node_count == 4


def test_many_who_create_at_once_get_one(workspace: Workspace) -> None:
    def attempt(most: int) -> int:
        try:
            create(workspace, max_nodes=most)
        except ComputeTargetException:
            return 0
        return most

    with ThreadPoolExecutor(8) as executor:
        won = [most for most in executor.map(attempt, range(1, 9)) if most]
    assert len(won) == 1
    assert ComputeTarget(workspace, "gpu-cluster").scale_settings.maximum_node_count == won[0]


def test_all_are_listed(workspace: Workspace) -> None:
    assert ComputeTarget.list(workspace) == []
    for name in ("two", "one"):
        create(workspace, name)
    assert [target.name for target in ComputeTarget.list(workspace)] == ["one", "two"]


def test_a_definition_broken_by_hand_is_named(workspace: Workspace) -> None:
    target = create(workspace)
    (workspace.home / "compute/gpu-cluster.json").write_text("{")
    with pytest.raises(ComputeTargetException, match=r"gpu-cluster.json is no cluster definition \(.*correct or"):
        target.get_status()
    target.delete()
    assert ComputeTarget.list(workspace) == []


def test_a_small_machine_plays_a_large_node_and_says_so(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GPU_CLUSTER_ALLOCATION", Allocation("n", (0, 1), ()).to_json())
    with caplog.at_level(logging.WARNING):
        target = create(workspace)
    notice = "the enclosing job has 2 CPUs and 0 GPUs: nodes of gpu-cluster get 2 CPUs and 0 GPUs"
    assert caplog.messages == [notice]
    assert target.notices == (notice,)
    assert target.get_status().errors == ()
    assert create(workspace, "small", vm_size="", cpus_per_node=2).notices == ()
    with jobdir.at_home(workspace.home):
        cluster = clusters.find("gpu-cluster")
    assert cluster is not None
    assert node_shape(cluster, capacity(os.environ)) == (2, 0, 56.0)


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vm_size": ""}, "a compute target needs vm_size, or cpus_per_node and gpus_per_node"),
        ({"vm_size": "", "memory_gb_per_node": 4}, "a compute target needs vm_size"),
        ({"vm_size": "STANDARD_NC7"}, "vm_size 'STANDARD_NC7' is not known (did you mean"),
        ({"vm_size": 6}, "vm_size is 6; it must be the name"),
        ({"vm_priority": "spot"}, "vm_priority is 'spot'; it must be 'dedicated' or 'lowpriority'"),
        ({"min_nodes": -1}, "min_nodes is -1; it must be a whole number from 0"),
        ({"min_nodes": True}, "min_nodes is True"),
        ({"min_nodes": 5}, "min_nodes is 5 and max_nodes is 4"),
        ({"max_nodes": 0}, "max_nodes is 0; it must be a whole number from 1"),
        ({"max_nodes": 2.0}, "max_nodes is 2.0"),
        ({"max_nodes": 10**9}, "max_nodes is 1000000000; it must be a whole number from 1 to 10000"),
        ({"idle_seconds_before_scaledown": -1}, "idle_seconds_before_scaledown is -1"),
        ({"idle_seconds_before_scaledown": 1.5}, "idle_seconds_before_scaledown is 1.5"),
        ({"cpus_per_node": 0}, "cpus_per_node is 0"),
        ({"gpus_per_node": -1}, "gpus_per_node is -1"),
        ({"memory_gb_per_node": 0}, "memory_gb_per_node is 0"),
        ({"memory_gb_per_node": math.nan}, "memory_gb_per_node is nan"),
        ({"memory_gb_per_node": "4"}, "memory_gb_per_node is '4'"),
        ({"tags": {"a": 1}}, "tags is {'a': 1}"),
        ({"tags": ["a"]}, "tags is ['a']"),
        ({"description": 3}, "description is 3"),
        ({"scheduler": "slurm-not"}, "scheduler is 'slurm-not'; there is"),
        ({"scheduler_options": {"a": object()}}, "scheduler_options cannot be kept as JSON"),
        ({"scheduler_options": {1: 2}}, "scheduler_options is {1: 2}"),
        ({"admin_username": "me"}, "admin_username cannot be set: nodes have no users"),
        ({"subnet_name": "s"}, "subnet_name cannot be set: nodes are in the network"),
        ({"remote_login_port_public_access": "Enabled"}, "remote_login_port_public_access cannot be set"),
        ({"identity_type": "SystemAssigned"}, "identity_type cannot be set"),
        ({"location": "westus"}, "location cannot be set"),
        ({"enable_node_public_ip": False}, "enable_node_public_ip cannot be set"),
    ],
)
def test_what_cannot_be_is_refused(workspace: Workspace, options: dict[str, object], message: str) -> None:
    with pytest.raises(ComputeTargetException) as caught:
        create(workspace, **options)  # type: ignore[arg-type]  # passed through
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert not workspace.home.exists()


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(ComputeTargetException) as caught:
        configure("STANDARD_NC6", admin_user_password="hunter2")  # type: ignore[arg-type]  # refused
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a", "a b", "-a", "a-", "1a", "a" * 65, "../up", "a/b", "ab\n", "ä1", None, 3])
def test_names_are_checked(workspace: Workspace, name: str) -> None:
    with pytest.raises(ComputeTargetException, match="must be 2 to 64 letters, digits and dashes"):
        create(workspace, name)
    with pytest.raises(ComputeTargetException, match="must be 2 to 64"):
        ComputeTarget(workspace, name)
    assert not workspace.home.exists()


def test_other_kinds_of_argument_are_refused(workspace: Workspace) -> None:
    with pytest.raises(ComputeTargetException, match=r"provisioning_configuration is None; make one with Aml"):
        ComputeTarget.create(workspace, "ab", None)  # type: ignore[arg-type]  # refused
    with pytest.raises(ComputeTargetException, match="workspace is None; pass a Workspace"):
        ComputeTarget(None, "ab")  # type: ignore[arg-type]  # refused
    with pytest.raises(ComputeTargetException, match=r"attach_configuration is None; make one with SlurmC"):
        ComputeTarget.attach(workspace, "ab", None)  # type: ignore[arg-type]  # refused
    with pytest.raises(ComputeTargetException, match="the local scheduler has no option 'partition'"):
        create(workspace, scheduler_options={"partition": "gpu"})
    assert issubclass(ComputeTargetException, UserErrorException)
    (workspace.home.parent / "file").write_text("")
    with pytest.raises(ComputeTargetException, match=r"cannot keep compute targets under .*: Not a directory"):
        create(Workspace(workspace.home.parent / "file"))


ANYTHING = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.integers(0, 9), st.floats(), st.text(max_size=9)),
    *(st.sampled_from(["STANDARD_NC6", "dedicated", "lowpriority", "local", "gpu-cluster"]), st.just([])),
    st.dictionaries(st.text(max_size=5), st.one_of(st.text(max_size=5), st.integers()), max_size=3),
)
SENSIBLE = {
    "vm_size": st.sampled_from(["STANDARD_NC6", "nd40rs_V2", "D2_v2", "", None]),
    "vm_priority": st.sampled_from(["dedicated", "lowpriority", "LowPriority"]),
    "min_nodes": st.integers(-1, 4),
    "max_nodes": st.one_of(st.none(), st.integers(0, 9)),
    "idle_seconds_before_scaledown": st.one_of(st.none(), st.integers(-1, 10**8)),
    "cpus_per_node": st.one_of(st.none(), st.integers(0, 64)),
    "gpus_per_node": st.one_of(st.none(), st.integers(-1, 8)),
    "memory_gb_per_node": st.one_of(st.none(), st.floats()),
    "tags": st.one_of(st.none(), st.dictionaries(st.text(), st.text(), max_size=3)),
    "description": st.one_of(st.none(), st.text()),
}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.one_of(ANYTHING, st.from_regex(clusters.NAME, fullmatch=True)),
    options=st.fixed_dictionaries({}, optional={name: st.one_of(usual, ANYTHING) for name, usual in SENSIBLE.items()}),
)
def test_whatever_is_accepted_comes_back_and_whatever_is_refused_leaves_nothing(
    tmp_path: Path, home: Path, name: str, options: dict[str, object]
) -> None:
    workspace = Workspace(tmp_path / "fuzzed")
    before = json.dumps(options, default=str)
    try:
        configuration = configure(**options)  # type: ignore[arg-type]  # anything
        wanted = configuration.named(name)
        target = ComputeTarget.create(workspace, name, configuration)
    except ComputeTargetException:
        assert list(tmp_path.rglob("*.json")) == []
        return
    finally:
        assert json.dumps(options, default=str) == before
    with jobdir.at_home(workspace.home):
        stored = clusters.find(name)
        assert stored is not None
        assert replace(stored, created=0, modified=0) == replace(wanted, created=0, modified=0)
    assert target.tags == (options.get("tags") or {})
    assert json.loads(json.dumps(target.serialize()))["name"] == name
    assert create_again(workspace, name, configuration) == target.created_on
    target.delete()


def create_again(workspace: Workspace, name: str, configuration: ProvisioningConfiguration) -> datetime:
    return ComputeTarget.create(workspace, name, configuration).created_on


# Status and nodes


def occupy(workspace: Workspace, run_id: str, **wanted: object) -> Callable[[], None]:
    """Give nodes to a job; the function that is returned ends it."""
    queue = Queue(workspace.home / "queue")
    ticket = queue.enter(run_id, Request(**{"cpus": 1, "gpus": 0, "pool": "gpu-cluster", **wanted}))  # type: ignore[arg-type]  # passed through
    with jobdir.at_home(workspace.home):
        assert isinstance(queue.poll(ticket.path, Capacity((0, 1, 2, 3), (0,))), Capacity)

    def end() -> None:
        queue.leave(ticket.path)
        ticket.lock.close()

    return end


def test_the_status_counts_nodes(workspace: Workspace) -> None:
    began = datetime.now(timezone.utc)
    target = create(workspace, min_nodes=1)
    assert target.get_status().node_state_counts.idle == 1
    end = occupy(workspace, "run-1", nodes=2, cpus=2, gpus=1)
    status = target.get_status()
    counts = status.node_state_counts
    assert (counts.running, counts.running_node_count, counts.idle_node_count) == (2, 2, 0)
    assert (status.current_node_count, status.target_node_count) == (2, 2)
    assert (status.allocation_state, status.provisioning_state, status.errors) == ("Steady", "Succeeded", ())
    assert (status.vm_size, status.vm_priority) == ("Standard_NC6", "Dedicated")
    assert status.creation_time.tzinfo is timezone.utc
    assert began <= status.creation_time <= status.allocation_state_transition_time <= datetime.now(timezone.utc)
    assert [
        (node["nodeId"], node["nodeState"], node["runId"], node["cpus"], node["gpus"]) for node in target.list_nodes()
    ] == [
        ("gpu-cluster-0", "running", "run-1", [0], [0]),
        ("gpu-cluster-1", "running", "run-1", [1], [0]),
    ]
    end()
    assert target.get_status().node_state_counts.idle == 2
    assert {(node["nodeState"], node["runId"], node["ipAddress"]) for node in target.list_nodes()} == {
        ("idle", None, "127.0.0.1")
    }


def test_an_idle_time_of_zero_is_zero(workspace: Workspace) -> None:
    target = create(workspace, idle_seconds_before_scaledown=0, min_nodes=1)
    assert target.idle_seconds_before_scaledown == 0
    assert target.serialize()["properties"]["properties"]["scaleSettings"]["nodeIdleTimeBeforeScaleDown"] == "PT0S"
    end = occupy(workspace, "run-1", nodes=3)
    assert target.get_status().current_node_count == 3
    end()
    assert target.get_status().current_node_count == 1


def test_nodes_go_when_their_idle_time_is_over(workspace: Workspace) -> None:
    target = create(workspace, idle_seconds_before_scaledown=1)
    occupy(workspace, "run-1")()
    assert target.get_status().current_node_count == 1
    wait_until(lambda: target.get_status().current_node_count == 0, 10)
    occupy(workspace, "run-2")()
    target.update(idle_seconds_before_scaledown=1000)
    time.sleep(1.1)
    assert target.get_status().current_node_count == 1


def test_the_status_serializes_as_the_originals(workspace: Workspace) -> None:
    target = create(workspace, min_nodes=1, tags={"a": "b"})
    status = target.get_status()
    assert json.loads(json.dumps(status.serialize())) == {
        "currentNodeCount": 1,
        "targetNodeCount": 1,
        "nodeStateCounts": {
            "preparingNodeCount": 0,
            "runningNodeCount": 0,
            "idleNodeCount": 1,
            "unusableNodeCount": 0,
            "leavingNodeCount": 0,
            "preemptedNodeCount": 0,
        },
        "allocationState": "Steady",
        "allocationStateTransitionTime": status.modified_time.isoformat(),
        "creationTime": status.creation_time.isoformat(),
        "errors": None,
        "modifiedTime": status.modified_time.isoformat(),
        "provisioningState": "Succeeded",
        "provisioningStateTransitionTime": status.modified_time.isoformat(),
        "scaleSettings": {"minNodeCount": 1, "maxNodeCount": 4, "nodeIdleTimeBeforeScaleDown": "PT1800S"},
        "vmPriority": "Dedicated",
        "vmSize": "Standard_NC6",
    }
    whole = json.loads(json.dumps(target.serialize()))
    assert whole["tags"] == {"a": "b"}
    assert whole["properties"]["computeType"] == "AmlCompute"
    assert whole["properties"]["properties"]["gpusPerNode"] == 1
    assert whole["properties"]["status"]["currentNodeCount"] == 1


def test_sizes_are_listed_and_can_be_had(workspace: Workspace) -> None:
    sizes = {size["name"]: size for size in AmlCompute.supported_vmsizes(workspace)}
    assert sizes["Standard_NC6"] == {"name": "Standard_NC6", "vCPUs": 6, "memoryGB": 56.0, "gpus": 1, "gpuModel": "K80"}
    assert all(configure(name).vm_size == name for name in sizes)


# Changes


def test_update_changes_what_it_is_told(workspace: Workspace) -> None:
    target, other = create(workspace), AmlCompute(workspace, "gpu-cluster")
    target.update(min_nodes=2, idle_seconds_before_scaledown=0)
    assert target.get_status().node_state_counts.idle == 2
    assert other.scale_settings.minimum_node_count == 0
    other.update(max_nodes=3)
    scale = other.scale_settings
    assert (scale.minimum_node_count, scale.maximum_node_count, scale.idle_seconds_before_scaledown) == (2, 3, 0)
    assert other.get_status().modified_time > other.get_status().creation_time
    for wrong in ({"min_nodes": 4}, {"max_nodes": 1}, {"max_nodes": 0}, {"idle_seconds_before_scaledown": -1}):
        with pytest.raises(ComputeTargetException):
            target.update(**wrong)
    assert target.get_status().scale_settings == scale


def test_deleting(workspace: Workspace) -> None:
    target = create(workspace)
    occupy(workspace, "old")()
    assert target.get_status().current_node_count == 1
    with pytest.raises(ComputeTargetException, match=r"created here, not attached; use delete\(\)"):
        target.detach()
    with pytest.raises(ComputeTargetException, match=r"gpu-cluster is still there; delete\(\) removes it"):
        target.wait_for_completion(is_delete_operation=True, timeout_in_minutes=0)
    target.delete()
    target.wait_for_completion(is_delete_operation=True)
    for action in (target.delete, target.get_status, target.update, target.refresh_state, target.list_nodes):
        with pytest.raises(ComputeTargetException, match="there is no compute target 'gpu-cluster'"):
            action()
    assert create(workspace).get_status().current_node_count == 0


def test_what_was_attached_is_detached(workspace: Workspace) -> None:
    with jobdir.at_home(workspace.home):
        clusters.store(Cluster("theirs", attached=True))
    target = AmlCompute(workspace, "theirs")
    with pytest.raises(ComputeTargetException, match=r"was attached, not created here; use detach\(\)"):
        target.delete()
    target.detach()
    assert ComputeTarget.list(workspace) == []


def _job(run_id: str, **options: object) -> JobSpec:
    interpreter = InterpreterSpec("local", {}, "/usr/bin/python3")
    return JobSpec(run_id, "7", "p", "main", "true", {}, interpreter=interpreter, **options)  # type: ignore[arg-type]  # passed through


def test_a_target_with_unfinished_jobs_is_not_deleted(workspace: Workspace) -> None:
    target = create(workspace)
    held = []
    with jobdir.at_home(workspace.home):
        for run_id, compute in (("first", "gpu-cluster"), ("second", "gpu-cluster"), ("other", None)):
            directory, lock = jobdir.JobDir.stage()
            directory.write_job(_job(run_id, compute=compute))
            held.append((directory.settle(run_id), lock))
            held[-1][0].enter(Phase.QUEUED)
            time.sleep(0.01)
    assert target.get_active_runs() == ["first", "second"]
    with pytest.raises(ComputeTargetException, match=r"has 2 unfinished runs \(first, second\); cancel them or wait"):
        target.delete()
    held[0][0].conclude(Phase.COMPLETED, "", 0)
    assert target.get_active_runs() == ["second"]
    held[1][1].close()  # killed: nobody holds its lock
    assert target.get_active_runs() == []
    target.delete()
    for _, lock in held:
        lock.close()


# Waiting


def test_waiting_brings_nodes_up(workspace: Workspace) -> None:
    target = create(workspace, idle_seconds_before_scaledown=0)
    target.wait_for_completion(min_node_count=3, timeout_in_minutes=0.1)
    assert target.get_status().node_state_counts.idle == 3
    with pytest.raises(ComputeTargetException, match="min_node_count is 5; it must be a whole number from 0 to 4"):
        target.wait_for_completion(min_node_count=5)
    for minutes in (-1, math.inf, math.nan, "1", True, None):
        with pytest.raises(ComputeTargetException, match="timeout_in_minutes is"):
            target.wait_for_completion(timeout_in_minutes=minutes)  # type: ignore[arg-type]  # refused


class FakeProvider:
    """A scheduler whose cluster goes through given states, one for each look, and stays in the last."""

    def __init__(self, *states: ClusterState) -> None:
        self.states = list(states)
        self.asked: list[int] = []

    def cluster_state(self, cluster: Cluster) -> ClusterState:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def power_up(self, cluster: Cluster, wanted: int) -> None:
        self.asked.append(wanted)


def _state(*nodes: NodeState, errors: tuple[str, ...] = ()) -> ClusterState:
    return ClusterState(tuple(Node(f"n{index}", state) for index, state in enumerate(nodes)), 2, errors)


def _wait(provider: FakeProvider, seconds: float, wanted: int = 2) -> str:
    shown: list[str] = []
    try:
        wait_for_nodes(provider, lambda: Cluster("big", max_nodes=4), wanted, seconds, shown.append, poll_seconds=0.01)
    finally:
        text = "".join(shown)
    return text


def test_waiting_goes_on_while_nodes_are_prepared() -> None:
    preparing = _state(NodeState.PREPARING, NodeState.PREPARING)
    provider = FakeProvider(
        _state(), preparing, _state(NodeState.IDLE, NodeState.LEAVING), _state(NodeState.IDLE, NodeState.RUNNING)
    )
    assert _wait(provider, 60).startswith("Creating...\nSucceeded\n")
    assert provider.asked == [2]


def test_waiting_ends_with_the_schedulers_errors() -> None:
    provider = FakeProvider(_state(NodeState.PREPARING), _state(errors=("quota of 4 GPUs exceeded", "node n3 is down")))
    with pytest.raises(ComputeTargetException, match="big has errors: quota of 4 GPUs exceeded; node n3 is down"):
        _wait(provider, 60)


def test_waiting_ends_at_the_timeout() -> None:
    provider = FakeProvider(_state(NodeState.IDLE, NodeState.PREPARING, NodeState.UNUSABLE))
    began = time.monotonic()
    with pytest.raises(ComputeTargetException, match=r"big has 1 of 2 nodes up after 0.005 minutes; get_st"):
        _wait(provider, 0.3)
    assert 0.3 <= time.monotonic() - began < 5


def test_the_schedulers_errors_reach_the_user(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    target = create(workspace)

    class Broken(LocalScheduler):
        def cluster_state(self, cluster: Cluster) -> ClusterState:
            return _state(NodeState.PREPARING, errors=("out of quota",))

    monkeypatch.setattr(compute_module, "load_scheduler", lambda name: Broken())
    status = target.get_status()
    assert (status.provisioning_state, status.errors, status.allocation_state) == (
        "Failed",
        ("out of quota",),
        "Resizing",
    )
    assert target.provisioning_errors == ("out of quota",)
    with pytest.raises(ComputeTargetException, match="gpu-cluster has errors: out of quota"):
        target.wait_for_completion()


# Jobs


def test_a_job_is_checked_against_its_cluster(home: Path) -> None:
    clusters.store(Cluster("small", max_nodes=2))
    LocalScheduler().check(_job("r", compute="small", resources=Resources(2, 1, 0)))
    with pytest.raises(ConfigError, match="node_count is 3, but small has max_nodes 2; ask for fewer"):
        LocalScheduler().check(_job("r", compute="small", resources=Resources(3, 1, 0)))
    clusters.remove("small")
    with pytest.raises(ConfigError, match="there is no compute target 'small', or not any more"):
        LocalScheduler().check(_job("r", compute="small"))
    with pytest.raises(ConfigError, match=r"memory_gb_per_node is 1e\+06, but this machine has .* GiB; ask for less"):
        LocalScheduler().check(_job("r", resources=Resources(1, None, None, 1e6)))


def test_a_real_job_takes_a_node_and_gives_it_back(store: MlflowClient, project: Project, home: Path) -> None:
    target = create(Workspace(home), vm_size="", cpus_per_node=1, vm_priority="lowpriority")
    project.script("import os, time\nprint('nice', os.nice(0), flush=True)\ntime.sleep(1)\n")
    before = os.nice(0)
    run = submit(project, config={"compute": "gpu-cluster"})
    wait_until(lambda: target.get_status().node_state_counts.running == 1, 30)
    assert [node["runId"] for node in target.list_nodes()] == [run.run_id] == target.get_active_runs()
    done = finish(run)
    assert done.succeeded
    assert done.log == f"nice {min(19, before + 10)}\n"
    assert target.get_status().node_state_counts.idle == 1
    assert target.get_active_runs() == []
