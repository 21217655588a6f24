"""Folders of the project that are to be installed: copied to where uv builds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.description.localpath import copy_source, local_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def copy_sources(lines: Iterable[str], target: Path, project_dir: Path) -> dict[str, Path]:
    """Copy the folders that are to be installed; returns where each lies now.

    uv remembers what it built by path, and looks for changes in pyproject.toml alone: under a path that holds
    the key it cannot take an old build. And the project folder stays free of build output.
    """
    copies: dict[str, Path] = {}
    for line in lines:
        local = local_part(line)
        source = (project_dir / local.path).resolve() if local else target
        if local and not local.is_option and source.is_dir() and local.path not in copies:
            copies[local.path] = target / str(len(copies)) / source.name
            copy_source(source, copies[local.path])
    return copies


def located(line: str, copies: Mapping[str, Path], project_dir: Path) -> str:
    """Return the line with its local path as a URL that does not depend on a working directory."""
    local = local_part(line)
    return local.line(copies.get(local.path, (project_dir / local.path).resolve()).as_uri()) if local else line
