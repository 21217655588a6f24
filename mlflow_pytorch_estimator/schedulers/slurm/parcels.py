"""What a job without a shared file system needs on the disks of its nodes, each part at the path that it has here."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow_pytorch_estimator import library, rank_policy, resuming
from mlflow_pytorch_estimator.environments import BUILT, local_freeze
from mlflow_pytorch_estimator.environments.cache import MARKER
from mlflow_pytorch_estimator.files import write_atomic
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.slurm.far import FarFiles
from mlflow_pytorch_estimator.spec import InterpreterSpec

SYSTEM = (Path("/"), Path("/usr"), Path("/usr/local"))
"""A Python there is the machine's: no user can put one there."""
_NOT_OF_A_BASE = ("./lib/python3.*/site-packages", "./lib/python3.*/test", "__pycache__")
"""A virtual environment does not look there."""


@dataclass(frozen=True)
class Parcel:
    """A folder that a node keeps for further jobs."""

    title: str
    folder: Path
    proof: Path
    """The folder is whole on a node where this file is,"""
    digest: str = ""
    """and has this SHA-256, if one is given."""
    links: tuple[tuple[Path, Path], ...] = ()
    """Symbolic links outside of it that lead to it: where, and what they say."""
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Needs:
    """All that a job's interpreter consists of."""

    parcels: tuple[Parcel, ...] = ()
    present: tuple[Path, ...] = ()
    """Programs that must be on the nodes already."""


def needs(interpreter: InterpreterSpec) -> Needs:
    """What is sent, and what is not because no user can put it there, or it is no environment of ours."""
    python = Path(interpreter.python or "")
    if interpreter.manager not in BUILT:
        return Needs(present=(python,))
    environment = python.parent.parent
    marker = environment / MARKER
    digest = hashlib.sha256(marker.read_bytes()).hexdigest()
    own = Parcel(f"environment {environment.name}", environment, marker, digest)
    real = Path(os.path.realpath(python))
    base = real.parent.parent
    if base == environment or environment in base.parents:
        return Needs((own,))
    if base in SYSTEM:
        return Needs((own,), (real,))
    excluded = () if _sees_base(environment) else _NOT_OF_A_BASE
    return Needs((Parcel(f"Python {base.name}", base, real, links=_links(python, base), excluded=excluded), own))


def _sees_base(environment: Path) -> bool:
    try:
        text = (environment / "pyvenv.cfg").read_text(encoding="utf-8")
    except FileNotFoundError:
        return True
    return "include-system-site-packages = true" in text


def _links(python: Path, base: Path) -> tuple[tuple[Path, Path], ...]:
    """The folder links between an environment and its base: uv names its Pythons by two numbers and links to three."""
    found = {}
    while python.is_symlink():
        python = python.parent / python.readlink()
        home = Path(os.path.normpath(python.parent.parent))
        if home.is_symlink() and home.resolve() == base:
            found[home] = base
    return tuple(found.items())


@contextmanager
def of_the_job(directory: JobDir) -> Iterator[list[str]]:
    """The job itself, as arguments of ``tar``: its directory, completed, and this package."""
    job = directory.job
    directory.restore_source(job)
    resuming.bring(job.resume_from, directory)
    directory.outputs.mkdir(parents=True, exist_ok=True)
    if job.interpreter.manager == "local" and not directory.environment.exists():
        write_atomic(directory.environment, local_freeze())
    private = FarFiles(directory).private
    names = sorted(path.name for path in directory.path.iterdir() if path.name not in private)
    with tempfile.TemporaryDirectory(dir=directory.path.parent, prefix=".parcel-") as name:
        extra = JobDir(Path(name))
        rank_policy.deliver(extra.rank_policy)
        if not directory.library.is_dir():
            library.deliver(extra.library)
        added = sorted(path.name for path in extra.path.iterdir() if path.name not in names)
        yield [f"--directory={directory.path}", *names, f"--directory={extra.path}", *added]
