"""What a project looked like when it was last taken, so that unchanged files are not read again.

Two lines of JSON: the first is enough to see that nothing has changed, the second holds the digest of each file.
A file that was changed shortly before it was read is left out, as a second change in the same tick of the file
system's clock would not show.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from array import array
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mlflow_pytorch_estimator.snapshots.store import Store, size_of
from mlflow_pytorch_estimator.snapshots.walk import Found

_FORMAT = 1
# Coarse clocks tick every 2 s at worst (FAT, old NFS servers), and a server's clock may be a little behind ours.
SETTLED_NS = 3_000_000_000

Key = tuple[int, int, int, int, int]


def key_of(stats: os.stat_result) -> Key:
    """What changes when a file does."""
    return stats.st_size, stats.st_mtime_ns, stats.st_ctime_ns, stats.st_ino, stats.st_mode


def is_settled(stats: os.stat_result, now_ns: int) -> bool:
    """Whether any later change must show in the times of the file."""
    return max(stats.st_ctime_ns, stats.st_mtime_ns) < now_ns - SETTLED_NS


def signature(found: Found) -> str:
    """A digest of all that a walk saw."""
    seen = [*found.files.values(), *found.links.values()]
    hasher = hashlib.sha256("\0".join((*found.folders, "", *found.files, "", *found.links)).encode(errors="replace"))
    for column in (
        [stats.st_size for stats in seen],
        [stats.st_mtime_ns for stats in seen],
        [stats.st_ctime_ns for stats in seen],
        [stats.st_mode for stats in seen],
    ):
        hasher.update(array("q", column).tobytes())
    hasher.update(array("Q", [stats.st_ino for stats in seen]).tobytes())
    return hasher.hexdigest()


@dataclass(frozen=True)
class Summary:
    """The first line."""

    project: str
    signature: str | None
    """None when a file was too young to be sure."""
    digest: str
    files: int
    bytes: int
    needs: dict[str, int] = field(default_factory=dict)
    """Path in the store -> size, of all that the tree's contents lie in."""
    format: int = _FORMAT


class Index:
    """The index of one project; it may be missing."""

    def __init__(self, store: Store, top: Path) -> None:
        self._store = store
        self._path = store.indexes / hashlib.sha256(os.fsencode(top)).hexdigest()
        self.summary: Summary | None = None
        self._files = b""
        # An index of another version or without its end is as good as none.
        with contextlib.suppress(OSError, ValueError, TypeError):
            first, _, self._files = self._path.read_bytes().partition(b"\n")
            summary = Summary(**json.loads(first))
            self.summary = summary if summary.format == _FORMAT else None

    def unchanged(self, found: str) -> Summary | None:
        """The last snapshot, if a walk with this signature has found the same and the store still has all of it."""
        last = self.summary
        if last is None or last.signature != found:
            return None
        if any(size_of(f"{self._store.path}/{name}") != size for name, size in last.needs.items()):
            return None
        return last

    def digests(self) -> dict[str, tuple[Key, str]]:
        """What is known of each file: its state and its digest."""
        if self.summary is None:
            return {}
        try:
            raw = json.loads(self._files)
            keys = zip(*[iter(raw["keys"])] * 5, strict=True)
            return dict(zip(raw["paths"], zip(keys, raw["digests"], strict=True), strict=True))
        except (ValueError, KeyError):
            return {}

    def save(self, summary: Summary, known: dict[str, tuple[Key, str]]) -> None:
        """Replace the index."""
        files = {
            "paths": list(known),
            "keys": [number for key, _ in known.values() for number in key],
            "digests": [digest for _, digest in known.values()],
        }
        self._store.write(self._path, f"{json.dumps(asdict(summary))}\n{json.dumps(files)}\n")
