"""What a job runs, whoever described it: the seam between a submission and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mlflow_pytorch_estimator.environments import EnvironmentSpec
from mlflow_pytorch_estimator.spec import Container


@dataclass(frozen=True)
class Description:
    """A job before it is placed; nothing has been created yet."""

    top: Path
    """The folder of which the job gets a copy."""
    subdirectory: str
    """Of ``top``, where the ranks start."""
    name: str
    entry_point: str
    command: str
    """For ``bash -c``, every value quoted."""
    parameters: dict[str, str]
    """As the user gave them, for the run."""
    environment: EnvironmentSpec
    inputs: dict[str, str] = field(default_factory=dict)
    """Placeholder in ``command`` or ``input_paths`` -> URI that must be downloaded first."""
    input_paths: dict[str, str] = field(default_factory=dict)
    """Name of an input -> its path on the node, or a placeholder."""
    datasets: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name of an input -> ``uri`` as the user gave it, and ``path`` on the node or a placeholder; what MLflow shows."""
    storage_dir: str | None = None
    """Where ``inputs`` are put; None means the job directory."""
    tags: dict[str, str] = field(default_factory=dict)
    container: Container | None = None
    """The image that the ranks run in."""
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    """That the source sets for the ranks; only their names are stored."""
    settings: Mapping[str, Any] | None = None
    """Of the backend config, for what the user has left open; None where the whole config is known from the start."""


class Source(Protocol):
    """Where a job comes from: an MLflow project or a script."""

    def describe(self, scratch: Path) -> Description:
        """Read, check and describe; ``scratch`` is an empty folder that lives until the snapshot is taken."""
