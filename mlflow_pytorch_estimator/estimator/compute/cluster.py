"""Clusters as compute targets.

On this machine the nodes are simulated: a pool of up to ``max_nodes``, each with the size asked for as far as the
machine goes, so that a laptop can play a cluster of ``STANDARD_NC6``.
"""

from __future__ import annotations

import builtins
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mlflow_pytorch_estimator import clusters, jobdir
from mlflow_pytorch_estimator.clusters import Cluster
from mlflow_pytorch_estimator.estimator.compute import configuration
from mlflow_pytorch_estimator.estimator.compute.configuration import ProvisioningConfiguration, priority_is_low
from mlflow_pytorch_estimator.estimator.compute.status import (
    AmlComputeStatus,
    ScaleSettings,
    provisioning_state,
    vm_priority,
    wait_for_nodes,
)
from mlflow_pytorch_estimator.estimator.compute.target import ComputeTarget, HasHome, at_home, missing
from mlflow_pytorch_estimator.estimator.compute.vm_sizes import SIZES
from mlflow_pytorch_estimator.estimator.exceptions import ComputeTargetException
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.schedulers.base import ClusterState, Scheduler

__all__ = ["AmlCompute", "ComputeTarget", "GpuCluster", "ProvisioningConfiguration", "priority_is_low"]

_DEFAULT_MAX_NODES = 4
_DEFAULT_IDLE_SECONDS = 1800
_POLL_SECONDS = 0.5


