"""Take a snapshot of a project."""

from __future__ import annotations

import heapq
import logging
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.snapshots.blobs import Blobs
from mlflow_pytorch_estimator.snapshots.index import Index, Key, Summary, is_settled, key_of, signature
from mlflow_pytorch_estimator.snapshots.store import Store
from mlflow_pytorch_estimator.snapshots.tree import File, Tree
from mlflow_pytorch_estimator.snapshots.walk import Found, unreadable, walk

WARNING_BYTES = 300 * 10**6
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """A stored state of a project; ``reused`` says that this very state was stored before."""

    digest: str
    files: int
    bytes: int
    reused: bool


def take(project: Path, store: Path, subdirectory: str = "") -> Snapshot:
    """Store the sources of a project, without version control, caches, old results and what ignore files name.

    ``store`` is the folder ``snapshots`` of our home. Old results may lie in ``subdirectory``, where the project works.
    """
    try:
        top = project.resolve(strict=True)
        began = time.time_ns()
        found = walk(top, store.parent, subdirectory)
        _warn_if_large(found)
        place = Store(store)
        place.create()
        with place.in_use():
            index = Index(place, top)
            seen = signature(found)
            return _reused(place, index.unchanged(seen)) or _Taker(place, top, found, began).run(index, seen)
    except OSError as error:
        raise ProjectError(
            f"cannot store a snapshot of {project} in {store}: {error.strerror}; free space there, "
            "set GPU_CLUSTER_HOME to another disk, or name large files in .amlignore"
        ) from error


def _reused(store: Store, last: Summary | None) -> Snapshot | None:
    if last is None:
        return None
    try:
        os.utime(store.trees / last.digest)  # what is in use must not look old to ``prune``
    except FileNotFoundError:
        return None
    return Snapshot(last.digest, last.files, last.bytes, reused=True)


def _warn_if_large(found: Found) -> None:
    total = sum([stats.st_size for stats in found.files.values()])
    if total > WARNING_BYTES:
        largest = heapq.nlargest(5, found.files.items(), key=lambda item: item[1].st_size)
        names = ", ".join(f"{path!r} ({stats.st_size / 10**6:.0f} MB)" for path, stats in largest)
        _logger.warning(
            "the project has %.0f MB; the largest files are %s. What the job does not need can be named in "
            ".amlignore or .gitignore",
            total / 10**6,
            names,
        )


class _Taker:
    """Reads what is new and writes the tree."""

    def __init__(self, store: Store, top: Path, found: Found, began: int) -> None:
        self._store = store
        self._top = top
        self._found = found
        self._began = began
        self._blobs = Blobs(store)
        self._files: dict[str, tuple[File, int]] = {}
        self._known: dict[str, tuple[Key, str]] = {}
        self._settled = True

    def run(self, index: Index, seen: str) -> Snapshot:
        """Take the snapshot and remember it."""
        for path in self._keep_known(index.digests()):
            self._read(path)
        self._blobs.finish()
        files = [self._files[path] for path in self._found.files if path in self._files]
        packs, needs = self._blobs.places({file.digest: file.size for file, _ in files})
        links = {path: text for path in self._found.links if (text := self._link(path)) is not None}
        tree = Tree(list(self._found.folders), links, [file for file, _ in files], [time for _, time in files], packs)
        digest, text = tree.encode()
        reused = (self._store.trees / digest).exists()
        self._store.write(self._store.trees / digest, text)
        total = sum(file.size for file, _ in files)
        index.save(
            Summary(str(self._top), seen if self._settled else None, digest, len(files), total, needs), self._known
        )
        return Snapshot(digest, len(files), total, reused)

    def _keep_known(self, known: dict[str, tuple[Key, str]]) -> list[str]:
        """Take over what has not changed; returns the paths that must be read."""
        changed = []
        for path, stats in self._found.files.items():
            key = key_of(stats)
            then, digest = known.get(path, (None, ""))
            if then == key and self._blobs.has(digest, stats.st_size):
                self._known[path] = key, digest
                self._files[path] = _file(path, stats, stats.st_size, digest), stats.st_mtime_ns
            else:
                changed.append(path)
        return changed

    def _read(self, path: str) -> None:
        stored = self._blobs.add(self._top, path)
        if stored is None:
            self._settled = False
            return
        stats, size, digest = stored
        self._files[path] = _file(path, stats, size, digest), stats.st_mtime_ns
        key = key_of(stats)
        if is_settled(stats, self._began) and size == stats.st_size and key == key_of(self._found.files[path]):
            self._known[path] = key, digest
        else:
            self._settled = False

    def _link(self, path: str) -> str | None:
        """The text of a link; one that leaves the project becomes absolute, to go on leading where it led."""
        link = self._top / path
        try:
            text = os.readlink(link)  # noqa: PTH115 - the text, not a path
        except FileNotFoundError:
            self._settled = False
            return None
        except OSError as error:
            raise unreadable(path, error) from error
        self._settled = self._settled and is_settled(self._found.links[path], self._began)
        destination = Path(os.path.normpath(link.parent / text))
        return text if os.path.isabs(text) or destination.is_relative_to(self._top) else str(destination)  # noqa: PTH117


def _file(path: str, stats: os.stat_result, size: int, digest: str) -> File:
    return File(path, stat.S_IMODE(stats.st_mode) & 0o777, size, digest)
