"""A private copy of the project's files: what runs is what was submitted, whatever is edited meanwhile."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mlflow_pytorch_estimator import jobdir
from mlflow_pytorch_estimator.errors import ProjectError

_SKIPPED = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        "__pycache__",
        ".ipynb_checkpoints",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
    }
    | {".tox", ".nox", "node_modules", ".gpu-cluster"}
)
_SKIPPED_AT_TOP = frozenset({"mlruns", "mlartifacts", "outputs", "mlflow.db", "mlflow.db-shm", "mlflow.db-wal"})


def take(project: Path, target: Path, subdirectory: str = "") -> None:
    """Copy the project into ``target``, without version control, caches, virtual environments and old results.

    ``subdirectory`` is where the project works; old results may lie there as well.
    """
    top = project.resolve()
    with_results = {top, (top / subdirectory).resolve()}
    home = jobdir.home().resolve()  # it may lie inside of the project or be it, and this copy in it
    ours = {home, *(home / name for name in ("jobs", "envs", "queue"))}

    def skipped(folder: str, names: list[str]) -> set[str]:
        here = Path(folder)
        found = {name for name in names if name in _SKIPPED or _is_no_source(here / name, ours)}
        return found | (_SKIPPED_AT_TOP & set(names) if here.resolve() in with_results else set())

    try:
        shutil.copytree(project, target, symlinks=True, ignore=skipped)
        _repair_links(top, target)
    except (OSError, shutil.Error) as error:
        raise ProjectError(f"cannot copy the project {project}: {_reason(error)}") from error


def _is_no_source(path: Path, ours: set[Path]) -> bool:
    if path.is_symlink():
        return False
    if path.is_dir():
        return (path / "pyvenv.cfg").exists() or path.resolve() in ours
    return not path.is_file()  # a socket, a pipe, a device


def _repair_links(project: Path, target: Path) -> None:
    """A relative link that leaves the project must go on leading where it led."""
    for root, folders, files in os.walk(target):
        for name in (*folders, *files):
            link = Path(root, name)
            if not link.is_symlink() or os.path.isabs(os.readlink(link)):  # noqa: PTH115, PTH117 - the text, not a path
                continue
            original = project / link.relative_to(target)
            destination = Path(os.path.normpath(original.parent / link.readlink()))
            if not destination.is_relative_to(os.path.normpath(project)):
                link.unlink()
                link.symlink_to(destination.absolute())


def _reason(error: OSError | shutil.Error) -> str:
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return "; ".join(str(item[-1]) for item in error.args[0][:3])
    return str(error)
