"""Outputs into an artifact store that is a folder: by the kernel, and without moving data where it can be shared.

MLflow copies file after file through Python. What is stored here is the same: independent files with the modes and
times of the originals.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow_pytorch_estimator.files import walk
from mlflow_pytorch_estimator.snapshots import copying

_THREADS = 4  # making a file waits for the file system


def folder_of(artifact_uri: str) -> Path | None:
    """The folder in which a run's artifacts are; None for any other kind of store."""
    parts = urlsplit(artifact_uri)
    if parts.scheme == "" and artifact_uri.startswith("/"):
        return Path(artifact_uri)
    plain = parts.scheme == "file" and parts.netloc in {"", "localhost"} and not parts.query and not parts.fragment
    return Path(unquote(parts.path)) if plain else None


def copy_tree(tree: Path, target: Path, stored: Callable[[int], None] = lambda size: None) -> None:
    """Copy a folder without links into another, over what has the same name there; raises OSError.

    ``stored`` hears of each file's size, in several threads.
    """
    target.mkdir(parents=True, exist_ok=True)
    files, turn = _files(str(tree), str(target)), threading.Lock()
    errors: list[OSError] = []

    def work() -> None:
        while True:
            with turn:
                pair = next(files, None)
            if pair is None:
                return
            try:
                stored(_copy(*pair))
            except OSError as error:  # the others are stored all the same
                if not errors:
                    errors.append(error)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="outputs") as pool:
        for worker in [pool.submit(work) for _ in range(_THREADS)]:
            worker.result()
    if errors:
        raise errors[0]


def _files(tree: str, target: str) -> Iterator[tuple[str, str]]:
    """Each file with the path of its copy, whose folder is there by then."""
    for entry in walk(tree):
        copy = f"{target}{entry.path[len(tree) :]}"
        if entry.is_dir(follow_symlinks=False):
            os.makedirs(copy, exist_ok=True)  # noqa: PTH103 - thousands of them
        else:
            yield entry.path, copy


def _copy(original: str, copy: str) -> int:
    """Returns the size."""
    source = os.open(original, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{original} is no regular file")
        target = _new(copy, stat.S_IMODE(status.st_mode))
        try:
            copying.copy(source, target)
            os.fchmod(target, stat.S_IMODE(status.st_mode))
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(target)
    finally:
        os.close(source)
    return status.st_size


def _new(path: str, mode: int) -> int:
    """A new file, in the place of one that is there: that may be the original by another name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)  # noqa: PTH108 - a text already
        return os.open(path, flags, mode)
