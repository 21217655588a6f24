"""The files of checkpoints in one folder: written whole or not at all, found, read and removed.

``checkpoint-000012-rank0of2-3fa91c0b7d2e8a56.pt`` is what rank 0 of two ranks saved as number 12; the last part is the
digest of its content. A checkpoint is complete when there is such a file of every rank. The names alone say so, hence
all ranks see the same. Each file is torch's own format: ``torch.load(path, weights_only=True)`` opens it anywhere.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import re
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from mlflow_pytorch_estimator.errors import CheckpointError

FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d{6,})-rank(\d+)of(\d+)-([0-9a-f]{16})\.pt")
_CHUNK = 1 << 20


class DamagedError(Exception):
    """The content of a file is not what was written; the message says which file and why."""


@dataclass(frozen=True, order=True)
class Saved:
    """One file: what rank ``rank`` of ``size`` saved as number ``number``."""

    number: int
    rank: int
    size: int
    digest: str
    path: Path


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder that all ranks see. It is made by the first save."""

    path: Path

    def files(self) -> list[Saved]:
        """All files of checkpoints, in order; none if there is no folder."""
        try:
            names = os.listdir(self.path)  # noqa: PTH208 - names are all that is needed
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._failed("read", error) from error
        found = [(name, _NAME.fullmatch(name)) for name in names]
        return sorted(
            Saved(int(match[1]), int(match[2]), int(match[3]), match[4], self.path / name)
            for name, match in found
            if match
        )

    def complete(self) -> list[tuple[Saved, ...]]:
        """The checkpoints of which every rank's file is there, newest first; the place in a tuple is the rank."""
        groups: dict[tuple[int, int], dict[int, Saved]] = defaultdict(dict)
        for saved in self.files():
            groups[saved.number, saved.size][saved.rank] = saved
        return [
            tuple(group[rank] for rank in range(size))
            for (_, size), group in sorted(groups.items(), reverse=True)
            if all(rank in group for rank in range(size))
        ]

    def write(self, number: int, rank: int, size: int, content: dict[str, Any]) -> Path:
        """Write a file that is either complete and on the disk, or not there; return its path."""
        temporary = self.path / f".checkpoint-rank{rank}.tmp"
        try:
            if not self.path.is_dir():
                self.path.mkdir(parents=True, exist_ok=True)
                _sync_folder(self.path.parent)
            digest = _write_synced(temporary, content)
            path = self.path / f"checkpoint-{number:06d}-rank{rank}of{size}-{digest}.pt"
            temporary.replace(path)
            _sync_folder(self.path)
        except OSError as error:
            with suppress(OSError):  # what is left of it would fill a full disk further
                temporary.unlink(missing_ok=True)
            raise self._failed("written", error) from error
        return path

    def read(self, saved: Saved) -> dict[str, Any]:
        """The content of a file, tensors on the CPU; ``verify`` it before."""
        try:
            content = torch.load(saved.path, map_location="cpu", weights_only=True)
        except OSError as error:
            raise self._failed("read", error) from error
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{saved.path} is refused ({type(error).__name__}): it holds more than tensors and plain values,"
                " so this package did not write it; remove the file if you do not know where it is from"
            ) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise CheckpointError(
                f"{saved.path} was not written by this version of mlflow-pytorch-estimator:"
                " resume with the version that wrote it, or start in another folder"
            )
        return content

    def verify(self, saved: Saved) -> None:
        """Raise ``DamagedError`` unless the content of a file is what was written."""
        try:
            with saved.path.open("rb") as file:
                digest = hashlib.blake2b(digest_size=8)
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except FileNotFoundError as error:
            raise DamagedError(f"{saved.path} has been removed") from error
        except OSError as error:
            raise self._failed("read", error) from error
        if digest.hexdigest() != saved.digest:
            raise DamagedError(f"{saved.path} is damaged (its content does not have the digest in its name)")

    def prune(self, keep: int) -> None:
        """Remove what is older than the newest ``keep`` complete checkpoints; any rank may do it at any time."""
        complete = self.complete()
        if len(complete) >= keep:
            self.remove([saved for saved in self.files() if saved.number < complete[keep - 1][0].number])

    def remove(self, files: list[Saved]) -> None:
        """Remove files; another rank may be faster."""
        try:
            for saved in files:
                saved.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed("tidied", error) from error

    def _failed(self, what: str, error: OSError) -> CheckpointError:
        complete = self.complete() if what == "written" and self.path.is_dir() else []
        valid = f"; number {complete[0][0].number}, saved before, is still valid" if complete else ""
        remedy = {
            errno.ENOSPC: "free some space, or give a folder on another disk",
            errno.EDQUOT: "free some of your quota, or give a folder on another disk",
        }.get(error.errno or 0, "give a folder that every rank can read and write")
        return CheckpointError(
            f"checkpoints in {self.path} cannot be {what} ({error.strerror or error}){valid}:"
            f" {remedy} (folder=, or the variable CHECKPOINT_DIR)"
        )


class _Digesting:
    """A file for ``torch.save`` that keeps the digest of what passes, and the first error in its own words."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.blake2b(digest_size=8)
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        if self.failure is None:
            try:
                self._file.write(data)
            except OSError as error:
                # torch's writer would cover it with a complaint about positions, or end the process.
                self.failure = error
        self.digest.update(data)
        return memoryview(data).nbytes

    def flush(self) -> None:
        """For torch's sake; ``_write_synced`` flushes."""


def _write_synced(path: Path, content: dict[str, Any]) -> str:
    with path.open("wb") as file:
        sink = _Digesting(file)
        torch.save(content, sink)  # type: ignore[arg-type]  # it needs write and flush, and says it needs more
        if sink.failure is not None:
            raise sink.failure
        file.flush()
        os.fsync(file.fileno())
    return sink.digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network file systems have no such thing
            raise
    finally:
        os.close(descriptor)
