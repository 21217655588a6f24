"""The temporary folder for files of runs and models that exist in this process only."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from pathlib import Path

_lock = threading.Lock()
_folder: tuple[int, Path] | None = None
_stored: dict[str, str] = {}


def folder(*parts: str) -> Path:
    """A folder below the temporary one, which is made at the first call and removed when the process ends."""
    global _folder  # noqa: PLW0603 - one a process
    with _lock:
        if _folder is None:
            _folder = os.getpid(), Path(tempfile.mkdtemp(prefix="gpu-cluster-rank-"))
    path = _folder[1].joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def stand_in(stored: str, *parts: str) -> str:
    """A folder that stands for the place ``stored``: writes end here, reads go there."""
    path = str(folder(*parts))
    _stored[path] = stored
    return path


def stored_elsewhere(uri: str) -> str | None:
    """The place that a folder, or a path below it, stands for."""
    if not _stored:
        return None
    path = uri.removeprefix("file://")
    for root, stored in _stored.items():
        if path == root or path.startswith(f"{root}/"):
            from mlflow.utils.uri import append_to_uri_path

            return append_to_uri_path(stored, path[len(root) + 1 :]) if path != root else stored
    return None


def remove() -> None:
    """Remove the folder, in the process that has made it; a forked child leaves it alone."""
    if _folder is not None and _folder[0] == os.getpid():
        shutil.rmtree(_folder[1], ignore_errors=True)
