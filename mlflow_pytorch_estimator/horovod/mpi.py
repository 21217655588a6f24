"""The MPI of this machine, told by its compiler."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_FAMILIES = {"openmpi": "Open MPI", "opal": "Open MPI", "mpich": "MPICH", "mvapich": "MVAPICH", "impi": "Intel MPI"}


@dataclass(frozen=True)
class Mpi:
    """An MPI that can be compiled for."""

    compiler: Path
    name: str
    identity: str
    """Changes when another MPI, or another version of it, is installed."""


def find_mpi(environ: Mapping[str, str]) -> Mpi | None:
    """Return the MPI whose ``mpicxx`` is on PATH."""
    compiler = shutil.which("mpicxx", path=environ.get("PATH"))
    if compiler is None:
        return None
    real = os.path.realpath(compiler)
    stamp = int(Path(real).stat().st_mtime)
    parts = (real + compiler).lower()
    name = next((family for word, family in _FAMILIES.items() if word in parts), "MPI")
    return Mpi(Path(compiler), name, f"{real} {stamp}")
