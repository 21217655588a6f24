"""The list of files behind a digest.

Two lines of JSON. The first says what a working copy must look like and is what the digest is the SHA-256 of; the
second says what may differ between equal trees: the packs that hold the contents, and modification times.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mlflow_pytorch_estimator.snapshots.packs import DamagedError


class File(NamedTuple):
    """One file; ``mode`` holds the permissions only."""

    path: str
    mode: int
    size: int
    digest: str


@dataclass(frozen=True)
class Tree:
    """A project: paths are relative, folders come before what is in them."""

    folders: list[str]
    links: dict[str, str]
    """Path -> the text of the link."""
    files: list[File]
    mtimes: list[int]
    """Nanoseconds since the epoch, in the order of ``files``."""
    packs: list[str]

    def encode(self) -> tuple[str, str]:
        """The digest and the text."""
        content = json.dumps({"folders": self.folders, "links": self.links, "files": self.files})
        details = json.dumps({"packs": self.packs, "mtimes": self.mtimes})
        return hashlib.sha256(content.encode()).hexdigest(), f"{content}\n{details}\n"


def read(path: Path) -> Tree:
    """Read a tree and check that it is the one of its name."""
    content, _, details = path.read_bytes().partition(b"\n")
    if hashlib.sha256(content).hexdigest() != path.name or not details.endswith(b"\n"):
        raise DamagedError(path.name)
    raw = json.loads(content)
    return Tree(raw["folders"], raw["links"], [File(*row) for row in raw["files"]], **json.loads(details))
