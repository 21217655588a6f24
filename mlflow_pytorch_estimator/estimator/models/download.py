"""Files of a registered version, saved as the file or folder that was registered."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.estimator.artifacts.names import clean, place_within, text_path
from mlflow_pytorch_estimator.estimator.artifacts.tree import fetch, open_repository, talking, walk
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.models import kinds as model_kinds
from mlflow_pytorch_estimator.estimator.models import tags as model_tags
from mlflow_pytorch_estimator.tracking import Stores


def place(found: Any, folder: Path) -> Path:
    """Where the file or folder of a version goes below a local folder."""
    path, kind = found.tags.get(model_tags.PATH, ""), found.tags.get(model_tags.KIND)
    last = path.rstrip("/").rpartition("/")[2]
    # An ONNX file became a folder, which does not bear the name of a file.
    became_folder = kind == model_kinds.ONNX and last.lower().endswith(".onnx")
    # Tags can be written by anyone, so the name is checked again.
    return folder / clean(found.name if became_folder or not last else last, "name of the model")


def download(stores: Stores, found: Any, target_dir: str | os.PathLike[str], replace: bool) -> Path:
    """Save the files of a version; nothing is changed unless all of them have arrived."""
    folder = text_path(target_dir, "target_dir")
    target = place(found, folder)
    if os.path.lexists(target) and not replace:
        raise UserErrorException(f"{str(target)!r} exists: give another target_dir, or exist_ok=True to replace it")
    with talking(f"read model {found.name}:{found.version}"):
        uri = stores.client().get_model_version_download_uri(found.name, str(found.version))
        repository = open_repository(stores, uri)
    names = [clean(name, "file of the model") for name in walk(repository, "")]
    if not names:
        raise GpuClusterError(f"model {found.name}:{found.version} has no files at {uri}: they were deleted")
    single = found.tags.get(model_tags.KIND) == model_kinds.FILE and len(names) == 1
    places = {name: place_within(folder, target.name if single else f"{target.name}/{name}") for name in names}
    with talking(f"save model {found.name}:{found.version} in {str(folder)!r}"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as scratch:
            arrived = Path(scratch) / "model"
            fetch(repository, {name: arrived / name for name in names})
            _move(arrived, target, places, single)
    return target


def _move(arrived: Path, target: Path, places: dict[str, Path], single: bool) -> None:
    if not single and not os.path.lexists(target):
        arrived.replace(target)  # one step, so that the folder is whole or absent
        return
    for name, place_of in places.items():
        place_of.parent.mkdir(parents=True, exist_ok=True)
        (arrived / name).replace(place_of)
