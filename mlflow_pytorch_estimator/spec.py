"""``JobSpec``: what runs, with which resources and packages. Stored as ``job.json``, holds no secret.

Standard library only: the agent reads it before anything else is imported.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Resources:
    """What one job asks of its scheduler."""

    node_count: int = 1
    cpus_per_node: int | None = None
    """Cores; None means the whole node, or the share that goes with the GPUs asked for."""
    gpus_per_node: int | None = None
    """GPUs; None means all that a node has, 0 a job that uses none."""
    memory_gb_per_node: float | None = None
    """Main memory in GiB; None means that none is set aside."""
    low_priority: bool = False
    """Let the other jobs go first."""


@dataclass(frozen=True)
class Distribution:
    """How the ranks of a job start; one process unless it says otherwise."""

    kind: str = "single"
    """``single``, ``horovod``, ``mpirun`` (Horovod as well) or ``torch``."""
    processes_per_node: int = 1
    """Ranks on each node."""
    backend: str | None = None
    """Of torch.distributed: ``nccl`` or ``gloo``."""
    min_nodes: int | None = None
    """The ranks go on with so many nodes when others are lost; None means that all are needed."""
    max_restarts: int = 0
    """How often the launcher may start the ranks anew within one attempt."""

    @property
    def uses_horovod(self) -> bool:
        """Whether the ranks need Horovod."""
        return self.kind in {"horovod", "mpirun"}

    @property
    def launcher(self) -> str:
        """What starts the ranks, by the name that people give it."""
        return "torchrun" if self.kind == "torch" else self.kind

    def world_size(self, node_count: int) -> int:
        """How many ranks such a job has on so many nodes."""
        return 1 if self.kind == "single" else node_count * self.processes_per_node


@dataclass(frozen=True)
class InterpreterSpec:
    """The interpreter that the ranks run under; ``python`` is None until the environment is ready."""

    manager: str
    description: dict[str, Any] = field(default_factory=dict)
    python: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Container:
    """The image that the ranks run in, and with what it is started; it brings interpreter and packages."""

    image: str
    """As the user names it."""
    shm_size: str | None = None
    """Of ``/dev/shm``, such as ``2g``; None shares the machine's."""
    volumes: tuple[str, ...] = ()
    """``SOURCE:TARGET[:OPTIONS]``, besides the job's own directory."""
    arguments: tuple[str, ...] = ()
    """Further options of the runtime's ``run``, as the user gave them."""
    runtime: str | None = None
    """``docker`` or ``podman``, once it is chosen."""
    program: str | None = None
    """Path of its client."""
    rootless: bool = False
    """Whether root in the container is the user outside."""
    image_id: str | None = None
    """What runs, whatever the name means by then; None until the image is on this machine."""


@dataclass(frozen=True)
class JobSpec:
    """One job, complete: nothing else is needed to run it but its directory and its environment."""

    run_id: str
    experiment_id: str
    project: str
    entry_point: str
    command: str
    """A line for ``bash -c``; parameter values in it are shell-quoted."""
    parameters: dict[str, str]
    """As the user gave them; what MLflow shows."""
    interpreter: InterpreterSpec
    resources: Resources = Resources()
    distribution: Distribution = Distribution()
    container: Container | None = None
    """None runs the ranks on the machine itself."""
    compute: str | None = None
    """Name of the cluster definition that the job runs on, see ``clusters``."""
    scheduler: str = "local"
    scheduler_options: dict[str, Any] = field(default_factory=dict)
    subdirectory: str = ""
    """Of the snapshot, where the MLproject file lies and the ranks start."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Placeholder in ``command`` or ``input_paths`` -> URI that is downloaded before the job is queued."""
    input_paths: dict[str, str] = field(default_factory=dict)
    """Name of an input -> its path, for the variable ``GPU_CLUSTER_INPUT_NAME``."""
    datasets: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name of an input -> ``uri`` as the user gave it, and ``path`` on the node; see ``datasets``."""
    storage_dir: str | None = None
    """Where ``inputs`` are put; None means the job directory."""
    grace_seconds: float = 10.0
    """Between SIGTERM and SIGKILL."""
    max_seconds: float | None = None
    """The ranks are ended and the job fails when they have run this long."""
    start_seconds: float = 300.0
    """The job fails when a node or a rank has not joined the others after so long."""
    checkpoint_signal: str | None = None
    """``USR1`` or ``USR2``, for the ranks before ``max_seconds`` are over."""
    checkpoint_lead_seconds: float = 60.0
    """How long before."""
    max_retries: int = 0
    """How often a failed job is started again, in the same run."""
    retry_exit_codes: tuple[int, ...] = ()
    """Retry only when the failed rank ended with one of these; negative for signals. Empty means any."""
    resume_from: str | None = None
    """Folder with the checkpoints that the first attempt finds."""
    relay: bool = False
    """The ranks' MLflow calls go through the job directory, see ``relay``."""
    prepare_on: str = "submit"
    """``node`` if a job of its own prepares it, where the machine that submits may not; else ``submit``."""
    after: tuple[str, ...] = ()
    """Ids of the runs that must have completed before it starts."""
    rank_metrics: str = "drop"
    """What becomes of metrics that ranks above 0 log: ``drop`` or ``prefix``."""
    environment_variables: tuple[str, ...] = ()
    """Names of the variables that the user or the project set for the job; the values travel with the processes, never
    in a file."""
    upgrade_environment: bool = False
    """Choose package versions anew instead of taking those of the last job with the same description."""
    shared_filesystem: bool = True
    """Whether the nodes see the file systems of the submit host, the job directory above all."""
    snapshot: str | None = None
    """Digest of the source tree, see ``snapshots``; None when ``source/`` is already there."""
    notices: tuple[str, ...] = ()
    """What the user should know about how the job was placed, for the tag ``gpu_cluster.notice``."""
    tracking_uri: str | None = None
    """The run's store, without a password; None means MLflow's current one."""
    registry_uri: str | None = None
    run_name: str = ""
    """Name of the MLflow run when it was created."""
    array: str | None = None
    """Id of the run that groups this one with the others of its array, see ``arrays``."""
    members: tuple[str, ...] = ()
    """Of a group: the ids of its runs, by number. It is no job itself."""
    max_concurrent: int | None = None
    """Of a group: how many of its runs may run at once."""

    def to_json(self) -> str:
        """The text of ``job.json``."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> JobSpec:
        """Read ``job.json``; keys of a newer version are ignored."""
        raw = json.loads(text)
        raw["interpreter"] = InterpreterSpec(**_known(InterpreterSpec, raw["interpreter"]))
        raw["resources"] = Resources(**_known(Resources, raw["resources"]))
        raw["distribution"] = Distribution(**_known(Distribution, raw.get("distribution", {})))
        raw["container"] = _container(raw.get("container"))
        for name in ("after", "environment_variables", "members", "notices", "retry_exit_codes"):
            raw[name] = tuple(raw.get(name, ()))
        return cls(**_known(cls, raw))


def _container(raw: dict[str, Any] | None) -> Container | None:
    if raw is None:
        return None
    known = _known(Container, raw)
    return Container(**{**known, **{name: tuple(known.get(name, ())) for name in ("volumes", "arguments")}})


def _known(cls: type, raw: dict[str, Any]) -> dict[str, Any]:
    names = _names(cls)
    return {key: value for key, value in raw.items() if key in names}


@cache
def _names(cls: type) -> frozenset[str]:
    return frozenset(item.name for item in fields(cls))
