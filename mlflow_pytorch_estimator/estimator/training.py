"""The value that every description of a training job comes down to, and the checks that they share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator.config import read_config
from mlflow_pytorch_estimator.containers import describing
from mlflow_pytorch_estimator.data_input import DataInput
from mlflow_pytorch_estimator.environments import EnvironmentSpec
from mlflow_pytorch_estimator.errors import ConfigError, ProjectError
from mlflow_pytorch_estimator.estimator.exceptions import TrainingException
from mlflow_pytorch_estimator.estimator.recording import legalnames
from mlflow_pytorch_estimator.jobenv import carried, input_variable, is_reserved
from mlflow_pytorch_estimator.script_source import ScriptSource, Word, input_name
from mlflow_pytorch_estimator.spec import Container, Distribution

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_ENVIRONMENT = 128 * 1024 - 64  # bytes; Linux takes 128 KiB for one variable, and they travel in one


@dataclass(frozen=True)
class TrainingJob:
    """A job as the estimator describes it: what runs, on which compute target, with which ranks."""

    source: ScriptSource
    compute_target: str | None
    """Name of a compute target; None means this machine."""
    node_count: int = 1
    distribution: Distribution = field(default_factory=Distribution)
    use_gpu: bool | None = None
    """True asks for GPUs, False for none, None takes what the target has."""
    vm_size: str | None = None
    low_priority: bool = False
    max_seconds: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of the backend config."""


def entry(directory: Path, script: object, parameter: str, folder_parameter: str = "source_directory") -> str:
    """A script inside the source folder, as a relative path; raises TrainingException, which names the parameters."""
    if not isinstance(script, (str, os.PathLike)) or not os.fspath(script):
        raise TrainingException(f"{parameter} is missing: name the script to run, relative to {folder_parameter}")
    relative = os.path.normpath(os.fsdecode(script))
    if os.path.isabs(relative) or Path(relative).parts[:1] == (os.pardir,):  # noqa: PTH117 - text
        raise TrainingException(f"{parameter} {os.fspath(script)!r} must be a relative path inside {folder_parameter}")
    if relative.endswith(".ipynb"):
        raise TrainingException(
            f"{parameter} {relative!r} is a notebook: jupyter nbconvert --to script {relative}, and submit the result"
        )
    if "\0" not in relative and (directory / relative).is_dir():
        raise TrainingException(f"{parameter} {relative!r} is a folder: name the script to run")
    if "\0" in relative or not (directory / relative).is_file():
        raise TrainingException(f"{parameter} {relative!r} is not in {folder_parameter} {str(directory)!r}")
    return f"./{relative}" if relative.startswith("-") else relative  # Python would take it for an option


def folder(value: object, parameter: str = "source_directory") -> Path:
    """The source folder; raises TrainingException, which names the parameter."""
    if value is not None and not isinstance(value, (str, os.PathLike)):
        raise TrainingException(f"{parameter} is {value!r}; it must be the path of a folder")
    path = Path(value or ".").expanduser()
    if "\0" in str(path) or not path.is_dir():
        raise TrainingException(f"{parameter} {str(path)!r} is no folder")
    return path.absolute()


def word(name: str, value: object) -> Word:
    """One argument of the script, as text."""
    if isinstance(value, DataInput):
        return value
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()  # a NumPy or torch scalar
    if value is None or not isinstance(value, (str, int, float, os.PathLike)):
        kind = type(value).__name__
        raise TrainingException(f"{name} is a {kind}; it must be text, a number, a path or a DataInput")
    text = os.fsdecode(value) if isinstance(value, os.PathLike) else str(value)
    return text_word(name, text)


def text_word(name: str, text: str) -> str:
    """Text that can be an argument of a process."""
    if "\0" in text:
        raise TrainingException(f"{name} holds a NUL character, which no argument of a process can")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise TrainingException(f"{name} is no valid text: {error}") from None
    return text


def variables(given: Mapping[str, Any] | None) -> dict[str, str]:
    """The environment variables of a job; raises TrainingException."""
    if given is not None and not isinstance(given, Mapping):
        raise TrainingException(f"environment_variables is {given!r}; it must be a dict")
    result: dict[str, str] = {}
    for name, value in (given or {}).items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise TrainingException(f"{name!r} cannot name an environment variable")
        if is_reserved(name):
            raise TrainingException(f"the environment variable {name} is set by the backend itself")
        result[name] = str(word(f"environment variable {name}", _no_input(name, value)))
    size = sum(map(len, carried(result).values()))
    if size > _LONGEST_ENVIRONMENT:
        raise TrainingException(
            f"environment_variables take {size} bytes and are too long for a process, which takes "
            f"{_LONGEST_ENVIRONMENT}: use a file in source_directory"
        )
    return result


