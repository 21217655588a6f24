"""The backend config: what ``-c`` takes, typed. Unknown keys are refused with the nearest valid one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator.config_checks import CHECKS, LAUNCHERS
from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.spec import Distribution, Resources

# MLflow puts these into the caller's own dict before it calls a backend.
ENV_MANAGER = "ENV_MANAGER"
SYNCHRONOUS = "SYNCHRONOUS"
STORAGE_DIR = "STORAGE_DIR"
DOCKER_ARGS = "DOCKER_ARGS"
DOCKER_AUTH = "docker_auth"
_BUILD_IMAGE = "build_image"
_MLFLOW_KEYS = frozenset({ENV_MANAGER, SYNCHRONOUS, STORAGE_DIR, DOCKER_ARGS, DOCKER_AUTH, _BUILD_IMAGE})


@dataclass(frozen=True)
class BackendConfig:
    """Settings of one submission; the docstrings are the reference that ``docs/configuration.md`` shows."""

    scheduler: str = "local"
    """Where the job runs."""
    scheduler_options: dict[str, Any] = field(default_factory=dict)
    """Options of that scheduler; ``local`` has none."""
    compute: str | None = None
    """Name of a cluster definition (``AmlCompute``); it brings scheduler and sizes."""
    node_count: int = 1
    """Nodes of the job."""
    process_count_per_node: int = 1
    """Ranks on each node; several need ``distributed_training``."""
    distributed_training: str | None = None
    """How the ranks start and find each other: ``horovod`` (also called ``mpi``), ``mpirun`` (Horovod, started by Open
    MPI), ``torchrun`` (torch.distributed; also ``torch``, ``nccl``, ``gloo``); by default there is one process."""
    min_node_count: int | None = None
    """The job goes on with so many nodes when others are lost (elastic); by default it needs all."""
    max_restarts: int = 0
    """How often ``torchrun`` starts the ranks anew when one fails, before the job counts as failed."""
    relay: bool | None = None
    """Let the ranks' MLflow calls go through the job directory to the submit host; by default where nodes of a cluster
    cannot reach the tracking store themselves (SQLite, files, a server at a loopback address)."""
    rank_metrics: str = "drop"
    """What becomes of metrics that ranks above 0 log: ``drop``, or ``prefix`` for ``rank_3/loss``."""
    cpus_per_node: int | None = None
    """Cores; by default the whole node, or the share that goes with ``gpus_per_node``."""
    gpus_per_node: int | None = None
    """GPUs; by default all of the node, 0 for a job that uses none."""
    memory_gb_per_node: float | None = None
    """Main memory in GiB that is set aside; by default none."""
    max_run_duration_seconds: float | None = None
    """The job fails when its ranks have run this long."""
    checkpoint_signal: str | None = None
    """``USR1`` or ``USR2``, sent before that to the processes of the ranks that handle it."""
    checkpoint_lead_seconds: float = 60.0
    """How long before."""
    start_timeout_seconds: float = 300.0
    """The job fails when a node, or a rank of several, has not joined the others after so long."""
    max_retries: int = 0
    """How often a failed job is tried again, in the same run and with its checkpoints."""
    retry_exit_codes: tuple[int, ...] = ()
    """Only when the rank to blame ended with one of these (negative: signals, -9 for SIGKILL); by default always."""
    resume_from: str | None = None
    """Checkpoints to begin with: the id of an earlier run of this backend, or a folder."""
    low_priority: bool = False
    """Let other jobs go first."""
    shared_filesystem: bool = True
    """Whether a cluster's nodes share a file system with the submit host; if not, the job is sent to their disks."""
    upgrade_environment: bool = False
    """Take the newest packages that the project's files admit, not the versions of its last job."""
    detach: bool = False
    """Return at once instead of streaming the job's output."""
    prepare_on: str = "submit"
    """Where the environment is built and inputs are downloaded: ``submit`` (this machine) or ``node`` (a small job of
    its own)."""
    after: tuple[str, ...] = ()
    """The job starts when these runs have completed: ids, or one id."""
    dry_run: bool = False
    """Check and print what would be submitted, and submit nothing."""
    grace_period_seconds: float = 10.0
    """Time between SIGTERM and SIGKILL when the job is ended."""

    @property
    def resources(self) -> Resources:
        """The part that the scheduler places."""
        return Resources(
            self.node_count, self.cpus_per_node, self.gpus_per_node, self.memory_gb_per_node, self.low_priority
        )

    given: frozenset[str] = field(default=frozenset(), compare=False)
    """Names of the keys that were said; the others have their defaults."""

    @property
    def distribution(self) -> Distribution:
        """The part that the launcher reads."""
        if self.distributed_training is None:
            return Distribution()
        kind, backend = LAUNCHERS[self.distributed_training]
        return Distribution(kind, self.process_count_per_node, backend, self.min_node_count, self.max_restarts)

    def over(self, defaults: Mapping[str, Any], source: str) -> BackendConfig:
        """This config where it says something, elsewhere the settings that ``source`` (for errors) brings."""
        try:
            read_config(defaults, whole=False)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from error
        return read_config({**defaults, **{name: getattr(self, name) for name in self.given}})


