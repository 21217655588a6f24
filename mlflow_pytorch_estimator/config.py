"""The backend config: what ``-c`` takes, typed. Unknown keys are refused with the nearest valid one."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.schedulers import SCHEDULERS
from mlflow_pytorch_estimator.spec import Resources

# MLflow puts these into the caller's own dict before it calls a backend.
ENV_MANAGER = "ENV_MANAGER"
SYNCHRONOUS = "SYNCHRONOUS"
STORAGE_DIR = "STORAGE_DIR"
_DOCKER_ARGS = "DOCKER_ARGS"
_BUILD_IMAGE = "build_image"
_MLFLOW_KEYS = frozenset({ENV_MANAGER, SYNCHRONOUS, STORAGE_DIR, _DOCKER_ARGS, _BUILD_IMAGE, "docker_auth"})


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
    cpus_per_node: int | None = None
    """Cores; by default the whole node, or the share that goes with ``gpus_per_node``."""
    gpus_per_node: int | None = None
    """GPUs; by default all of the node, 0 for a job that uses none."""
    memory_gb_per_node: float | None = None
    """Main memory in GiB that is set aside; by default none."""
    max_run_duration_seconds: float | None = None
    """The job fails when its ranks have run this long."""
    low_priority: bool = False
    """Let other jobs go first."""
    detach: bool = False
    """Return at once instead of streaming the job's output."""
    grace_period_seconds: float = 10.0
    """Time between SIGTERM and SIGKILL when the job is ended."""

    @property
    def resources(self) -> Resources:
        """The part that the scheduler places."""
        return Resources(
            self.node_count, self.cpus_per_node, self.gpus_per_node, self.memory_gb_per_node, self.low_priority
        )


def read_config(raw: object) -> BackendConfig:
    """Check a backend config: a mapping, JSON text, or the path of a ``.json`` file. Never changes ``raw``."""
    if raw is None:
        return BackendConfig()
    settings = _load(raw) if isinstance(raw, (str, Path)) else raw
    if not isinstance(settings, Mapping):
        raise ConfigError(f"a backend config is a JSON object, not {type(settings).__name__}")
    own = {key: value for key, value in settings.items() if key not in _MLFLOW_KEYS}
    _refuse_docker(settings)
    _refuse_unknown(own)
    for name, value in own.items():
        _CHECKS[name](name, value)
    if own.get("compute") and {"scheduler", "scheduler_options"} & set(own):
        raise ConfigError("compute brings its own scheduler: leave out scheduler and scheduler_options")
    config = BackendConfig(**own)
    if config.node_count > 1:
        raise ConfigError("node_count: this version runs a job on one node; use 1")
    return config


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
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name} is not valid JSON: {error}") from error


def _refuse_docker(settings: Mapping[Any, Any]) -> None:
    if settings.get(_DOCKER_ARGS) or settings.get(_BUILD_IMAGE):
        raise ConfigError(
            "containers are not supported: leave out --docker-args and --build-image, and name packages in conda.yaml"
        )


def _refuse_unknown(own: Mapping[Any, Any]) -> None:
    valid = [item.name for item in fields(BackendConfig)]
    for key in own:
        if key not in valid:
            close = difflib.get_close_matches(str(key), valid, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"valid keys are {', '.join(valid)}"
            raise ConfigError(f"unknown key {key!r} in the backend config; {hint}")


def _scheduler(name: str, value: object) -> None:
    if not isinstance(value, str) or value not in SCHEDULERS:
        raise ConfigError(f"{name} is {value!r}; it must be one of: {', '.join(sorted(SCHEDULERS))}")


def _text_or_none(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigError(f"{name} is {value!r}; it must be a name")


def _mapping(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {value!r}; it must be a JSON object")


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}; it must be true or false")


def _positive(name: str, value: object) -> None:
    _whole(name, value, 1)


def _positive_or_none(name: str, value: object) -> None:
    if value is not None:
        _whole(name, value, 1)


def _count_or_none(name: str, value: object) -> None:
    if value is not None:
        _whole(name, value, 0)


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least {least}")


def _amount_or_none(name: str, value: object) -> None:
    if value is not None and (not _is_number(value) or float(str(value)) == 0):
        raise ConfigError(f"{name} is {value!r}; it must be a number above 0")


def _is_number(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(float(str(value))) and float(str(value)) >= 0


def _seconds(name: str, value: object) -> None:
    if not _is_number(value):
        raise ConfigError(f"{name} is {value!r}; it must be a number of seconds, 0 or more")


_CHECKS = {
    "scheduler": _scheduler,
    "scheduler_options": _mapping,
    "compute": _text_or_none,
    "node_count": _positive,
    "cpus_per_node": _positive_or_none,
    "gpus_per_node": _count_or_none,
    "memory_gb_per_node": _amount_or_none,
    "max_run_duration_seconds": _amount_or_none,
    "low_priority": _flag,
    "detach": _flag,
    "grace_period_seconds": _seconds,
}
