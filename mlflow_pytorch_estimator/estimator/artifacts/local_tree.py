"""Files of a local folder on their way into a store: links are followed inside of the folder only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from mlflow_pytorch_estimator.estimator.artifacts.names import clean
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException


def files_below(folder: Path) -> dict[str, Path]:
    """The real file behind each name below a folder; raises on links that leave it, on loops and on special files."""
    if not folder.is_dir():
        what = "is a file: upload_file takes it" if folder.exists() else "does not exist"
        raise UserErrorException(f"the folder {str(folder)!r} {what}")
    root = folder.resolve()
    found = dict(_walk(root, root, "", ()))
    if not found:
        raise UserErrorException(f"the folder {str(folder)!r} has no files")
    return found


def _walk(root: Path, folder: Path, name: str, above: tuple[Path, ...]) -> Iterable[tuple[str, Path]]:
    for entry in sorted(folder.iterdir()):
        shown = f"{name}{entry.name}"
        real = _real(root, entry, shown)
        if real.is_dir():
            if real in (folder, *above):
                raise UserErrorException(f"the link {shown!r} leads to a folder that it lies in: remove it")
            yield from _walk(root, real, f"{shown}/", (folder, *above))
        elif real.is_file():
            yield clean(shown, "file"), real
        else:
            raise UserErrorException(f"{shown!r} is neither a file nor a folder (a pipe, a socket or a device)")


def _real(root: Path, entry: Path, shown: str) -> Path:
    if not entry.is_symlink():
        return entry
    try:
        real = entry.resolve(strict=True)
    except (OSError, RuntimeError):  # Python 3.10 to 3.12 say RuntimeError for a loop
        raise UserErrorException(f"the link {shown!r} leads nowhere: remove it") from None
    if not real.is_relative_to(root):
        raise UserErrorException(f"the link {shown!r} leads out of the folder: copy what it points to, or remove it")
    return real


def copy_to(files: Mapping[str, Path], folder: Path) -> None:
    """Copy the files to a folder, each under its name."""
    for name, real in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(real, target)


def has_links(folder: Path) -> bool:
    """Whether a link lies anywhere below the folder."""
    return any(Path(root, name).is_symlink() for root, folders, files in os.walk(folder) for name in folders + files)
