"""Make a private working copy of a snapshot; standard library only, nodes run this before anything else."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.snapshots import tree
from mlflow_pytorch_estimator.snapshots.copying import copy
from mlflow_pytorch_estimator.snapshots.packs import DamagedError, read_index
from mlflow_pytorch_estimator.snapshots.store import Store

T = TypeVar("T")


def restore(store: Path, digest: str, target: Path) -> None:
    """Copy a snapshot to ``target``, which must not exist and appears when it is whole.

    The copy shares no data with the store that a job could write through.
    """
    if os.path.lexists(target):
        raise ProjectError(f"cannot restore snapshot {digest} to {target}: it exists already; remove it")
    place = Store(store)
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with place.in_use():
            _fill(place, digest, unfinished)
        unfinished.rename(target)
    except DamagedError as error:
        raise ProjectError(
            f"snapshot {digest} is damaged or was removed from {store} ({error}); submit the job again"
        ) from error
    except OSError as error:
        raise ProjectError(
            f"cannot restore snapshot {digest} from {store} to {target}: {error.strerror}; "
            "free space there or correct the permissions, and submit the job again"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _fill(store: Store, digest: str, target: Path) -> None:
    content = _intact(store.trees / digest, tree.read)
    target.mkdir(mode=0o700)
    for folder in content.folders:
        os.mkdir(f"{target}/{folder}")  # noqa: PTH102 - paths cost as much as the call
    packed = _Packed(store, content.packs)
    try:
        for file, mtime in zip(content.files, content.mtimes, strict=True):
            _restore_file(store, packed, file, mtime, f"{target}/{file.path}")
    finally:
        packed.close()
    for path, text in content.links.items():
        os.symlink(text, f"{target}/{path}")  # noqa: PTH211 - paths cost as much as the call


def _intact(path: Path, read: Callable[[Path], T]) -> T:
    """Read a file of the store; a damaged one is removed, so that the next submission stores it again."""
    try:
        return read(path)
    except FileNotFoundError as error:
        raise DamagedError(f"{path.name} is missing") from error
    except DamagedError:
        path.unlink(missing_ok=True)
        raise


class _Packed:
    """The contents that lie in packs."""

    def __init__(self, store: Store, packs: list[str]) -> None:
        self._paths = [store.packs / name for name in packs]
        self._places: dict[str, tuple[int, int, int]] = {}
        self._files = []
        for number, path in enumerate(self._paths):
            index = _intact(path, read_index)
            self._places.update({digest: (number, *place) for digest, place in index.items()})
            self._files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def read(self, digest: str) -> bytes | None:
        """The content, or None when it lies in a file of its own."""
        if digest not in self._places:
            return None
        number, offset, size = self._places[digest]
        data = os.pread(self._files[number], size, offset)
        if hashlib.sha256(data).hexdigest() != digest:
            self._paths[number].unlink(missing_ok=True)
            raise DamagedError(f"pack {self._paths[number].name} does not hold what it should")
        return data

    def close(self) -> None:
        """Close the packs."""
        for file in self._files:
            os.close(file)


def _restore_file(store: Store, packed: _Packed, file: tree.File, mtime: int, path: str) -> None:
    data = packed.read(file.digest)
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if data is None:
            _copy_object(store.object(file.digest), file, target)
        else:
            _write_all(target, data)
        os.fchmod(target, file.mode)
        os.utime(target, ns=(mtime, mtime))
    finally:
        os.close(target)


def _write_all(target: int, data: bytes) -> None:
    written = os.write(target, data)
    if written < len(data):
        _write_all(target, data[written:])


def _copy_object(path: Path, file: tree.File, target: int) -> None:
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise DamagedError(f"the content of {file.path!r} is missing") from error
    try:
        if os.fstat(source).st_size != file.size:
            path.unlink(missing_ok=True)
            raise DamagedError(f"the content of {file.path!r} has the wrong size")
        copy(source, target)
    finally:
        os.close(source)
