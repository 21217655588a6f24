"""An MLproject read as MLflow's local backend reads it: entry point, parameters, command, environment file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from mlflow.exceptions import MlflowException
from mlflow.projects import env_type
from mlflow.projects._project_spec import EntryPoint
from mlflow.projects.utils import load_project
from mlflow.utils.file_utils import get_local_path_or_none
from mlflow.utils.validation import _validate_param_name

from mlflow_pytorch_estimator.containers.describing import ProjectContainer, read_docker_env
from mlflow_pytorch_estimator.errors import ConfigError, ProjectError, one_line
from mlflow_pytorch_estimator.secretvalues import Concealer
from mlflow_pytorch_estimator.shellsecrets import HiddenSecrets
from mlflow_pytorch_estimator.tracking import without_credentials

LAUNCH_KEYS = (
    "distributed_training",
    "node_count",
    "process_count_per_node",
    "min_node_count",
    "max_restarts",
    "rank_metrics",
    "cpus_per_node",
    "gpus_per_node",
    "memory_gb_per_node",
    "max_run_duration_seconds",
    "checkpoint_signal",
    "checkpoint_lead_seconds",
    "start_timeout_seconds",
    "max_retries",
    "retry_exit_codes",
    "grace_period_seconds",
)
"""Keys of the backend config that a project may set for an entry point; where it runs is not its business."""


@dataclass(frozen=True)
class Project:
    """A project on disk, ready to be described as a job."""

    directory: Path
    name: str
    definition: Any
    """MLflow's own object."""
    container: ProjectContainer | None = None
    """What its ``docker_env`` says."""

    @property
    def environment_file(self) -> Path | None:
        """The file that the MLproject names, or that MLflow finds beside it."""
        path = self.definition.env_config_path
        return Path(path) if path else None

    @property
    def environment_kind(self) -> str | None:
        """``conda`` or ``python``; None when the project says nothing about its packages."""
        if self.environment_file is None:
            return None
        return "conda" if self.definition.env_type == env_type.CONDA else "python"


@dataclass(frozen=True)
class Invocation:
    """An entry point with its parameters."""

    command: str
    """For ``bash -c``, every value quoted."""
    parameters: dict[str, str]
    """Raw values, also of defaults, for the run."""
    inputs: dict[str, str]
    """Placeholder in ``command`` -> URI that must be downloaded first."""
    paths: tuple[str, ...] = ()
    """Files and folders of this machine that are in ``command``."""
    datasets: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name of a parameter of type path -> what it names, see ``Description.datasets``."""


def read_project(directory: Path) -> Project:
    """Read the MLproject file of a directory; a directory without one is a project as well."""
    try:
        definition = load_project(str(directory))
    except MlflowException as error:
        raise ProjectError(str(error)) from error
    except yaml.YAMLError as error:
        raise ProjectError(f"the MLproject file of {directory} is not valid YAML: {one_line(error)}") from error
    except (OSError, AttributeError, TypeError, ValueError) as error:
        raise ProjectError(f"the MLproject file of {directory} cannot be read: {one_line(error)}") from error
    try:
        container = read_docker_env(definition.docker_env, os.environ) if definition.docker_env else None
    except ConfigError as error:
        raise ProjectError(str(error)) from error
    return Project(directory, definition.name or directory.name, definition, container)


def _definition_file(folder: Path) -> Path | None:
    return next((path for name in ("MLproject", "mlproject") if (path := folder / name).is_file()), None)


def settings(project: Project, entry_point: str) -> dict[str, Any]:
    """What an entry point says about its launch under ``gpu_cluster``, a key that MLflow itself passes over."""
    path = _definition_file(project.directory)
    if path is None:
        return {}
    entries = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("entry_points") or {}
    found = (entries.get(entry_point) or {}).get("gpu_cluster") or {}
    if not isinstance(found, dict):
        raise ProjectError(f"gpu_cluster of entry point {entry_point!r} must be a mapping of backend config keys")
    for key in found:
        if key not in LAUNCH_KEYS:
            raise ProjectError(
                f"gpu_cluster of entry point {entry_point!r} has {key!r}; it may have: {', '.join(LAUNCH_KEYS)}"
            )
    return found


def invoke(project: Project, entry_point: str, given: Mapping[str, Any] | None) -> Invocation:
    """Check the parameters and compose the command."""
    parameters = {str(key): str(value) for key, value in (given or {}).items()}
    try:
        entry = project.definition.get_entry_point(entry_point)
        if not isinstance(getattr(entry, "command", None), str):  # a Databricks project has no entry point
            raise ProjectError(f"entry point {entry_point!r} has no command in the MLproject file")
        entry.compute_parameters(parameters, storage_dir=None)  # names what is missing or no URI
        for name in (*entry.parameters, *parameters):
            _validate_param_name(name)
    except MlflowException as error:
        if _definition_file(project.directory) is None and not (project.directory / entry_point).exists():
            raise ProjectError(
                f"{project.directory} has no MLproject file, and no script {entry_point!r}: name one with -e, or run a "
                "script by itself with `gpu-cluster submit SCRIPT`"
            ) from error
        raise ProjectError(one_line(error)) from error
    defaults = {name: str(item.default) for name, item in entry.parameters.items() if item.default is not None}
    raw = {**defaults, **parameters}
    inputs: dict[str, str] = {}
    values = {name: _path_value(name, value, inputs) if _is_path(entry, name) else value for name, value in raw.items()}
    given_paths = {name: value for name, value in values.items() if _is_path(entry, name)}
    paths = tuple(value for value in given_paths.values() if value not in inputs)
    datasets = {
        name: {"uri": without_credentials(inputs.get(value, value)), "path": value}
        for name, value in given_paths.items()
    }
    return Invocation(_compose(entry, values), raw, inputs, paths, datasets)


def _is_path(entry: Any, name: str) -> bool:
    return name in entry.parameters and entry.parameters[name].type == "path"


def _path_value(name: str, value: str, inputs: dict[str, str]) -> str:
    local = get_local_path_or_none(value)
    if local is None:
        placeholder = f"GPUCLUSTERINPUT{len(inputs)}X"
        inputs[placeholder] = value
        return placeholder
    path = Path(local)
    if not path.exists():
        raise ProjectError(f"parameter {name!r} is {value!r}, but there is no such file or directory")
    return os.path.abspath(path)  # noqa: PTH100 - as MLflow: without `..`


def _compose(entry: Any, values: dict[str, str]) -> str:
    """Let MLflow quote the values; a secret of the environment in them stays there, for the shell to expand."""
    secrets = HiddenSecrets(Concealer.from_environ())
    values = {name: secrets.hide(value) for name, value in values.items()}
    # All types have been checked with the true values.
    plain = EntryPoint(entry.name, dict.fromkeys(entry.parameters, "string"), entry.command)
    try:
        command: str = plain.compute_command(values, storage_dir=None)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise ProjectError(
            f"the command of entry point {entry.name!r} has a placeholder that is no parameter: {one_line(error)}"
        ) from error
    return secrets.expand(command)


def resolve_inputs(command: str, paths: Mapping[str, str]) -> str:
    """Put the paths of downloaded inputs in place of their placeholders."""
    for placeholder, path in paths.items():
        command = command.replace(placeholder, shlex.quote(path))
    return command
