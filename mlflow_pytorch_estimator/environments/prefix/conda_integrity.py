"""Whether what conda has installed is still there, except what pip has replaced since."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from mlflow_pytorch_estimator.environments.prefix import conda_meta

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

_CHUNK = 1 << 20


def damaged(folder: Path, of_pip: Collection[str], *, content: bool) -> dict[str, str]:
    """Return package -> what is wrong with its first bad file; ``of_pip`` are paths that pip has written."""
    replaced = _replaced(folder)
    found = {}
    for record in sorted((folder / conda_meta.FOLDER).glob("*.json")):
        if record.stem not in replaced:
            reason = next(_wrong(folder, record, of_pip, content=content), None)
            if reason:
                found[record.stem] = reason
    return found


def _replaced(folder: Path) -> set[str]:
    """Return the packages for which there is another version of the same distribution now."""
    there = {info.name for info in folder.glob(f"lib/python3*/site-packages/*{conda_meta.INFO}")}
    names = {_name(info) for info in there}
    owned = conda_meta.distributions(folder)
    return {record for info, record in owned.items() if info not in there and _name(info) in names}


def _name(info: str) -> str:
    return re.sub(r"[-_.]+", "-", info.removesuffix(conda_meta.INFO).rpartition("-")[0]).lower()


def _wrong(folder: Path, record: Path, of_pip: Collection[str], *, content: bool) -> Iterator[str]:
    listed = conda_meta.listed(record)
    if listed is None:
        yield f"{conda_meta.FOLDER}/{record.name} is no list of files"
        return
    for name, item in listed.items():
        if name in of_pip or name.endswith(".pyc"):  # Python writes those anew
            continue
        try:
            reason = _difference(folder / name, item, content=content)
        except OSError as error:
            reason = f": {error.strerror}"
        if reason:
            yield f"{name}{reason}"


def _difference(path: Path, item: dict[str, Any], *, content: bool) -> str:
    size = path.lstat().st_size
    if path.is_symlink() or item.get("path_type") != "hardlink":
        return ""
    # conda writes the prefix into some files, and not every program says what came of it.
    rewritten = bool(item.get("prefix_placeholder"))
    expected = item.get("size_in_bytes")
    if not rewritten and expected is not None and size != expected:
        return f" has {size} bytes, not {expected}"
    checksum = item.get("sha256_in_prefix") or (None if rewritten else item.get("sha256"))
    if content and checksum and _sha256(path) != checksum:
        return " has other content than was installed"
    return ""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
