"""Where the files of a model to be registered come from: the files of a run, or a local path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from mlflow.utils.uri import append_to_uri_path

from mlflow_pytorch_estimator.estimator.artifacts import local_tree
from mlflow_pytorch_estimator.estimator.artifacts.names import clean, place_within, some, text_path
from mlflow_pytorch_estimator.estimator.artifacts.tree import Branch, RunTree, fetch, walk
from mlflow_pytorch_estimator.estimator.exceptions import ModelPathNotFoundException, UserErrorException


@dataclass(frozen=True)
class Place:
    """Files that can be registered where they are."""

    uri: str
    model_id: str | None


@dataclass(frozen=True)
class Source(ABC):
    """A file (``single``, among its neighbours) or a folder; ``names`` are relative to that folder."""

    path: str
    names: tuple[str, ...]
    single: str | None

    @property
    def chosen(self) -> tuple[str, ...]:
        """The files that the user means: one, or all of the folder."""
        return self.names if self.single is None else (self.single,)

    @property
    def place(self) -> Place | None:
        """Where a folder can be used as it is; None where its files must be copied."""
        return None

    @abstractmethod
    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Copy some of the files to a local folder."""


@dataclass(frozen=True)
class RunSource(Source):
    """Files of a run."""

    branch: Branch
    inner: str  # of the folder in its branch

    @property
    def place(self) -> Place | None:
        """The folder in the artifact store."""
        if self.single is not None:
            return None
        uri = append_to_uri_path(self.branch.uri, self.inner) if self.inner else self.branch.uri
        return Place(uri, self.branch.model_id)

    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Download some of the files."""
        root = f"{self.inner}/" if self.inner else ""
        fetch(self.branch.repository, {f"{root}{name}": place_within(folder, clean(name, "file")) for name in names})


@dataclass(frozen=True)
class LocalSource(Source):
    """Files of this machine."""

    files: Mapping[str, Path]

    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Copy some of the files."""
        local_tree.copy_to({name: self.files[name] for name in names}, folder)


def of_run(tree: RunTree, model_path: str) -> RunSource:
    """What lies at a path among the files of a run; raises ModelPathNotFoundException, which lists them."""
    path = clean(model_path, "model_path", root=True)
    for branch, inner in tree.branches(path):
        below = walk(branch.repository, inner)
        if below:
            prefix = f"{inner}/" if inner else ""
            names = tuple(name.removeprefix(prefix) for name in below)
            return RunSource(path, names, None, branch, inner)
    found = tree.find(path) if path else None
    if found is None:
        raise ModelPathNotFoundException(
            f"run {tree.run_id} has nothing at {model_path!r}; it has {some(tree.names())}"
        )
    branch, inner, _ = found
    folder, _, last = inner.rpartition("/")
    prefix = f"{folder}/" if folder else ""
    names = tuple(name.removeprefix(prefix) for name in walk(branch.repository, folder))
    return RunSource(path, names, last, branch, folder)


def of_path(model_path: str | PathLike[str], child_paths: Sequence[str] | None = None) -> LocalSource:
    """A local file, or a folder of which ``child_paths`` names some files or folders."""
    path = text_path(model_path, "model_path")
    if "://" in str(model_path):
        raise UserErrorException(
            f"model_path is {str(model_path)!r}; it must be a local path: download the files first"
        )
    if not path.exists():
        raise ModelPathNotFoundException(f"model_path {str(path)!r} does not exist")
    if path.is_dir():
        files = _children(local_tree.files_below(path), child_paths)
        return LocalSource(path.resolve().name, tuple(files), None, files)
    if child_paths is not None:
        raise UserErrorException(f"child_paths are files of a folder, and model_path {str(path)!r} is a file")
    if not path.is_file():
        raise UserErrorException(f"model_path {str(path)!r} is neither a file nor a folder")
    return _single(path)


def _single(path: Path) -> LocalSource:
    last = clean(path.name, "model_path")
    # Its neighbours are candidates for the data file of an ONNX graph; links are not followed for that.
    files = {entry.name: entry for entry in path.parent.iterdir() if entry.is_file() and not entry.is_symlink()}
    files[last] = path.resolve()
    return LocalSource(last, tuple(sorted(files)), last, files)


def _children(files: Mapping[str, Path], wanted: Sequence[str] | None) -> dict[str, Path]:
    if wanted is None:
        return dict(files)
    result: dict[str, Path] = {}
    for child in [wanted] if isinstance(wanted, str) else wanted:
        name = clean(child, "child_paths")
        below = {file: real for file, real in files.items() if file == name or file.startswith(f"{name}/")}
        if not below:
            raise ModelPathNotFoundException(f"child_paths names {child!r}; the folder has {some(list(files))}")
        result |= below
    return result
