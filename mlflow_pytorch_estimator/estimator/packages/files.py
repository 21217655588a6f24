"""Environments in a folder: ``environment.json`` and ``conda_dependencies.yml``."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.packages.conda_dependencies import DEFAULT_FILE
from mlflow_pytorch_estimator.secretvalues import Concealer

SETTINGS_FILE = "environment.json"
_logger = logging.getLogger(__name__)


def write(folder: Path, settings: dict[str, Any], dependencies: str, *, overwrite: bool) -> None:
    """Write both files; only their owner can read the settings, which hold the environment variables."""
    names = (SETTINGS_FILE, DEFAULT_FILE)
    taken = [name for name in names if (folder / name).exists()]
    if taken and not overwrite:
        raise UserErrorException(f"{folder / taken[0]} is there already: give overwrite=True or another folder")
    variables: dict[str, str] = settings["environment_variables"]
    secrets = sorted(set(Concealer.from_environ(variables).values.values()))
    if secrets:
        _logger.warning(
            "%s holds %s in clear: keep it out of version control", folder / SETTINGS_FILE, ", ".join(secrets)
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / DEFAULT_FILE, dependencies, 0o644)
        _replace(folder / SETTINGS_FILE, json.dumps(settings, indent=2, ensure_ascii=False) + "\n", 0o600)
    except OSError as error:
        raise UserErrorException(f"cannot write to {str(folder)!r}: {error.strerror}") from error


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what ``write`` got as ``settings``; UserErrorException when it is anything else."""
    file = folder / SETTINGS_FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserErrorException(f"cannot read {str(file)!r}: {error.strerror}") from error
    except ValueError as error:
        raise UserErrorException(f"{str(file)!r} is not JSON: {error}") from error
    kinds: dict[str, type | tuple[type, ...]] = {
        "name": str,
        "version": (str, type(None)),
        "environment_variables": dict,
        "python": dict,
        "docker": dict,
    }
    wrong = [
        name for name, kind in kinds.items() if not isinstance(found, dict) or not isinstance(found.get(name), kind)
    ]
    if wrong:
        raise UserErrorException(f"{str(file)!r} was not written by save_to_directory: {wrong[0]} is missing or wrong")
    return dict(found)


def _replace(file: Path, text: str, mode: int) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    temporary.replace(file)
