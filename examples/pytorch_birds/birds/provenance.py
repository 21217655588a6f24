"""Which images a run was trained on, as MLflow's dataset inputs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag

from birds import synthetic
from birds.download import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from birds.data import ImageFolders
    from birds.options import Options


def log_images(run_id: str, options: Options, images: ImageFolders) -> None:
    """Log the training and the validation images. A digest is over names, classes and sizes."""
    name, kind, source = _source(options)
    profile = {"classes": images.classes, "images": {"train": len(images.train), "val": len(images.val)}}
    found = [
        DatasetInput(
            Dataset(f"{name}/{split}", _digest(samples), kind, json.dumps(source), profile=json.dumps(profile)),
            [InputTag("mlflow.data.context", context)],
        )
        for split, context, samples in (("train", "training", images.train), ("val", "validation", images.val))
    ]
    mlflow.MlflowClient().log_inputs(run_id, found)


def _source(options: Options) -> tuple[str, str, dict[str, object]]:
    """Name, MLflow's name for the kind of the source, and what that kind stores."""
    if options.data_dir:
        folder = Path(options.data_dir).expanduser().absolute()
        return folder.name, "local", {"uri": str(folder)}
    if options.data_url:
        url = shown(options.data_url)
        kind = "http" if url.startswith(("http:", "https:")) else "local"
        return url.rstrip("/").rpartition("/")[2].partition(".")[0], kind, {"url" if kind == "http" else "uri": url}
    return "drawings", "code", {"tags": {"version": synthetic.VERSION, "seed": options.seed}}


def _digest(samples: Sequence[tuple[Path, int]]) -> str:
    found = hashlib.sha256()
    for path, label in samples:
        found.update(f"{label}/{path.name}\0{path.stat().st_size}\0".encode())
    return found.hexdigest()[:12]