def _no_input(name: str, value: object) -> object:
    if isinstance(value, DataInput):
        raise TrainingException(f"environment variable {name}: give a DataInput to `inputs`, with a name")
    return value


def container(image: object, shm_size: object) -> Container:
    """The container of an estimator's job; raises TrainingException."""
    try:
        return describing.describe(image, shm_size, names=("custom_docker_image", "shm_size"))
    except ConfigError as error:
        raise TrainingException(str(error)) from None


def script_source(container: Container | None, *arguments: Any, **settings: Any) -> ScriptSource:
    """A source whose script runs in a container, or on the machine itself."""
    source = ScriptSource(*arguments, **settings)
    return source if container is None else replace(source, container=container)


_SETTINGS = (
    "min_node_count",
    "max_restarts",
    "relay",
    "rank_metrics",
    "checkpoint_signal",
    "checkpoint_lead_seconds",
    "start_timeout_seconds",
    "max_retries",
    "retry_exit_codes",
    "resume_from",
    "after",
    "prepare_on",
    "grace_period_seconds",
    "shared_filesystem",
    "upgrade_environment",
)


def settings(given: object) -> dict[str, Any]:
    """Keys of the backend config for which the description has no parameter of its own; raises TrainingException."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TrainingException(f"backend_config is {given!r}; it must be a dict")
    for name in given:
        if name == "dry_run":
            raise TrainingException("backend_config: dry_run is Experiment.plan(...) here, which submits nothing")
        if name not in _SETTINGS:
            raise TrainingException(f"backend_config has {name!r}; it may have: {', '.join(_SETTINGS)}")
    try:
        config = read_config(given, whole=False)
    except ConfigError as error:
        raise TrainingException(f"backend_config: {error}") from None
    return {name: getattr(config, name) for name in config.given}


def duration(name: str, value: object) -> float | None:
    """Seconds above 0, or None."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and 0 < float(str(value)) < float("inf")):
        raise TrainingException(f"{name} is {value!r}; it must be a number of seconds above 0")
    return None if value is None else float(str(value))


def named_inputs(given: object) -> tuple[DataInput, ...]:
    """Inputs from a list of paths, URIs and ``DataInput``, or from a dict of them by name."""
    if given is None:
        return ()
    if isinstance(given, Mapping):
        return _distinct(tuple(_input(item, str(name)) for name, item in given.items()))
    if isinstance(given, (str, os.PathLike, DataInput)) or not isinstance(given, Sequence):
        raise TrainingException(f"inputs is {given!r}; it must be a list or a dict")
    return _distinct(tuple(_input(item, None) for item in given))


def _distinct(inputs: tuple[DataInput, ...]) -> tuple[DataInput, ...]:
    known: dict[str, str] = {}
    for number, item in enumerate(inputs):
        name = input_name(item, number)
        variable = input_variable(name)
        if known.get(variable) == name:
            raise TrainingException(f"two inputs are called {name!r}")
        if variable in known:
            raise TrainingException(
                f"the inputs {known[variable]!r} and {name!r} would share the variable {variable}: rename one"
            )
        known[variable] = name
    return inputs


def _input(item: object, name: str | None) -> DataInput:
    try:
        if isinstance(item, DataInput):
            return DataInput(item.uri, item.name if name is None else name, item.mode)
        if isinstance(item, (str, os.PathLike)):
            return DataInput(item, name)
    except ProjectError as error:
        raise TrainingException(str(error)) from None
    kind = type(item).__name__
    raise TrainingException(f"an input is a {kind}; it must be a path, an artifact URI or a DataInput")


def parameters_of(words: Sequence[Word]) -> dict[str, str]:
    """The ``--name value`` pairs of an argument list, for the run's page; of an option given twice, the last."""
    result: dict[str, str] = {}
    names: dict[str, str] = {}
    for index, item in enumerate(words):
        if not isinstance(item, str) or not item.startswith("-") or _is_number(item):
            continue
        option, equals, value = item.partition("=")
        following = words[index + 1] if index + 1 < len(words) else ""
        if not equals:
            value = shown(following) if not _is_option(following) else ""
        if option.lstrip("-"):
            name = names.setdefault(option, _free_name(option, result))
            result[name] = value
    return result


def _free_name(option: str, taken: Mapping[str, str]) -> str:
    """A name that MLflow takes and that no other option has: ``-x`` and ``--x`` are two."""
    legal = legalnames.nearest(option.lstrip("-"))
    return legal if legal not in taken else legalnames.distinct(option)


def shown(item: Word) -> str:
    """An argument for people."""
    return os.fspath(item.uri) if isinstance(item, DataInput) else item


def _is_option(item: Word) -> bool:
    return isinstance(item, str) and item.startswith("-") and not _is_number(item)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


EnvironmentReader = Callable[[Path], EnvironmentSpec]
