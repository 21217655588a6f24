"""A tree of outputs into the artifact store, with word of how far it has come."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator import artifactcopy, collecting
from mlflow_pytorch_estimator.files import walk
from mlflow_pytorch_estimator.progress import Meter, ProgressFile

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

FOLDER = "outputs"
_BATCH_BYTES = 64 * 1024 * 1024
_BATCH_FILES = 500


def store(client: MlflowClient, run_id: str, tree: Path, scratch: Path, progress: ProgressFile) -> None:
    """Store the plain files of a folder under ``outputs``; ``scratch`` is on the same file system."""
    meter = Meter(progress, "storing outputs", sum(size for _, size in _files(tree)))
    try:
        folder = artifactcopy.folder_of(client.get_run(run_id).info.artifact_uri)
        if folder is not None:
            artifactcopy.copy_tree(tree, folder / FOLDER, meter.add)
        elif len(list(islice(_batches(_files(tree)), 2))) < 2:  # as it lies: links are copies on some file systems
            client.log_artifacts(run_id, str(tree), FOLDER)
        else:
            for batch in _batches(_files(tree)):
                _upload(client, run_id, tree, batch, scratch)
                meter.add(sum(size for _, size in batch))
    finally:
        progress.clear()


def _files(tree: Path) -> Iterator[tuple[str, int]]:
    """Path and size in bytes of each."""
    for entry in walk(str(tree)):
        if not entry.is_dir(follow_symlinks=False):
            yield entry.path, entry.stat(follow_symlinks=False).st_size


def _batches(files: Iterator[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    """So that each is worth a call, and a person sees it go on."""
    batch: list[tuple[str, int]] = []
    weight = 0
    for file in files:
        if batch and (weight + file[1] > _BATCH_BYTES or len(batch) >= _BATCH_FILES):
            yield batch
            batch, weight = [], 0
        batch.append(file)
        weight += file[1]
    if batch:
        yield batch


def _upload(client: MlflowClient, run_id: str, tree: Path, batch: list[tuple[str, int]], scratch: Path) -> None:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for path, _ in batch:
            collecting.link(path, Path(folder, os.path.relpath(path, tree)))
        client.log_artifacts(run_id, folder, FOLDER)
