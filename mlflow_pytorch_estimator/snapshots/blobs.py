"""How contents get into the store: small ones into packs, large ones copied by the kernel.

The digest of a small content is its SHA-256. A large one is not hashed, which would take twice the time of its copy,
and much more where a file system or file server copies by sharing. It is recognised by its size and samples, and
compared byte by byte with what it may be equal to; its digest is that of the samples and a random part, so the digest
of one content never becomes that of another, also after a ``prune``.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from pathlib import Path

from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.snapshots import packs
from mlflow_pytorch_estimator.snapshots.copying import copy
from mlflow_pytorch_estimator.snapshots.store import Store, size_of
from mlflow_pytorch_estimator.snapshots.walk import unreadable

SMALL_BYTES = 256 * 2**10
_PACKED_FROM = 64  # fewer small files than this are stored singly, or each edit would leave a pack behind
_PACK_BYTES = 64 * 2**20  # bounds memory, and what stays because a single file of a pack is still needed
_SAMPLES, _SAMPLE_BYTES = 32, 4096
_CHUNK_BYTES = 2**20


class Blobs:
    """The contents in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pack_of: dict[str, str] = {}
        self._collected: dict[str, bytes] = {}
        self._collected_bytes = 0
        for path in store.packs.iterdir():
            try:
                self._pack_of.update(dict.fromkeys(packs.read_index(path), path.name))
            except packs.DamagedError:
                path.unlink(missing_ok=True)
            except FileNotFoundError:
                continue  # found to be damaged by somebody else

    def has(self, digest: str, size: int) -> bool:
        """Whether the content is there already."""
        if digest in self._pack_of or digest in self._collected:
            return True
        return size_of(f"{self._store.path}/{self._store.object_name(digest)}") == size

    def places(self, digests: dict[str, int]) -> tuple[list[str], dict[str, int]]:
        """Where contents (digest -> size) lie: the packs, and the files of the store with their sizes."""
        names = sorted({self._pack_of[digest] for digest in digests if digest in self._pack_of})
        needs = {f"packs/{name}": size_of(self._store.packs / name) or 0 for name in names}
        for digest, size in digests.items():
            if digest not in self._pack_of:
                needs[self._store.object_name(digest)] = size
        return names, needs

    def finish(self) -> None:
        """Write the small contents that are still in memory."""
        if len(self._collected) >= _PACKED_FROM:
            self._write_pack()
        for digest, data in self._collected.items():
            with self._store.writing() as temporary:
                temporary.write_bytes(data)
                self._move(temporary, digest)
        self._collected, self._collected_bytes = {}, 0

    def _write_pack(self) -> None:
        self._pack_of.update(dict.fromkeys(self._collected, packs.write(self._store, self._collected)))
        self._collected, self._collected_bytes = {}, 0

    def add(self, folder: Path, path: str) -> tuple[os.stat_result, int, str] | None:
        """Store a file of the project; returns its state before it was read, its size and digest, or None: gone."""
        source = _open(folder, path)
        if source is None:
            return None
        try:
            stats = os.fstat(source)
            if not stat.S_ISREG(stats.st_mode):
                raise ProjectError(f"{path!r} of the project was replaced while it was read; submit again")
            if stats.st_size > SMALL_BYTES:
                return stats, *self._add_large(source)
            data = _read_small(source, path, stats.st_size)
        finally:
            os.close(source)
        digest = hashlib.sha256(data).hexdigest()
        if not self.has(digest, len(data)):
            self._collect(digest, data)
        return stats, len(data), digest

    def _collect(self, digest: str, data: bytes) -> None:
        self._collected[digest] = data
        self._collected_bytes += len(data)
        if self._collected_bytes >= _PACK_BYTES:
            self._write_pack()

    def _add_large(self, source: int) -> tuple[int, str]:
        """Copy first, then look at the copy only: the project may be edited meanwhile."""
        with self._store.writing() as temporary:
            with temporary.open("w+b", buffering=0) as target:
                copy(source, target.fileno())
                size = os.fstat(target.fileno()).st_size
                samples = _fingerprint(target.fileno(), size)
            with self._store.naming():
                for path in self._store.object(samples).parent.glob(f"{samples[2:]}-*"):
                    if _are_equal(temporary, path):
                        return size, samples[:2] + path.name
                digest = f"{samples}-{secrets.token_hex(4)}"
                self._move(temporary, digest)
        return size, digest

    def _move(self, temporary: Path, digest: str) -> None:
        target = self._store.object(digest)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        temporary.replace(target)


def _open(folder: Path, path: str) -> int | None:
    """Open a file of the project; None when it has gone. Never waits for a pipe, never follows a link."""
    try:
        return os.open(f"{folder}/{path}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error


def _read_small(source: int, path: str, size: int) -> bytes:
    try:
        data = os.read(source, size + 1)
        if len(data) != size:  # it is being written to
            data = os.pread(source, max(os.fstat(source).st_size, size), 0)
    except OSError as error:
        raise unreadable(path, error) from error
    return data


def _fingerprint(file: int, size: int) -> str:
    """A digest of the size and of samples from the beginning to the end."""
    hasher = hashlib.sha256(str(size).encode())
    for number in range(_SAMPLES):
        hasher.update(os.pread(file, _SAMPLE_BYTES, max(size - _SAMPLE_BYTES, 0) * number // (_SAMPLES - 1)))
    return hasher.hexdigest()


def _are_equal(one: Path, other: Path) -> bool:
    if size_of(one) != size_of(other):
        return False
    with one.open("rb", buffering=0) as first, other.open("rb", buffering=0) as second:
        while chunk := first.read(_CHUNK_BYTES):
            if chunk != second.read(_CHUNK_BYTES):
                return False
    return True
