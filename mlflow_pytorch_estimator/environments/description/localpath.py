"""Requirements that are files or folders of the project: ``.``, ``./pkg[extra]``, ``name @ file:pkg``."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Neither hashed nor copied: traces of runs, of earlier builds and of version control.
_SKIPPED = {".git", ".hg", ".venv", "venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
_SKIPPED_AT_TOP = {"build", "dist", "mlruns", "mlartifacts", "mlflow.db"}
_TAIL = re.compile(r"(?P<body>.*?)(?P<tail>\s*;.*|\s+--hash.*)?")
_BODY = re.compile(r"(?:(?P<name>[A-Za-z0-9][\w.-]*\s*(?:\[[^\]]*\])?)\s*@\s*)?(?P<path>.*?)(?P<extras>\[[^\]]*\])?")
_ARCHIVES = (".whl", ".tar.gz", ".tar.bz2", ".zip")


@dataclass(frozen=True)
class LocalRequirement:
    """A requirement line, taken apart around its path."""

    name: str
    path: str
    extras: str
    tail: str

    @classmethod
    def parse(cls, line: str) -> LocalRequirement | None:
        """Return the parts, or None for a requirement that an index or a URL provides."""
        outer = _TAIL.fullmatch(line)
        inner = _BODY.fullmatch(outer["body"].strip()) if outer else None
        if outer is None or inner is None or not _is_path(inner["path"]):
            return None
        return cls((inner["name"] or "").rstrip(), inner["path"], inner["extras"] or "", outer["tail"] or "")

    def line(self, target: str) -> str:
        """Return the requirement line with another path or URL in it."""
        head = f"{self.name} " if self.is_option else f"{self.name} @ " if self.name else ""
        return head + target + self.extras + self.tail

    @property
    def is_option(self) -> bool:
        """Tell ``--find-links`` from a requirement."""
        return self.name.startswith("--")


def _is_path(text: str) -> bool:
    if text.startswith("file:"):
        return True
    if "://" in text or text.startswith(("git+", "hg+", "svn+", "bzr+")):
        return False
    return text in (".", "..") or "/" in text or text.endswith(_ARCHIVES)


def local_part(line: str) -> LocalRequirement | None:
    """Return the parts of a line of an ``EnvironmentSpec`` that names a local path, with or without an option."""
    option, _, value = line.partition(" ")
    if option != "--find-links":
        return None if line.startswith("--") else LocalRequirement.parse(line)
    return LocalRequirement(option, value, "", "") if "://" not in value else None


def anchor(path: str, folders: Iterable[Path], root: Path, where: str) -> str:
    """Return ``path``, found in the first fitting folder, as ``./inside/root`` or absolute."""
    if path.startswith("file:"):
        path = unquote(urlsplit(path).path)
    candidates = [folder / Path(path).expanduser() for folder in folders]
    found = next((candidate for candidate in candidates if candidate.exists()), None)
    if found is None:
        raise EnvironmentSpecError(f"{where}: there is no {path} (looked for {candidates[0]})")
    full, base = Path(os.path.abspath(found)), Path(os.path.abspath(root))  # noqa: PTH100 - links stay links
    return f"./{full.relative_to(base).as_posix()}" if full.is_relative_to(base) else str(full)


def content_hash(path: Path) -> str:
    """Hash a file's bytes, or the names, modes and bytes of all that a folder holds."""
    digest = hashlib.sha256()
    path.stat()  # os.walk is silent about a folder that is not there
    for file in [path] if path.is_file() else _files(path):
        name = file.relative_to(path).as_posix()
        mode = "link" if file.is_symlink() else "x" if os.access(file, os.X_OK) else "-"
        content = os.fsencode(file.readlink()) if file.is_symlink() else file.read_bytes()
        digest.update(f"{name}\0{mode}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def copy_source(source: Path, target: Path) -> None:
    """Copy what ``content_hash`` looks at."""

    def skipped(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if _is_skipped(name, at_top=Path(folder) == source)]

    shutil.copytree(source, target, symlinks=True, ignore=skipped)


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        at_top = Path(folder) == root
        folders[:] = sorted(name for name in folders if not _is_skipped(name, at_top=at_top))
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in sorted(files + links):
            if not _is_skipped(name, at_top=at_top):
                yield Path(folder) / name


def _is_skipped(name: str, *, at_top: bool) -> bool:
    return name in _SKIPPED or name.endswith((".pyc", ".egg-info")) or (at_top and name in _SKIPPED_AT_TOP)
