"""The text of ``gpu_cluster/environment.txt``: what a job ran with."""

from __future__ import annotations

import functools
import platform
import sys
from importlib import metadata
from pathlib import Path


def heading(python: str, manager: str) -> str:
    """Return the lines before the packages."""
    return f"# python {python}\n# platform {platform.platform()}\n# manager {manager}\n"


def local_freeze() -> str:
    """Describe the interpreter that this code runs in."""
    # A third of a second; one process may report hundreds of jobs.
    return _frozen(
        tuple((folder, Path(folder).stat().st_mtime_ns if Path(folder).exists() else 0) for folder in sys.path)
    )


@functools.lru_cache(maxsize=1)
def _frozen(folders: tuple[tuple[str, int], ...]) -> str:
    """What is found in folders as they are now: installing and removing changes their times."""
    there = metadata.distributions(path=[folder for folder, _ in folders])
    found = {f"{item.name}=={item.version}" for item in there if item.metadata["Name"]}
    python = f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})"
    return heading(python, "local") + "\n".join(sorted(found, key=str.lower)) + "\n"
