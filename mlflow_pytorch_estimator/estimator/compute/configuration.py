"""What ``provisioning_configuration`` returns, and the checks that every setting of a compute target passes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mlflow_pytorch_estimator.clusters import NAME, Cluster
from mlflow_pytorch_estimator.estimator.compute.vm_sizes import find_size
from mlflow_pytorch_estimator.estimator.exceptions import ComputeTargetException
from mlflow_pytorch_estimator.schedulers import SCHEDULERS

MOST_NODES = 10_000
LONGEST_IDLE_SECONDS = 31_536_000
_MOST_PER_NODE = 100_000
_MEANINGLESS = {
    "admin_username": "nodes have no users of their own; jobs run as you",
    "admin_user_password": "nodes have no users of their own; jobs run as you",
    "admin_user_ssh_key": "nodes have no users of their own; jobs run as you",
    "vnet_resourcegroup_name": "nodes are in the network of their machines",
    "vnet_name": "nodes are in the network of their machines",
    "subnet_name": "nodes are in the network of their machines",
    "remote_login_port_public_access": "no port is opened; log in to the machine itself",
    "identity_type": "jobs run as you, with your credentials",
    "identity_id": "jobs run as you, with your credentials",
    "location": "nodes are where their machines are",
    "enable_node_public_ip": "nodes have the addresses of their machines",
}


@dataclass(frozen=True)
class ProvisioningConfiguration:
    """A compute target that could be created; checked, and complete but for its name."""

    vm_size: str | None
    vm_priority: str
    min_nodes: int
    max_nodes: int
    idle_seconds_before_scaledown: int
    cpus_per_node: int | None
    memory_gb_per_node: float | None
    gpus_per_node: int
    scheduler: str | None = None
    """None means the workspace's."""
    scheduler_options: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str | None = None

    def named(self, name: str, scheduler: str = "local", scheduler_options: Mapping[str, Any] | None = None) -> Cluster:
        """The definition of a compute target of that name, on the workspace's scheduler unless it names its own."""
        inherited = scheduler_options or {} if self.scheduler is None else {}
        return Cluster(
            name=check_name(name),
            scheduler=self.scheduler or scheduler,
            scheduler_options={**inherited, **self.scheduler_options},
            vm_size=self.vm_size,
            cpus_per_node=self.cpus_per_node,
            memory_gb_per_node=self.memory_gb_per_node,
            gpus_per_node=self.gpus_per_node,
            min_nodes=self.min_nodes,
            max_nodes=self.max_nodes,
            idle_seconds=self.idle_seconds_before_scaledown,
            low_priority=priority_is_low(self.vm_priority),
            description=self.description,
            tags=dict(self.tags),
        )


def configure(
    vm_size: str | None,
    vm_priority: str | None,
    scale: tuple[int, int, int],
    counts: tuple[int | None, float | None, int | None],
    scheduler: str | None,
    scheduler_options: Mapping[str, Any] | None,
    tags: Mapping[str, str] | None,
    description: str | None,
) -> ProvisioningConfiguration:
    """Check and complete: ``scale`` is min nodes, max nodes, idle seconds; ``counts`` CPUs, GiB and GPUs of a node."""
    min_nodes, max_nodes, idle_seconds = check_scale(*scale)
    name, (cpus, memory_gb, gpus) = _check_size(vm_size, counts)
    if scheduler is not None and (not isinstance(scheduler, str) or scheduler not in SCHEDULERS):
        raise ComputeTargetException(f"scheduler is {scheduler!r}; there is {', '.join(sorted(SCHEDULERS))}")
    if description is not None and not isinstance(description, str):
        raise ComputeTargetException(f"description is {description!r}; it must be text")
    return ProvisioningConfiguration(
        vm_size=name,
        vm_priority="lowpriority" if priority_is_low(vm_priority) else "dedicated",
        min_nodes=min_nodes,
        max_nodes=max_nodes,
        idle_seconds_before_scaledown=idle_seconds,
        cpus_per_node=cpus,
        memory_gb_per_node=memory_gb,
        gpus_per_node=gpus,
        scheduler=scheduler,
        scheduler_options=_check_options(scheduler_options),
        tags=_check_tags(tags),
        description=description,
    )


