"""A script with its arguments as the source of a job."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_pytorch_estimator import jobdir, processes, tracking
from mlflow_pytorch_estimator.containers import mounts
from mlflow_pytorch_estimator.data_input import DataInput, Downloads, is_artifact_uri
from mlflow_pytorch_estimator.description import Description
from mlflow_pytorch_estimator.environments import EnvironmentSpec
from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.secretvalues import Concealer
from mlflow_pytorch_estimator.shellsecrets import HiddenSecrets
from mlflow_pytorch_estimator.snapshots import walk
from mlflow_pytorch_estimator.spec import Container

Word = str | DataInput
_LONGEST_COMMAND = 128 * 1024 - 1  # bytes; Linux takes no longer single argument, and `bash -c` gets one


@dataclass(frozen=True)
class ScriptSource:
    """A folder, the words of a command in it, and what says which packages it needs."""

    directory: Path
    words: tuple[Word, ...]
    """Program and arguments; the script gets them byte for byte. An artifact URI becomes a path."""
    environment: Callable[[Path], EnvironmentSpec]
    """Given the folder, so that files in it can be read."""
    entry_point: str
    inputs: tuple[DataInput, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    """The user's own; secrets among them stay out of the command."""
    container: Container | None = None
    """The image that the script runs in."""

    def describe(self, scratch: Path) -> Description:
        """Check and describe."""
        if not self.directory.is_dir():
            raise ProjectError(f"source_directory {str(self.directory)!r} is no folder")
        if self.words[:2] == ("python", self.entry_point):
            _check_is_taken(self.directory, os.path.normpath(self.entry_point))
        downloads = Downloads()
        concealer = Concealer.from_environ({**processes.environment(), **self.environment_variables})
        paths = {input_name(item, number): downloads.path_of(item) for number, item in enumerate(self.inputs)}
        return Description(
            top=self.directory.absolute(),
            subdirectory="",
            name=_storable(self.directory.resolve().name),
            entry_point=self.entry_point,
            command=_command(self.words, downloads, concealer),
            parameters={name: concealer.conceal(value) for name, value in self.parameters.items()},
            environment=self.environment(self.directory),
            inputs=downloads.uris,
            container=self.container and mounts.with_paths(self.container, self._local_inputs(downloads)),
            input_paths=paths,
            datasets=self._datasets(downloads),
            tags={
                name: _storable(value)
                for name, value in tracking.source_tags(
                    self.directory.absolute() / self.entry_point, self.entry_point
                ).items()
            },
        )

    def _datasets(self, downloads: Downloads) -> dict[str, dict[str, str]]:
        """The inputs, and what stands among the arguments under the name of its option."""
        found = {input_name(item, number): item for number, item in enumerate(self.inputs)}
        for number, word in enumerate(self.words):
            if isinstance(word, DataInput) or is_artifact_uri(word):
                before = self.words[number - 1] if number else ""
                option = before.lstrip("-") if isinstance(before, str) and before.startswith("-") else ""
                item = word if isinstance(word, DataInput) else DataInput(word)
                found.setdefault(option or item.name or f"argument_{number}", item)
        return {
            name: {"uri": tracking.without_credentials(item.origin()), "path": downloads.path_of(item)}
            for name, item in found.items()
        }

    def _local_inputs(self, downloads: Downloads) -> list[str]:
        items = (*self.inputs, *(word for word in self.words if isinstance(word, DataInput)))
        return [downloads.path_of(item) for item in items]


def _check_is_taken(directory: Path, script: str) -> None:
    if not walk.takes(directory.resolve(), jobdir.home(), script):
        raise ProjectError(
            f"the job's copy of {str(directory)!r} would lack {script!r}: .gitignore or .amlignore names it, or it is "
            f"in a folder that is always left out; move it, or write '!{script}' into .amlignore"
        )


def _storable(text: str) -> str:
    """Text that every store takes: a file name need not be UTF-8."""
    return text.encode("utf-8", errors="backslashreplace").decode()


def input_name(item: DataInput, number: int) -> str:
    """What the script calls an input: its name, or its place in the list."""
    return item.name or f"input_{number}"


def _command(words: tuple[Word, ...], downloads: Downloads, concealer: Concealer) -> str:
    secrets = HiddenSecrets(concealer)
    parts = [_quoted(word, downloads, secrets) for word in words]
    command = secrets.expand(" ".join(parts))
    if len(os.fsencode(command)) > _LONGEST_COMMAND:
        raise ProjectError(
            f"the arguments are {len(os.fsencode(command))} bytes long; Linux takes {_LONGEST_COMMAND}: "
            "write them into a file of the source directory"
        )
    return command


def _quoted(word: Word, downloads: Downloads, secrets: HiddenSecrets) -> str:
    if isinstance(word, DataInput) or is_artifact_uri(word):
        item = word if isinstance(word, DataInput) else DataInput(word)
        path = downloads.path_of(item)
        return path if path in downloads.uris else shlex.quote(path)  # the preparer quotes what it puts in
    return shlex.quote(secrets.hide(word))
