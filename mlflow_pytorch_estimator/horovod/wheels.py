"""The cache of wheels: ``<key>/`` holds one with its hash, and appears whole; ``<key>.build/`` is where one is made."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.horovod.source import sha256

if TYPE_CHECKING:
    from collections.abc import Callable

_RECORD = "wheel.json"


def _ignore(line: str) -> None:
    return


def find(folder: Path, say: Callable[[str], None] = _ignore) -> Path | None:
    """Return the wheel of a cache entry; None when there is none that is as it was stored, which ``say`` is told."""
    try:
        record = json.loads((folder / _RECORD).read_bytes())
        wheel = folder / Path(record["file"]).name
        whole = sha256(wheel) == record["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if whole:
        return wheel
    if folder.exists():
        say(f"the Horovod wheel in {folder} is damaged: it is built again")
    return None


def workplace(folder: Path) -> Path:
    """Return an empty folder to build in; whoever holds the entry's lock may remove what is left of it."""
    place = folder.with_name(f"{folder.name}.build")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def store(wheel: Path, folder: Path, record: dict[str, object]) -> Path:
    """Move a wheel into the cache, synced first; what was there is damaged and goes."""
    entry = wheel.parent
    text = json.dumps({"file": wheel.name, "sha256": sha256(wheel), "bytes": wheel.stat().st_size, **record}, indent=1)
    (entry / _RECORD).write_text(f"{text}\n", encoding="utf-8")
    for path in (wheel, entry / _RECORD):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    entry.rename(folder)
    return folder / wheel.name