class GpuCluster(ComputeTarget):
    """A cluster of equal nodes that come when jobs need them and go when they have been idle.

    With ``vm_priority="lowpriority"`` its jobs let all others go first and run at nice 10 on this machine. They are not
    preempted: a job that has started goes on.
    """

    type = "AmlCompute"

    @staticmethod
    def provisioning_configuration(
        vm_size: str = "",
        vm_priority: str | None = "dedicated",
        min_nodes: int = 0,
        max_nodes: int | None = None,
        idle_seconds_before_scaledown: int | None = _DEFAULT_IDLE_SECONDS,
        admin_username: None = None,
        admin_user_password: None = None,
        admin_user_ssh_key: None = None,
        vnet_resourcegroup_name: None = None,
        vnet_name: None = None,
        subnet_name: None = None,
        tags: Mapping[str, str] | None = None,
        description: str | None = None,
        remote_login_port_public_access: str = "NotSpecified",
        identity_type: None = None,
        identity_id: None = None,
        location: None = None,
        enable_node_public_ip: bool = True,
        *,
        cpus_per_node: int | None = None,
        memory_gb_per_node: float | None = None,
        gpus_per_node: int | None = None,
        scheduler: str | None = None,
        scheduler_options: Mapping[str, Any] | None = None,
    ) -> ProvisioningConfiguration:
        """Describe a cluster for ``ComputeTarget.create``: ``vm_size``, or explicit counts, which win over it.

        ``scheduler`` and its options are the workspace's by default.
        """
        given = {
            "admin_username": admin_username,
            "admin_user_password": admin_user_password,
            "admin_user_ssh_key": admin_user_ssh_key,
            "vnet_resourcegroup_name": vnet_resourcegroup_name,
            "vnet_name": vnet_name,
            "subnet_name": subnet_name,
            "remote_login_port_public_access": (
                None if remote_login_port_public_access == "NotSpecified" else remote_login_port_public_access
            ),
            "identity_type": identity_type,
            "identity_id": identity_id,
            "location": location,
            "enable_node_public_ip": None if enable_node_public_ip is True else "refused",
        }
        configuration.refuse_meaningless(given)
        return configuration.configure(
            vm_size,
            vm_priority,
            (
                min_nodes,
                _DEFAULT_MAX_NODES if max_nodes is None else max_nodes,
                _DEFAULT_IDLE_SECONDS if idle_seconds_before_scaledown is None else idle_seconds_before_scaledown,
            ),
            (cpus_per_node, memory_gb_per_node, gpus_per_node),
            scheduler,
            scheduler_options,
            tags,
            description,
        )

    @property
    def vm_size(self) -> str | None:
        """The name of the nodes' size, None if they were described by counts."""
        return self._cluster.vm_size

    @property
    def vm_priority(self) -> str:
        """``Dedicated`` or ``LowPriority``."""
        return vm_priority(self._cluster)

    @property
    def scale_settings(self) -> ScaleSettings:
        """Between which numbers of nodes the cluster moves."""
        return ScaleSettings.of(self._cluster)

    @property
    def idle_seconds_before_scaledown(self) -> int:
        """How long a node without a job is kept; 0 gives it back at once."""
        return self.scale_settings.idle_seconds_before_scaledown

    @property
    def provisioning_state(self) -> str:
        """``Succeeded``, or ``Failed`` when ``provisioning_errors`` says why."""
        return self.get_status().provisioning_state

    @property
    def provisioning_errors(self) -> tuple[str, ...]:
        """Why nodes that are wanted cannot be had."""
        return self.get_status().errors

    @property
    def notices(self) -> tuple[str, ...]:
        """What the nodes lack of what was asked for, one line each; empty when nothing."""
        with at_home(self.workspace):
            return tuple(self._scheduler.check_cluster(self._cluster))

    def get_status(self) -> AmlComputeStatus:
        """The definition and the nodes as they are now."""
        return AmlComputeStatus.of(*self._look())

    def list_nodes(self) -> builtins.list[dict[str, Any]]:
        """The nodes that are up, each with its state and, if it runs a job, the run and its share of the machine."""
        return [
            {
                "nodeId": node.name,
                "ipAddress": "127.0.0.1",
                "port": None,
                "nodeState": node.state.value,
                "runId": node.run_id,
                "cpus": list(node.cpus),
                "gpus": list(node.gpus),
            }
            for node in self._look()[1].nodes
        ]

    def update(
        self,
        min_nodes: int | None = None,
        max_nodes: int | None = None,
        idle_seconds_before_scaledown: int | None = None,
    ) -> None:
        """Change the scale; None leaves a setting as it is. Holds for jobs that wait already."""
        self.refresh_state()
        scale = self.scale_settings
        low, high, idle_seconds = configuration.check_scale(
            scale.minimum_node_count if min_nodes is None else min_nodes,
            scale.maximum_node_count if max_nodes is None else max_nodes,
            scale.idle_seconds_before_scaledown
            if idle_seconds_before_scaledown is None
            else idle_seconds_before_scaledown,
        )
        with at_home(self.workspace):
            changed = clusters.change(self.name, min_nodes=low, max_nodes=high, idle_seconds=idle_seconds)
        if changed is None:
            raise missing(self.name)
        self._cluster = changed

    def wait_for_completion(
        self,
        show_output: bool = False,
        min_node_count: int | None = None,
        timeout_in_minutes: float = 25,
        is_delete_operation: bool = False,
    ) -> None:
        """Wait until ``min_node_count`` nodes are up, by default the least that the cluster always has.

        Raises ComputeTargetException on the scheduler's errors and on timeout. With ``is_delete_operation`` it waits
        until the compute target has gone.
        """
        minutes = isinstance(timeout_in_minutes, (int, float)) and not isinstance(timeout_in_minutes, bool)
        if not minutes or not 0 <= timeout_in_minutes < math.inf:
            raise ComputeTargetException(
                f"timeout_in_minutes is {timeout_in_minutes!r}; it must be a number, 0 or more"
            )
        show = partial(print, end="", flush=True) if show_output else _say_nothing
        if is_delete_operation:
            self._wait_until_gone(timeout_in_minutes * 60, show)
            return
        self.refresh_state()
        least, most = self._cluster.min_nodes, self._cluster.max_nodes
        wanted = least
        if min_node_count is not None:
            wanted = max(least, configuration.whole("min_node_count", min_node_count, 0, most))
        with jobdir.at_home(self.workspace.home):
            wait_for_nodes(self._scheduler, self._reloaded, wanted, timeout_in_minutes * 60, show)

    def serialize(self) -> dict[str, Any]:
        """For JSON: the definition and the status."""
        cluster, state = self._look()
        status = AmlComputeStatus.of(cluster, state)
        return {
            "name": cluster.name,
            "tags": dict(cluster.tags),
            "properties": {
                "computeType": self.type,
                "description": cluster.description,
                "createdOn": status.creation_time.isoformat(),
                "modifiedOn": status.modified_time.isoformat(),
                "isAttachedCompute": cluster.attached,
                "provisioningState": provisioning_state(state),
                "provisioningErrors": list(state.errors) or None,
                "properties": {
                    "vmSize": cluster.vm_size,
                    "vmPriority": status.vm_priority,
                    "cpusPerNode": cluster.cpus_per_node,
                    "memoryGbPerNode": cluster.memory_gb_per_node,
                    "gpusPerNode": cluster.gpus_per_node,
                    "scaleSettings": status.scale_settings.serialize(),
                    "scheduler": cluster.scheduler,
                },
                "status": status.serialize(),
            },
        }

    @staticmethod
    def supported_vmsizes(workspace: HasHome, location: None = None) -> builtins.list[dict[str, Any]]:
        """The sizes that ``vm_size`` takes by name; every other is said with counts."""
        configuration.refuse_meaningless({"location": location})
        return [
            {
                "name": size.name,
                "vCPUs": size.cpus,
                "memoryGB": size.memory_gb,
                "gpus": size.gpus,
                "gpuModel": size.gpu_model,
            }
            for size in SIZES
        ]

    def __repr__(self) -> str:
        scale = self.scale_settings
        size = self.vm_size or "nodes by counts"
        nodes = f"{scale.minimum_node_count} to {scale.maximum_node_count} nodes"
        return f"AmlCompute(name={self.name!r}, {size}, {nodes}, scheduler={self._cluster.scheduler!r})"

    @property
    def _scheduler(self) -> Scheduler:
        return load_scheduler(self._cluster.scheduler)

    def _reloaded(self) -> Cluster:
        self.refresh_state()
        return self._cluster

    def _look(self) -> tuple[Cluster, ClusterState]:
        with at_home(self.workspace):
            cluster = self._reloaded()
            return cluster, self._scheduler.cluster_state(cluster)

    def _wait_until_gone(self, timeout_seconds: float, show: Callable[[str], object]) -> None:
        deadline = time.monotonic() + timeout_seconds
        show("Deleting")
        while self._exists():
            if time.monotonic() >= deadline:
                raise ComputeTargetException(f"compute target {self.name} is still there; delete() removes it")
            show(".")
            time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))
        show("\nSucceeded\nAmlCompute wait for completion finished\n")


def _say_nothing(text: str) -> None:
    """No output was asked for."""


AmlCompute = GpuCluster
"""The original's name."""
