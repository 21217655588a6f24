"""``JobSpec``: what runs, with which resources and packages. Stored as ``job.json``, holds no secret.

Standard library only: the agent reads it before anything else is imported.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Resources:
    """What one job asks of its scheduler."""

    node_count: int = 1
    cpus_per_node: int | None = None
    """Cores; None means the whole node, or the share that goes with the GPUs asked for."""
    gpus_per_node: int | None = None
    """GPUs; None means all that a node has, 0 a job that uses none."""


@dataclass(frozen=True)
class InterpreterSpec:
    """The interpreter that the ranks run under; ``python`` is None until the environment is ready."""

    manager: str
    description: dict[str, Any] = field(default_factory=dict)
    python: str | None = None
    key: str | None = None


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
    scheduler: str = "local"
    scheduler_options: dict[str, Any] = field(default_factory=dict)
    subdirectory: str = ""
    """Of the snapshot, where the MLproject file lies and the ranks start."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Placeholder in ``command`` -> URI that is downloaded before the job is queued."""
    storage_dir: str | None = None
    """Where ``inputs`` are put; None means the job directory."""
    grace_seconds: float = 10.0
    """Between SIGTERM and SIGKILL."""

    def to_json(self) -> str:
        """The text of ``job.json``."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> JobSpec:
        """Read ``job.json``; keys of a newer version are ignored."""
        raw = json.loads(text)
        raw["interpreter"] = InterpreterSpec(**_known(InterpreterSpec, raw["interpreter"]))
        raw["resources"] = Resources(**_known(Resources, raw["resources"]))
        return cls(**_known(cls, raw))


def _known(cls: type, raw: dict[str, Any]) -> dict[str, Any]:
    names = {item.name for item in fields(cls)}
    return {key: value for key, value in raw.items() if key in names}
