"""Which entries of a folder that a job has filled may be published: plain files, and links to those among them."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from mlflow_pytorch_estimator.files import walk

_NAMED = 5


def is_plain(tree: Path) -> bool:
    """Whether there are folders and readable files only, so that the tree may be published as it is."""
    return all(_is_plain_file(path, os.lstat(path).st_mode) for path in _entries(str(tree)))


def collect(tree: Path, target: Path, since: float = 0.0) -> list[str]:
    """Link what may be published below another folder; says what may not, and why.

    A link could lead anywhere: what it points to outside of the tree is not the job's to publish. A pipe would block
    whoever reads it, a device may never end. Files that were last changed before ``since`` (Unix seconds) are passed
    over without a word.
    """
    inside = os.path.realpath(tree)
    left = []
    for path in _entries(str(tree)):
        real, mode = path, os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            real = os.path.realpath(path)  # of a loop it is a link still
            try:
                mode = os.lstat(real).st_mode
            except OSError:
                mode = 0
        found = os.path.relpath(path, tree)
        if not real.startswith(f"{inside}/") and real != path:
            left.append(f"{found!r} (leads out of it)")
        elif not _is_plain_file(real, mode):
            left.append(f"{found!r} ({_kind(mode)})")
        elif os.lstat(real).st_mtime >= since:
            link(real, target / found)
    return left


def told(left: list[str]) -> str:
    """For people, in one line."""
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    return f"left out: {', '.join(left[:_NAMED])}{more}"


def _entries(tree: str) -> Iterator[str]:
    """All but folders that may be read."""
    for entry in walk(tree, _may_be_entered):
        if not (entry.is_dir(follow_symlinks=False) and _may_be_entered(entry)):
            yield entry.path


def _may_be_entered(folder: os.DirEntry[str]) -> bool:
    return os.access(folder.path, os.R_OK | os.X_OK)


def _is_plain_file(path: str, mode: int) -> bool:
    return stat.S_ISREG(mode) and os.access(path, os.R_OK)


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return "cannot be read"
    return "a link that leads nowhere" if stat.S_ISLNK(mode) or not mode else "no file"


def link(real: str, copy: Path) -> None:
    """The same file under another name; a copy where that cannot be."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(real, copy)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK}:
            raise
        shutil.copyfile(real, copy)
