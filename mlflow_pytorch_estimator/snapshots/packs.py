"""Packs: thousands of small files appended to one, because creating a file costs more than writing it.

A pack is the contents, one after the other, then a JSON object with their SHA-256 and sizes, then the length of that
text in eight bytes. Its name is the SHA-256 of the text, so a torn or foreign file is never taken for a pack.
"""

from __future__ import annotations

import hashlib
import json
import os
from itertools import accumulate
from pathlib import Path

from mlflow_pytorch_estimator.snapshots.store import Store

_LENGTH_BYTES = 8


class DamagedError(Exception):
    """The file is not what its name says."""


def write(store: Store, contents: dict[str, bytes]) -> str:
    """Write a pack of contents by digest; returns its name."""
    text = json.dumps({"digests": list(contents), "sizes": [len(data) for data in contents.values()]}).encode()
    name = hashlib.sha256(text).hexdigest()
    with store.writing() as temporary:
        with temporary.open("wb", buffering=2**20) as file:
            file.writelines(contents.values())
            file.write(text + len(text).to_bytes(_LENGTH_BYTES, "big"))
        temporary.replace(store.packs / name)
    return name


def read_index(path: Path) -> dict[str, tuple[int, int]]:
    """Where the contents of a pack lie: digest -> offset and size."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END) - _LENGTH_BYTES
        if end < 0:
            raise DamagedError(path.name)
        file.seek(end)
        length = int.from_bytes(file.read(_LENGTH_BYTES), "big")
        if length > end:
            raise DamagedError(path.name)
        file.seek(end - length)
        text = file.read(length)
    if hashlib.sha256(text).hexdigest() != path.name:
        raise DamagedError(path.name)
    index = json.loads(text)
    ends = list(accumulate(index["sizes"]))
    if ends[-1] + length != end:
        raise DamagedError(path.name)
    places = zip(ends, index["sizes"], strict=True)
    return {digest: (stop - size, size) for digest, (stop, size) in zip(index["digests"], places, strict=True)}