def read_config(raw: object, *, whole: bool = True) -> BackendConfig:
    """Check a backend config: a mapping, JSON text, or the path of a ``.json`` file. Never changes ``raw``.

    ``whole=False`` is for a part of one, whose keys need not make sense together yet.
    """
    if raw is None:
        return BackendConfig()
    settings = _load(raw) if isinstance(raw, (str, Path)) else raw
    if not isinstance(settings, Mapping):
        raise ConfigError(f"a backend config is a JSON object, not {type(settings).__name__}")
    own = {key: value for key, value in settings.items() if key not in _MLFLOW_KEYS}
    _refuse_build(settings)
    _refuse_unknown(own)
    for name, value in own.items():
        CHECKS[name](name, value)
    if own.get("compute") and {"scheduler", "scheduler_options"} & set(own):
        raise ConfigError("compute brings its own scheduler: leave out scheduler and scheduler_options")
    if "after" in own:
        own["after"] = (own["after"],) if isinstance(own["after"], str) else tuple(own["after"] or ())
    if "retry_exit_codes" in own:
        own["retry_exit_codes"] = tuple(own["retry_exit_codes"])
    config = BackendConfig(**own, given=frozenset(own))
    if whole:
        _check_launch(config)
        check_together(config, config.distribution)
    return config


def _check_launch(config: BackendConfig) -> None:
    nodes, ranks = config.node_count, config.process_count_per_node
    if config.distributed_training is None and (nodes > 1 or ranks > 1):
        name, value = ("process_count_per_node", ranks) if ranks > 1 else ("node_count", nodes)
        raise ConfigError(
            f"{name} is {value} and needs distributed_training, which says how the ranks find each other: "
            '"horovod" or "torchrun"'
        )


def check_together(config: BackendConfig, distribution: Distribution) -> None:
    """Refuse settings that contradict each other, or how the ranks start."""
    kind, nodes = distribution.kind, config.node_count
    if config.min_node_count is not None:
        if kind == "single":
            raise ConfigError(
                f"min_node_count is {config.min_node_count}, but how the ranks start is not said: "
                "give distributed_training"
            )
        if kind == "mpirun":
            raise ConfigError('min_node_count: mpirun needs all its nodes; use "horovod" or "torchrun"')
        if config.min_node_count > nodes:
            raise ConfigError(f"min_node_count is {config.min_node_count}, but node_count is {nodes}; ask for less")
    if config.max_restarts and kind != "torch":
        raise ConfigError('max_restarts is for "torchrun"; max_retries tries any job again')
    limit = config.max_run_duration_seconds
    if config.checkpoint_signal is not None and (limit is None or limit <= config.checkpoint_lead_seconds):
        raise ConfigError(
            f"checkpoint_signal comes {config.checkpoint_lead_seconds:g} s before max_run_duration_seconds, "
            f"which is {'not given' if limit is None else f'{limit:g}'}: set it, or a smaller checkpoint_lead_seconds"
        )


def _load(source: str | Path) -> object:
    if isinstance(source, str) and not source.endswith(".json"):
        return _parse(source, "the backend config")
    try:
        text = Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the backend config {source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source} is not valid JSON: {error}") from error
    return _parse(text, str(source))


def _parse(text: str, name: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{name} is not valid JSON: {error}") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise ConfigError(f"{key} is given twice, as {found[key]!r} and as {value!r}: leave out one")
        found[key] = value
    return found


def _refuse_build(settings: Mapping[Any, Any]) -> None:
    if settings.get(_BUILD_IMAGE):
        raise ConfigError(
            "--build-image: images are not built here; build it with `docker build` or `podman build`, "
            "and name it in docker_env"
        )


def _refuse_unknown(own: Mapping[Any, Any]) -> None:
    valid = [item.name for item in fields(BackendConfig) if item.name != "given"]
    for key in own:
        if key not in valid:
            close = difflib.get_close_matches(str(key), valid, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"valid keys are {', '.join(valid)}"
            raise ConfigError(f"unknown key {key!r} in the backend config; {hint}")