def refuse_meaningless(given: Mapping[str, object]) -> None:
    """Raise for a setting of the original that can do nothing here; values are not shown, one is a password."""
    for name, value in given.items():
        if value is not None:
            raise ComputeTargetException(f"{name} cannot be set: {_MEANINGLESS[name]}; leave it out")


def priority_is_low(vm_priority: object) -> bool:
    """Whether a priority is the low one; None means dedicated."""
    name = vm_priority.lower() if isinstance(vm_priority, str) else vm_priority
    if name is None or name == "dedicated":
        return False
    if name == "lowpriority":
        return True
    raise ComputeTargetException(f"vm_priority is {vm_priority!r}; it must be 'dedicated' or 'lowpriority'")


def check_name(name: object) -> str:
    """A name that a compute target may have."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ComputeTargetException(
            f"compute target name {name!r} must be 2 to 64 letters, digits and dashes, "
            "with a letter first and no dash last"
        )
    return name


def check_scale(min_nodes: object, max_nodes: object, idle_seconds: object) -> tuple[int, int, int]:
    """Node counts and idle time that go together."""
    low = whole("min_nodes", min_nodes, 0, MOST_NODES)
    high = whole("max_nodes", max_nodes, 1, MOST_NODES)
    if low > high:
        raise ComputeTargetException(f"min_nodes is {low} and max_nodes is {high}; min_nodes must not be the larger")
    return low, high, whole("idle_seconds_before_scaledown", idle_seconds, 0, LONGEST_IDLE_SECONDS)


def whole(name: str, value: object, least: int, most: int) -> int:
    """A whole number in a range."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ComputeTargetException(f"{name} is {value!r}; it must be a whole number from {least} to {most}")
    return value


def differences(stored: Cluster, wanted: Cluster) -> list[str]:
    """Names of the settings in which two definitions of one name differ, with the stored value."""
    names = [item.name for item in fields(Cluster) if item.name not in {"created", "modified"}]
    return [f"{name}={getattr(stored, name)!r}" for name in names if getattr(stored, name) != getattr(wanted, name)]


def _check_size(
    vm_size: object, counts: tuple[int | None, float | None, int | None]
) -> tuple[str | None, tuple[int | None, float | None, int]]:
    cpus, memory_gb, gpus = counts
    if cpus is not None:
        whole("cpus_per_node", cpus, 1, _MOST_PER_NODE)
    if gpus is not None:
        whole("gpus_per_node", gpus, 0, _MOST_PER_NODE)
    number = isinstance(memory_gb, (int, float)) and not isinstance(memory_gb, bool)
    if memory_gb is not None and not (number and 0 < memory_gb <= _MOST_PER_NODE):
        raise ComputeTargetException(f"memory_gb_per_node is {memory_gb!r}; it must be a number of GiB above 0")
    if vm_size is None or vm_size == "":
        if cpus is None and gpus is None:
            raise ComputeTargetException("a compute target needs vm_size, or cpus_per_node and gpus_per_node")
        return None, (cpus, memory_gb, gpus or 0)
    if not isinstance(vm_size, str):
        raise ComputeTargetException(f"vm_size is {vm_size!r}; it must be the name of a size")
    size = find_size(vm_size)
    return size.name, (
        size.cpus if cpus is None else cpus,
        size.memory_gb if memory_gb is None else memory_gb,
        size.gpus if gpus is None else gpus,
    )


def _check_tags(tags: object) -> dict[str, str]:
    if tags is None:
        return {}
    if not isinstance(tags, Mapping) or not all(isinstance(item, str) for pair in tags.items() for item in pair):
        raise ComputeTargetException(f"tags is {tags!r}; it must be a dictionary of texts")
    return dict(tags)


def _check_options(options: object) -> dict[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise ComputeTargetException(f"scheduler_options is {options!r}; it must be a dictionary with names as keys")
    try:
        copied: dict[str, Any] = json.loads(json.dumps(dict(options), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ComputeTargetException(f"scheduler_options cannot be kept as JSON: {error}") from error
    return copied
