"""What of this machine a container sees, at the same paths as outside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.spec import Container


def with_paths(container: Container, paths: Iterable[str]) -> Container:
    """Mount files and folders of this machine where they are."""
    known = [path for path in dict.fromkeys(paths) if path.startswith("/") and Path(path).exists()]
    return replace(container, volumes=tuple(dict.fromkeys((*container.volumes, *map(_in_place, known)))))


def with_stores(container: Container, artifact_location: str, *store_uris: str) -> Container:
    """Mount what of an experiment's stores lies on this machine; servers are reached through the machine's network."""
    folders = [_local(artifact_location)]
    for uri in store_uris:
        path = _local(uri)
        # A database needs its folder as well, for its journal.
        folders.append(path.parent if path is not None and uri.startswith("sqlite:") else path)
    local = [folder for folder in folders if folder is not None]
    try:
        for folder in local:
            folder.mkdir(parents=True, exist_ok=True)  # docker would make it, as root
    except OSError as error:
        raise ConfigError(f"cannot create {error.filename} for the job's artifacts: {error.strerror}") from error
    return with_paths(container, map(str, local))


def _local(uri: str) -> Path | None:
    """The path of a store on this machine."""
    parts = urlsplit(uri)
    if parts.scheme not in {"", "file", "sqlite"} or parts.netloc:
        return None
    path = Path(parts.path[1:] if parts.scheme == "sqlite" else unquote(parts.path))
    return path if path.is_absolute() else None


def _in_place(path: str) -> str:
    if ":" in path:
        raise ConfigError(f"{path!r} cannot be mounted in a container, for the colon in it: rename it")
    return f"{path}:{path}"
