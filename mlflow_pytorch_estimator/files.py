"""Files that are whole or absent, and folders however full."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def write_atomic(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file so that a reader sees the old content or the new, also after a crash; private unless said."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def private_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, for this user alone whatever the umask."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)


def walk(tree: str, enter: Callable[[os.DirEntry[str]], bool] = lambda folder: True) -> Iterator[os.DirEntry[str]]:
    """All entries below a folder, a folder before what is in it; links are not followed. Raises OSError.

    One at a time: a job may leave more of them than there is memory for. ``enter`` says which folders are looked into.
    """
    folders = [tree]
    while folders:
        with os.scandir(folders.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False) and enter(entry):
                    folders.append(entry.path)
                yield entry


def read_json(path: Path) -> Any | None:
    """The content of a JSON file, or None when there is none yet."""
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except FileNotFoundError:
        return None
