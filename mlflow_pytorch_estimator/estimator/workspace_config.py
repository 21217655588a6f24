"""``config.json``: found, read, checked and written."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow

from mlflow_pytorch_estimator import jobdir
from mlflow_pytorch_estimator.estimator.exceptions import WorkspaceException
from mlflow_pytorch_estimator.files import private_folder, write_atomic
from mlflow_pytorch_estimator.schedulers import SCHEDULERS
from mlflow_pytorch_estimator.tracking import Stores, absolute, without_credentials

_FOLDERS = (".azureml", "aml_config", ".")
_FOREIGN = ("subscription_id", "resource_group")
_TELLING = ("workspace_name", "tracking_uri", "registry_uri", "home")  # files of other tools have a "scheduler", too
_OWN = (*_TELLING, "scheduler", "scheduler_options")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,62}")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkspaceConfig:
    """What a ``config.json`` says, complete."""

    name: str
    stores: Stores
    home: Path | None
    foreign: Mapping[str, str] = field(default_factory=dict)
    """What an old file says beside that; it names nothing here."""
    scheduler: str = "local"
    scheduler_options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def checked(cls, data: Mapping[str, Any], folder: Path, where: str = "Workspace") -> WorkspaceConfig:
        """From the keys of the file; relative paths start at ``folder``. Raises WorkspaceException."""
        _check_keys(data, where)
        tell_of_foreign(data)
        tracking = data.get("tracking_uri")
        tracking_uri = _anchored(tracking, folder) if tracking else absolute(mlflow.get_tracking_uri())
        registry = data.get("registry_uri")
        if registry:
            registry_uri = _anchored(registry, folder)
        else:
            registry_uri = tracking_uri if tracking else absolute(mlflow.get_registry_uri())
        home = data.get("home")
        name = data.get("workspace_name") or "local"
        if not _NAME.fullmatch(name):
            raise WorkspaceException(f"{where}: {name!r} cannot name a workspace: use letters, digits, -, _ and .")
        foreign = {key: data[key] for key in _FOREIGN if data.get(key)}
        return cls(
            name,
            Stores(tracking_uri, registry_uri),
            folder / Path(home).expanduser() if home else None,
            foreign,
            data.get("scheduler") or "local",
            data.get("scheduler_options") or {},
        )


def locate(path: str | os.PathLike[str] | None) -> Path | None:
    """The file that counts; raises WorkspaceException when ``path`` is given and has none."""
    if path is not None:
        start = Path(path).expanduser().absolute()
        if start.is_file():
            return start
        found = next(iter(_in(start)), None)
        if found is None:
            raise WorkspaceException(
                f"there is no config.json at {os.fspath(path)!r}, in its .azureml/ or in its aml_config/: "
                "Workspace.write_config makes one"
            )
        return found
    here = Path.cwd()
    for folder in (here, *here.parents):
        for file in _in(folder):
            if _is_ours(file):
                return file
            _logger.info("passed over %s: it is not that of a workspace", file)
    return None


def read(path: Path) -> WorkspaceConfig:
    """Read and check a file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows begin with a mark
    except OSError as error:
        raise WorkspaceException(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise WorkspaceException(f"{path} is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise WorkspaceException(f"{path} must hold a JSON object, not {type(data).__name__}")
    folder = path.parent.parent if path.parent.name in _FOLDERS else path.parent
    return WorkspaceConfig.checked(data, folder, str(path))


def write(path: Path, config: WorkspaceConfig) -> None:
    """Write a private file without any password."""
    uris = {"tracking_uri": config.stores.tracking_uri, "registry_uri": config.stores.registry_uri}
    clean = {key: without_credentials(uri) for key, uri in uris.items()}
    if clean != uris:
        _logger.warning("%s: user and password are left out; set MLFLOW_TRACKING_USERNAME and _PASSWORD", path)
    data = {
        **config.foreign,
        "workspace_name": config.name,
        **clean,
        **({"home": str(config.home)} if config.home else {}),
        **({"scheduler": config.scheduler} if config.scheduler != "local" else {}),
        **({"scheduler_options": dict(config.scheduler_options)} if config.scheduler_options else {}),
    }
    try:
        private_folder(path.parent)
        write_atomic(path, json.dumps(data, indent=2) + "\n")
    except OSError as error:
        raise WorkspaceException(f"cannot write {path}: {error.strerror}") from None


def named(name: str) -> Path:
    """Where ``Workspace.create`` keeps a name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise WorkspaceException(f"{name!r} cannot name a workspace: use letters, digits, -, _ and .")
    return jobdir.home() / "workspaces" / f"{name}.json"


def every_named() -> Iterable[Path]:
    """All files of ``named``."""
    return sorted((jobdir.home() / "workspaces").glob("*.json"))


def tell_of_foreign(data: Mapping[str, Any]) -> None:
    """Say that the original's keys name nothing here."""
    given = [key for key in _FOREIGN if data.get(key)]
    if given:
        _logger.info("%s: names of the original; here the workspace is an MLflow store", ", ".join(given))


def _in(folder: Path) -> Iterator[Path]:
    return (file for name in _FOLDERS if (file := folder / name / "config.json").is_file())


def _is_ours(file: Path) -> bool:
    # The name is a common one: models and other tools have a config.json as well.
    try:
        data = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return file.parent.name in _FOLDERS
    return file.parent.name in _FOLDERS or (isinstance(data, dict) and bool({*_TELLING, *_FOREIGN} & set(data)))


def _check_keys(data: Mapping[str, Any], where: str) -> None:
    for key, value in data.items():
        if key not in {*_OWN, *_FOREIGN}:
            close = difflib.get_close_matches(str(key), _OWN, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"valid keys are {', '.join(_OWN)}"
            raise WorkspaceException(f"{where}: unknown key {key!r}; {hint}")
        if key == "scheduler_options":
            _check_options(value, where)
        elif value is not None and (not isinstance(value, str) or "\0" in value):
            raise WorkspaceException(f"{where}: {key} is {value!r}; it must be text")
    scheduler = data.get("scheduler")
    if scheduler and scheduler not in SCHEDULERS:
        raise WorkspaceException(f"{where}: scheduler is {scheduler!r}; there is {', '.join(sorted(SCHEDULERS))}")


def _check_options(options: object, where: str) -> None:
    if options is not None and not isinstance(options, Mapping):
        raise WorkspaceException(
            f'{where}: scheduler_options is {options!r}; it must be an object such as {{"partition": "gpu"}}'
        )
    for name, value in (options or {}).items():
        if not isinstance(name, str) or not isinstance(value, (str, int, float)):
            raise WorkspaceException(f"{where}: scheduler_options: {name!r} is {value!r}; it must be text or a number")


def _anchored(uri: str, folder: Path) -> str:
    """A relative SQLite file or path starts at the folder of the file that names it."""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{(folder / uri.removeprefix('sqlite:///')).absolute()}"
    if "://" not in uri and not uri.startswith(("databricks", "file:")):
        return str((folder / uri).absolute())
    return uri
