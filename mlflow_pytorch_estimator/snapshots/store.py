"""The store on disk, and the lock that keeps ``prune`` away from whoever takes or restores.

    trees/DIGEST      a list of files, see ``tree``        objects/AB/CDEF...   one file, see ``blobs``
    packs/DIGEST      many small files, see ``packs``      indexes/KEY          one for each project, see ``index``
    unfinished/       removed when nobody works here       lock   naming.lock

A file gets its name when it is whole, so every name can be trusted after a kill. Nothing is synced, for that would
cost more than the copy: sizes are checked before data is used again, so a power failure costs a second copy at most.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow_pytorch_estimator.files import private_folder


class Store:
    """Where everything lies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trees = path / "trees"
        self.objects = path / "objects"
        self.packs = path / "packs"
        self.indexes = path / "indexes"
        self.unfinished = path / "unfinished"
        self._lock = path / "lock"
        self._naming_lock = path / "naming.lock"

    @staticmethod
    def object_name(digest: str) -> str:
        """Where in the store the content with this digest lies, if it is not in a pack."""
        return f"objects/{digest[:2]}/{digest[2:]}"

    def object(self, digest: str) -> Path:
        """The path of the content with this digest, if it is not in a pack."""
        return self.path / self.object_name(digest)

    def create(self) -> None:
        """Make the folders."""
        private_folder(self.path)
        for folder in (self.trees, self.objects, self.packs, self.indexes, self.unfinished):
            folder.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep others from removing anything meanwhile."""
        with _locked(self._lock, fcntl.LOCK_SH):
            yield

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Keep others from storing large files meanwhile, or two could store the same one twice."""
        with _locked(self._naming_lock, fcntl.LOCK_EX):
            yield

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody else works here; if so, nobody can begin to until the end of the block."""
        try:
            with _locked(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
                yield True
        except BlockingIOError:
            yield False

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """A path for a new file; what has not been moved away from it at the end is removed."""
        path = self.unfinished / secrets.token_hex(8)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def write(self, path: Path, text: str) -> None:
        """Write a file so that a reader sees the old content or the new."""
        with self.writing() as temporary:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def size_of(path: Path | str) -> int | None:
    """The size of a file, or None when there is none."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - asked thousands of times
    except FileNotFoundError:
        return None
