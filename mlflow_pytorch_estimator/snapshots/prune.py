"""Remove the snapshots that no job needs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from mlflow_pytorch_estimator.snapshots import tree
from mlflow_pytorch_estimator.snapshots.packs import DamagedError, read_index
from mlflow_pytorch_estimator.snapshots.store import Store

GRACE_SECONDS = 86_400.0
"""A snapshot that was taken this recently stays: its job may not have written down yet that it needs it."""


def prune(store: Path, keep: Collection[str]) -> None:
    """Remove trees that are not in ``keep`` and the data that no tree refers to; nothing while somebody works here."""
    place = Store(store)
    if not place.trees.is_dir():
        return
    with place.alone() as alone:
        if not alone:
            return
        removed = [_remove(path) for path in place.trees.iterdir() if path.name not in keep and _is_old(path)]
        removed += [_remove(path) for path in place.unfinished.iterdir()]
        if removed:  # else there is nothing to look for
            _sweep(place)


def _sweep(store: Store) -> None:
    needed = set(_needed(store))
    for path in (*store.packs.iterdir(), *store.objects.glob("*/*")):
        if path not in needed:
            _remove(path)
    for path in store.indexes.iterdir():
        if not _is_of_a_project(path):
            _remove(path)


def _needed(store: Store) -> Iterator[Path]:
    indexes: dict[str, set[str]] = {}
    for path in store.trees.iterdir():
        try:
            content = tree.read(path)
        except DamagedError:
            _remove(path)
            continue
        packed: set[str] = set()
        for name in content.packs:
            if name not in indexes:
                indexes[name] = _digests(store.packs / name)
            packed |= indexes[name]
            yield store.packs / name
        yield from {store.object(file.digest) for file in content.files if file.digest not in packed}


def _digests(pack: Path) -> set[str]:
    try:
        return set(read_index(pack))
    except (DamagedError, FileNotFoundError):
        return set()


def _is_of_a_project(index: Path) -> bool:
    """Whether the project of an index is still there; those of fetched repositories are not."""
    try:
        with index.open("rb") as file:
            return os.path.isdir(json.loads(file.readline())["project"])  # noqa: PTH112 - any text, also not UTF-8
    except (ValueError, KeyError, TypeError):
        return False


def _is_old(path: Path) -> bool:
    return path.stat().st_mtime < time.time() - GRACE_SECONDS


def _remove(path: Path) -> Path:
    path.unlink(missing_ok=True)
    return path
