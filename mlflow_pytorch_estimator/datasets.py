"""The data that a job was given, as dataset inputs of its MLflow run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.tracking import without_credentials

_MOST_FILES = 100_000
_MOST_BYTES = 256 * 1024 * 1024  # that are read for a digest
_DIGEST = 12
_CHUNK = 1 << 20


@dataclass(frozen=True)
class _Content:
    """What is there of a data set on this machine."""

    files: int
    bytes: int
    digest: str
    covers: str
    """Of what the digest is."""


def inputs_of(job: JobSpec, conceal: Callable[[str], str]) -> list[DatasetInput]:
    """One for each input. Its digest is over names and contents, over names and sizes where there are more than 256 MB,
    and over the address alone where the data is not on this machine or has more than 100,000 files. Inputs of one name
    and one content are one data set for MLflow.
    """
    found: dict[tuple[str, str], tuple[Dataset, list[str]]] = {}
    for name, given in job.datasets.items():
        dataset = _dataset(name, conceal(without_credentials(given["uri"])), given["path"])
        found.setdefault((dataset.name, dataset.digest), (dataset, []))[1].append(name)
    return [
        DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, ", ".join(names))]) for dataset, names in found.values()
    ]


def _dataset(name: str, uri: str, path: str) -> Dataset:
    content = _content(Path(path)) if Path(path).is_absolute() else None
    profile: dict[str, Any] = {}
    if content is not None:
        profile = {"files": content.files, "bytes": content.bytes, "digest_of": content.covers}
    digest = content.digest if content else _short(hashlib.sha256(uri.encode()))
    return Dataset(
        name=_name(uri) or name,
        digest=digest,
        source_type=_kind(uri),
        source=json.dumps({"uri": uri}),
        profile=json.dumps(profile) if profile else None,
    )


def _name(uri: str) -> str:
    return unquote(urlsplit(uri).path if "://" in uri else uri).rstrip("/").rpartition("/")[2][:500]


def _kind(uri: str) -> str:
    """MLflow's name for the kind of a source."""
    scheme = urlsplit(uri).scheme if "://" in uri else ""
    return {"": "local", "file": "local", "https": "http"}.get(scheme, scheme)


def _content(path: Path) -> _Content | None:
    """None where the path cannot be read here, or holds too much."""
    try:
        files = sorted(_files(path))
        if len(files) > _MOST_FILES:
            return None
        size = sum(bytes_ for _, bytes_, _ in files)
        whole = size <= _MOST_BYTES
        digest = hashlib.sha256()
        for name, bytes_, file in files:
            digest.update(f"{name}\0{bytes_}\0".encode("utf-8", errors="surrogateescape"))
            if whole:
                _add(digest, file)
    except OSError:
        return None
    return _Content(len(files), size, _short(digest), "names and contents" if whole else "names and sizes")


def _files(path: Path) -> Iterator[tuple[str, int, Path]]:
    """Name below ``path``, size and path of each file, one more than may be at the most."""
    if path.is_file():
        yield "", path.stat().st_size, path
        return
    if not path.is_dir():
        raise FileNotFoundError(path)
    count = 0
    for root, _, names in os.walk(path):
        for name in names:
            file = Path(root, name)
            if file.is_file():
                yield str(file.relative_to(path)), file.stat().st_size, file
                count += 1
                if count > _MOST_FILES:
                    return


def _add(digest: Any, file: Path) -> None:
    with file.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)


def _short(digest: Any) -> str:
    return str(digest.hexdigest())[:_DIGEST]
