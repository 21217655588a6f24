"""Checkpoints that a job begins with: those of an earlier run, or of a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from mlflow_pytorch_estimator.errors import ConfigError, ProjectError
from mlflow_pytorch_estimator.jobdir import JobDir


def find(wanted: str) -> Path:
    """The folder that ``resume_from`` means: of a run of this backend by its id, or itself. Raises ConfigError."""
    of_run = JobDir.of_run(wanted) if "/" not in wanted and wanted not in {".", ".."} else None
    if of_run is not None and of_run.exists:
        if not _has_files(of_run.checkpoints):
            raise ConfigError(f"resume_from: run {wanted} has left no checkpoints (its script had CHECKPOINT_DIR)")
        return of_run.checkpoints
    folder = Path(wanted).absolute()
    if not folder.is_dir():
        raise ConfigError(f"resume_from is {wanted!r}; it must be a run whose job is on this machine, or a folder")
    if not _has_files(folder):
        raise ConfigError(f"resume_from: there is nothing in {folder}")
    return folder


def bring(source: str | None, directory: JobDir) -> None:
    """Copy them to where the ranks look, once: a job that writes to its own must not change the earlier run's."""
    directory.checkpoints.mkdir(mode=0o700, exist_ok=True)
    marker = directory.path / "resumed"
    if source is None or marker.exists():
        return
    try:
        shutil.copytree(source, directory.checkpoints, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise ProjectError(f"cannot copy the checkpoints of {source}: {error}") from error
    marker.touch(mode=0o600)


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
