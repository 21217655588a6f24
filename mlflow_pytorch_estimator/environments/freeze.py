"""The text of ``gpu_cluster/environment.txt``: what a job ran with."""

from __future__ import annotations

import platform
import sys
from importlib import metadata


def heading(python: str, manager: str) -> str:
    """Return the lines before the packages."""
    return f"# python {python}\n# platform {platform.platform()}\n# manager {manager}\n"


def local_freeze() -> str:
    """Describe the interpreter that this code runs in."""
    found = {f"{item.name}=={item.version}" for item in metadata.distributions() if item.metadata["Name"]}
    python = f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})"
    return heading(python, "local") + "\n".join(sorted(found, key=str.lower)) + "\n"
