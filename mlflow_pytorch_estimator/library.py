"""This package as a folder for ``PYTHONPATH``: jobs import the version that submitted them."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

_DISTRIBUTION = "mlflow-pytorch-estimator"


def deliver(target: Path) -> None:
    """Copy the package, and its metadata so that MLflow finds the backend inside of jobs as well."""
    package = Path(__file__).parent
    shutil.copytree(package, target / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    distribution = metadata.distribution(_DISTRIBUTION)
    info = target / f"{_DISTRIBUTION.replace('-', '_')}-{distribution.version}.dist-info"
    info.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        text = distribution.read_text(name)
        if text is not None:
            (info / name).write_text(text, encoding="utf-8")
