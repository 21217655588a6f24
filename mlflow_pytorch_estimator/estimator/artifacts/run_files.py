"""The files of a run: names, downloads and uploads that stay inside of their folder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import IO

from mlflow_pytorch_estimator.estimator.artifacts import local_tree
from mlflow_pytorch_estimator.estimator.artifacts.names import clean, place_within, some, text_path
from mlflow_pytorch_estimator.estimator.artifacts.tree import Branch, RunTree, fetch, talking
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.tracking import Stores

LocalPath = str | PathLike[str]
_PIECE = 1 << 20


class RunFiles:
    """The files of one run, with the calls of the original's run."""

    def __init__(self, stores: Stores, run_id: str) -> None:
        self._stores = stores
        self._client = stores.client()
        self._run_id = run_id

    def _tree(self) -> RunTree:
        return RunTree(self._stores, self._run_id)

    def names(self) -> list[str]:
        """All files, sorted; those of a logged model under its name."""
        return self._tree().names()

    def download(self, name: str, output_file_path: LocalPath | None = None) -> Path:
        """Save one file, in the working directory or where ``output_file_path`` says; an existing file is replaced.

        A path that is a folder, or ends with ``/``, gets the file under its last name.
        """
        wanted = clean(name, "file")
        target = _target(wanted.rpartition("/")[2], output_file_path)
        branch, inner = self._file(wanted)
        fetch(branch.repository, {inner: target})
        return target

    def _file(self, name: str) -> tuple[Branch, str]:
        tree = self._tree()
        found = tree.find(name)
        if found is None:
            raise UserErrorException(f"run {self._run_id} has no file {name!r}; it has {some(tree.names())}")
        branch, inner, is_folder = found
        if is_folder:
            raise UserErrorException(f"{name!r} is a folder: download_files(prefix={name!r}) saves all that is in it")
        return branch, inner

    def download_many(
        self,
        prefix: str | None = None,
        output_directory: LocalPath | None = None,
        output_paths: Sequence[LocalPath] | None = None,
        append_prefix: bool = True,
    ) -> list[Path]:
        """Save the files below a folder, or whose names begin with ``prefix``; returns where they are.

        ``append_prefix=False`` leaves the prefix out of the local names. ``output_paths`` are the local names, in the
        order of the sorted names.
        """
        start = "" if prefix is None else clean(prefix, "prefix", root=True)
        tree = self._tree()
        chosen = _chosen(tree.names(), start)
        if not chosen:
            raise UserErrorException(f"run {self._run_id} has no files below {prefix!r}; it has {some(tree.names())}")
        for name in chosen:
            clean(name, f"a file of run {self._run_id}")
        targets = _targets(chosen, "" if append_prefix else start, output_directory, output_paths)
        for branch in (tree.own, *tree.models):
            owned = {
                tree.listing[name][1]: target for name, target in targets.items() if tree.listing[name][0] is branch
            }
            fetch(branch.repository, owned)
        return list(targets.values())

    def read_text(self, name: str) -> str:
        """The text of a file; what is not UTF-8 shows as replacement characters."""
        with tempfile.TemporaryDirectory() as folder:
            return self.download(name, Path(folder) / "text").read_text(encoding="utf-8", errors="replace")

    def upload_file(self, name: str, path_or_stream: LocalPath | IO[bytes] | IO[str]) -> None:
        """Store a file, or what a stream still holds, under ``name``; a file of that name is replaced."""
        self.upload_files([name], [path_or_stream])

    def upload_files(self, names: Sequence[str], paths: Sequence[LocalPath | IO[bytes] | IO[str]]) -> None:
        """Store several files, each under its name; nothing is stored unless all names and paths are good."""
        if isinstance(names, str) or isinstance(paths, (str, PathLike)) or len(names) != len(paths):
            raise UserErrorException(f"names and paths must be two lists of one length, got {names!r} and {paths!r}")
        wanted = [clean(name, "file") for name in names]
        if len(set(wanted)) < len(wanted):
            raise UserErrorException(f"names holds a name twice: {some(sorted(wanted))}")
        checked = [_readable(path) for path in paths]
        self._tree()
        for name, source in zip(wanted, checked, strict=True):
            self._upload(name, source)

    def _upload(self, name: str, source: Path | IO[bytes] | IO[str]) -> None:
        folder, _, last = name.rpartition("/")
        with tempfile.TemporaryDirectory() as scratch, talking(f"store {name!r} in run {self._run_id}"):
            # MLflow takes the name of the local file, so it gets one of that name.
            local = Path(scratch) / last
            if isinstance(source, Path):
                local.symlink_to(source.resolve())
            else:
                _spool(source, local)
            self._client.log_artifact(self._run_id, str(local), folder or None)

    def upload_folder(self, name: str, path: LocalPath) -> None:
        """Store all files below a folder under ``name``; links inside of it are stored as what they point to."""
        target = clean(name, "folder", root=True)
        folder = text_path(path, "path")
        files = local_tree.files_below(folder)
        self._tree()
        with talking(f"store {str(folder)!r} in run {self._run_id}"):
            if not local_tree.has_links(folder):
                self._client.log_artifacts(self._run_id, str(folder), target or None)
                return
            with tempfile.TemporaryDirectory() as scratch:
                local_tree.copy_to(files, Path(scratch))
                self._client.log_artifacts(self._run_id, scratch, target or None)


