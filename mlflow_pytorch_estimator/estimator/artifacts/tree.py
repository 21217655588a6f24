"""All files of a run: its own artifacts, joined with those of its logged models under the model's name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mlflow_pytorch_estimator.errors import GpuClusterError, UnknownRunError
from mlflow_pytorch_estimator.estimator.artifacts.names import clean
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.tracking import Stores

REGISTERED_FROM = "gpu_cluster.registered_from"
_THREADS = 8


@dataclass(frozen=True)
class Branch:
    """Files with one root: the run's own (``mount`` is empty), or those of the logged model of that name."""

    mount: str
    uri: str
    repository: Any
    model_id: str | None = None

    def shown(self, inner: str) -> str:
        """The name of a file of this branch among the files of the run."""
        return f"{self.mount}/{inner}" if self.mount else inner

    def inner(self, name: str) -> str | None:
        """The reverse of ``shown``; None for what lies elsewhere."""
        if not self.mount or name == self.mount:
            return "" if self.mount else name
        return name.removeprefix(f"{self.mount}/") if name.startswith(f"{self.mount}/") else None


class RunTree:
    """What the stores say about the files of one run, read when asked for."""

    def __init__(self, stores: Stores, run_id: str) -> None:
        self._stores = stores
        self._client = stores.client()
        self.run = _active_run(self._client, run_id)

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        return str(self.run.info.run_id)

    @cached_property
    def own(self) -> Branch:
        """The run's own artifacts."""
        return Branch("", self.run.info.artifact_uri, open_repository(self._stores, self.run.info.artifact_uri))

    @cached_property
    def models(self) -> list[Branch]:
        """One branch for each name of a finished logged model, the newest one of that name."""
        found: dict[str, Branch] = {}
        for model in sorted(self._logged_models(), key=lambda model: -model.creation_timestamp):
            if (
                model.name not in found
                and REGISTERED_FROM not in model.tags
                and model.status == LoggedModelStatus.READY
            ):
                location = model.artifact_location
                repository = open_repository(self._stores, location)
                found[model.name] = Branch(model.name, location, repository, model.model_id)
        return list(found.values())

    def _logged_models(self) -> Iterator[Any]:
        wanted, token = f"source_run_id = '{self.run_id}'", None
        while True:
            page = self._client.search_logged_models([self.run.info.experiment_id], wanted, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    @cached_property
    def listing(self) -> dict[str, tuple[Branch, str]]:
        """All files by their sorted names, with the branch that they are in and their name there."""
        found: dict[str, tuple[Branch, str]] = {}
        for branch in (*self.models, self.own):  # the run's own files come last: they win
            found |= {branch.shown(inner): (branch, inner) for inner in walk(branch.repository, "")}
        return dict(sorted(found.items()))

    def names(self) -> list[str]:
        """The names of all files, sorted."""
        return list(self.listing)

    def branches(self, name: str) -> Iterator[tuple[Branch, str]]:
        """Where a file or folder of that name may lie, the run's own artifacts first."""
        yield self.own, name
        for branch in self.models:
            inner = branch.inner(name)
            if inner is not None:
                yield branch, inner

    def find(self, name: str) -> tuple[Branch, str, bool] | None:
        """The branch of a name, the name there and whether it is a folder; None when there is no such file."""
        for branch, inner in self.branches(name):
            if not inner:
                return branch, inner, True
            with talking(f"list the files of run {self.run_id}"):
                listed = branch.repository.list_artifacts(inner.rpartition("/")[0] or None)
            entry = next((item for item in listed if item.path == inner), None)
            if entry is not None:
                return branch, inner, bool(entry.is_dir)
        return None


def _active_run(client: Any, run_id: str) -> Any:
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise UnknownRunError(f"no run {run_id!r}: {one_line(error)}") from error
    if run.info.lifecycle_stage == "deleted":
        raise UserErrorException(f"run {run_id} is deleted: bring it back with `mlflow runs restore --run-id {run_id}`")
    return run


def open_repository(stores: Stores, uri: str) -> Any:
    """MLflow's access to the files below a URI, whatever its current stores are."""
    return get_artifact_repository(uri, tracking_uri=stores.tracking_uri, registry_uri=stores.registry_uri)


def walk(repository: Any, start: str) -> list[str]:
    """All files below a folder. One request a folder, several at a time."""
    files: list[str] = []
    level, seen = [start], {start}
    with ThreadPoolExecutor(_THREADS) as pool, talking("list artifacts"):
        while level:
            entries = [
                item
                for folder, items in zip(
                    level, pool.map(lambda f: repository.list_artifacts(f or None), level), strict=True
                )
                for item in items
                if not folder or item.path.startswith(f"{folder}/")
            ]
            files += [item.path for item in entries if not item.is_dir]
            level = list(dict.fromkeys(item.path for item in entries if item.is_dir and item.path not in seen))
            seen.update(level)
    return sorted(files)


def fetch(repository: Any, targets: Mapping[str, Path]) -> None:
    """Download files, each to its (safe) place, where it is whole or absent."""
    for name in targets:
        clean(name, "file")
    with ThreadPoolExecutor(_THREADS) as pool:
        for done in [pool.submit(_fetch_one, repository, name, target) for name, target in targets.items()]:
            done.result()


def _fetch_one(repository: Any, name: str, target: Path) -> None:
    with talking(f"download {name!r} to {str(target)!r}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, so that the last step is a rename.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
            copy = Path(folder) / "file"
            # The hook that every artifact repository implements. The public method would list the parent once more
            # for each file and draw a progress bar for each.
            repository._download_file(name, str(copy))
            os.replace(copy, target)  # noqa: PTH105 - the same call, and what the comment above speaks of


@contextmanager
def talking(what: str) -> Iterator[None]:
    """Errors of a store or a disk leave as one line that says what was tried."""
    try:
        yield
    except GpuClusterError:
        raise
    except (MlflowException, OSError) as error:
        raise GpuClusterError(f"cannot {what}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 500 else f"{text[:497]}..."
