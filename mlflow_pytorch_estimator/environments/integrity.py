"""Whether an environment still is what was built: fast at each use, thorough on request."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.prefix import conda_integrity, conda_meta

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RECORD = "RECORD"
_CHUNK = 1 << 20


def inventory(folder: Path) -> dict[str, int]:
    """Return distribution -> size in bytes of the list of its files: one look at each, a millisecond for a hundred."""
    lists = {info.name.removesuffix(conda_meta.INFO): info / _RECORD for _, info in _infos(folder)}
    lists |= {record.stem: record for record in folder.glob(f"{conda_meta.FOLDER}/*.json")}
    found = {}
    for name, file in lists.items():
        try:
            found[name] = file.stat().st_size
        except OSError:
            found[name] = -1
    return found


def damaged(folder: Path, *, content: bool = False) -> dict[str, str]:
    """Return distribution -> what is wrong with its first bad file: missing, or another size, or other bytes.

    ``content`` reads everything, which takes a second for each 500 MB or so.
    """
    of_conda = conda_meta.kept_distributions(folder)  # conda writes into files, and RECORD is not told
    of_pip = [(packages, info) for packages, info in _infos(folder) if info.name not in of_conda]
    found = {
        info.name.removesuffix(conda_meta.INFO): reason
        for packages, info in of_pip
        if (reason := next(_wrong(packages, info / _RECORD, content=content), None))
    }
    if (folder / conda_meta.FOLDER).is_dir():
        paths = {path for packages, info in of_pip for path in _paths(folder, packages, info / _RECORD)}
        found |= conda_integrity.damaged(folder, paths, content=content)
    return found


def changed(folder: Path, recorded: object) -> dict[str, str]:
    """Return distribution -> what happened to its list of files since the inventory was ``recorded``."""
    before = recorded if isinstance(recorded, dict) else {}
    now = inventory(folder)
    gone = {name: "its list of files has gone" for name in before if now.get(name, -1) == -1}
    new = {name: "was installed after the environment was built" for name in now if name not in before}
    other = {name: "its list of files has changed" for name in now if name in before and now[name] != before[name]}
    return new | other | gone


def _infos(folder: Path) -> Iterator[tuple[Path, Path]]:
    for packages in folder.glob("lib/python3*/site-packages"):
        for info in sorted(packages.glob(f"*{conda_meta.INFO}")):
            yield packages, info


def _rows(record: Path) -> list[list[str]]:
    return list(csv.reader(record.read_text(encoding="utf-8").splitlines()))


def _paths(folder: Path, packages: Path, record: Path) -> Iterator[str]:
    """Yield what a distribution has installed, as paths in the environment."""
    try:
        for row in _rows(record):
            if row:
                yield os.path.relpath(packages / row[0], folder)
    except (OSError, ValueError, csv.Error):
        return  # which _wrong says


def _wrong(packages: Path, record: Path, *, content: bool) -> Iterator[str]:
    try:
        rows = _rows(record)
    except OSError as error:
        yield f"{_RECORD}: {error.strerror}"
        return
    except (ValueError, csv.Error):
        yield f"{_RECORD} is no list of files"
        return
    for row in rows:
        if len(row) < 3 or not row[2] or packages / row[0] == record:  # it changes while it is written
            continue
        try:
            reason = _difference(packages / row[0], row[1], int(row[2]), content=content)
        except OSError as error:
            reason = f": {error.strerror}"
        except ValueError:
            reason = f" is listed with the size {row[2]!r} and the hash {row[1]!r}"
        if reason:
            yield f"{row[0]}{reason}"


def _difference(path: Path, expected: str, expected_size: int, *, content: bool) -> str:
    size = path.stat().st_size
    if size != expected_size:
        return f" has {size} bytes, not {expected_size}"
    algorithm, _, value = expected.partition("=")
    if content and value and base64.urlsafe_b64encode(_hash(path, algorithm)).decode().rstrip("=") != value:
        return " has other content than was installed"
    return ""


def _hash(path: Path, algorithm: str) -> bytes:
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()