def _target(last: str, output: LocalPath | None) -> Path:
    if output is None:
        return place_within(Path.cwd(), last)
    path = text_path(output, "output_file_path")
    if path.is_dir() or str(output).endswith("/"):
        return place_within(path, last)
    return place_within(path.parent, path.name)


def _chosen(names: Sequence[str], start: str) -> list[str]:
    below = [name for name in names if not start or name.startswith(f"{start}/") or name == start]
    return below or [name for name in names if name.startswith(start)]


def _targets(
    names: Sequence[str], cut: str, directory: LocalPath | None, paths: Sequence[LocalPath] | None
) -> dict[str, Path]:
    folder = Path.cwd() if directory is None else text_path(directory, "output_directory")
    if paths is None:
        found = {name: place_within(folder, _without(cut, name)) for name in names}
    elif isinstance(paths, (str, PathLike)) or len(paths) != len(names):
        raise UserErrorException(
            f"output_paths must be a list of {len(names)} paths, one for each of {some(list(names))}"
        )
    elif directory is None:
        found = {name: _target(name.rpartition("/")[2], path) for name, path in zip(names, paths, strict=True)}
    else:
        local = [clean(str(path), "output_paths") for path in paths]
        found = {name: place_within(folder, path) for name, path in zip(names, local, strict=True)}
    if len(set(found.values())) < len(found):
        raise UserErrorException("two files would be saved under one name: give each another path in output_paths")
    return found


def _without(cut: str, name: str) -> str:
    if name == cut:
        return name.rpartition("/")[2]
    if name.startswith(f"{cut}/"):
        return name.removeprefix(f"{cut}/")
    above = cut.rpartition("/")[0]
    return name.removeprefix(f"{above}/") if above else name


def _readable(path: LocalPath | IO[bytes] | IO[str]) -> Path | IO[bytes] | IO[str]:
    if not isinstance(path, (str, PathLike)) and hasattr(path, "read"):
        return path
    local = text_path(path, "path")
    if local.is_dir():
        raise UserErrorException(f"{str(local)!r} is a folder: upload_folder takes it")
    if not local.is_file():
        raise UserErrorException(f"the file {str(local)!r} does not exist, or is no regular file")
    return local


def _spool(stream: IO[bytes] | IO[str], path: Path) -> None:
    with path.open("wb") as handle:
        while piece := stream.read(_PIECE):
            handle.write(piece.encode() if isinstance(piece, str) else piece)
