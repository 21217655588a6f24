"""A cache folder shared by runs: an entry is built aside and appears whole, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from birds import InputError

if TYPE_CHECKING:
    from collections.abc import Callable


def cache_root() -> Path:
    """Folder of this example's data: below ``XDG_CACHE_HOME``, by default ``~/.cache``."""
    # The XDG specification: an empty or relative value counts as unset.
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = given if given.is_absolute() else Path("~/.cache").expanduser()
    return base / "mlflow-pytorch-estimator" / "birds"


def cached_folder(name: str, build: Callable[[Path], None]) -> Path:
    """Return the cached folder ``name``; when it is missing, let ``build`` fill an empty one first."""
    target = cache_root() / name
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    except OSError as error:
        raise InputError(
            f"the cache {target.parent} cannot be written ({error.strerror}): point XDG_CACHE_HOME elsewhere"
        ) from error
    try:
        build(aside)
        _appear(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _appear(aside: Path, target: Path) -> None:
    aside.chmod(0o755)  # mkdtemp made it private; the cache may be a team's
    try:
        aside.rename(target)
    except OSError:
        # Another run was faster and its entry is as good as ours.
        if not target.is_dir():
            raise
