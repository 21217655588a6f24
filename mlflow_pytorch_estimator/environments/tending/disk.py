"""What folders take on a disk, where one file may have names in several of them."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_BLOCK = 512


@dataclass(frozen=True)
class Linked:
    """A file that has a name elsewhere as well."""

    size: int
    names: int
    """How many of its names are in the folder."""
    links: int
    """How many it has in all."""


@dataclass(frozen=True)
class Usage:
    """Bytes on the disk of a folder, or of several; a file with several names counts once."""

    alone: int = 0
    """Files without a name elsewhere: what removing it frees."""
    shared: Mapping[tuple[int, int], Linked] = field(default_factory=dict)
    """Device and number -> file that uv's cache or another environment has as well."""

    @property
    def size(self) -> int:
        """All that is there."""
        return self.alone + sum(file.size for file in self.shared.values())


def usage(folder: Path) -> Usage:
    """Look at every file; what vanishes meanwhile or may not be read does not count."""
    alone = 0
    names: dict[tuple[int, int], int] = {}
    files: dict[tuple[int, int], os.stat_result] = {}
    for status in _walk(str(folder)):
        if status.st_nlink == 1:
            alone += status.st_blocks * _BLOCK
            continue
        inode = (status.st_dev, status.st_ino)
        names[inode] = names.get(inode, 0) + 1
        files[inode] = status
    linked = {
        inode: Linked(status.st_blocks * _BLOCK, names[inode], status.st_nlink) for inode, status in files.items()
    }
    return joined([Usage(alone, linked)])


def joined(usages: Iterable[Usage]) -> Usage:
    """Return what several folders take together, and what removing all of them frees."""
    alone = 0
    files: dict[tuple[int, int], Linked] = {}
    for item in usages:
        alone += item.alone
        for inode, file in item.shared.items():
            seen = files[inode].names if inode in files else 0
            files[inode] = Linked(file.size, seen + file.names, file.links)
    elsewhere = {inode: file for inode, file in files.items() if file.names < file.links}
    alone += sum(file.size for inode, file in files.items() if inode not in elsewhere)
    return Usage(alone, elsewhere)


def _walk(folder: str) -> Iterator[os.stat_result]:
    """Yield the status of all that is not a folder."""
    pending = [folder]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    continue
                with contextlib.suppress(FileNotFoundError):
                    yield entry.stat(follow_symlinks=False)
