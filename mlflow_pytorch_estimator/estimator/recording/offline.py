"""The run of a script that runs outside of any job: it prints, and nothing is stored."""

from __future__ import annotations

import builtins
import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from mlflow_pytorch_estimator.estimator.exceptions import RunEnvironmentException, UserErrorException
from mlflow_pytorch_estimator.estimator.recording.recorder import Recorder
from mlflow_pytorch_estimator.estimator.recording.sinks import PrintingSink


def _impossible(method: str, remedy: str) -> Callable[..., NoReturn]:
    def refuse(self: OfflineRun, *_arguments: object, **_keywords: object) -> NoReturn:
        raise RunEnvironmentException(f"{method}() needs a run, and {self.id} is none: {remedy}")

    refuse.__name__ = method
    refuse.__doc__ = "Raises: there is no run."
    return refuse


_SUBMIT = "submit the script with Experiment.submit, or get the run with workspace.get_run(run_id)"


class OfflineRun(Recorder):
    """What ``Run.get_context()`` returns outside of any run."""

    experiment: None = None
    job: None = None
    number: int = 0
    description: str | None = None

    def __init__(self, name: str | None = None, parent: OfflineRun | None = None) -> None:
        super().__init__(PrintingSink())
        self.id = f"OfflineRun_{uuid.uuid4()}"
        self.display_name = self.name = name or self.id
        self.parent = parent
        self._status = "Running"
        self._error: str | None = None
        self._tags: dict[str, str] = {}
        self._properties: dict[str, str] = {}
        self._children: list[OfflineRun] = []
        self._started = datetime.now(timezone.utc)
        self._ended: datetime | None = None

    def __repr__(self) -> str:
        return f"OfflineRun(id={self.id!r}, status={self._status!r})"

    def __enter__(self) -> OfflineRun:
        return self

    def __exit__(
        self, _kind: builtins.type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.complete()
        else:
            self.fail(error_details=f"{type(error).__name__}: {error}")

    @property
    def type(self) -> str:
        """The kind of run."""
        return "offline"

    @property
    def run_id(self) -> str:
        """The same as ``id``."""
        return self.id

    @property
    def status(self) -> str:
        """Running, then Completed, Failed or Canceled."""
        return self._status

    @property
    def tags(self) -> dict[str, str]:
        """The tags that were set."""
        return dict(self._tags)

    @property
    def properties(self) -> dict[str, str]:
        """The properties that were added."""
        return dict(self._properties)

    @property
    def input_datasets(self) -> dict[str, str]:
        """None: nobody prepared inputs."""
        return {}

    def get_status(self) -> str:
        """The same as ``status``."""
        return self._status

    def get_detailed_status(self) -> dict[str, str]:
        """The status with a sentence."""
        return {"status": self._status, "details": self._error or "this script runs outside of any run"}

    def get_details(self) -> dict[str, Any]:
        """Id, status and times."""
        return {
            "runId": self.id,
            "target": "local",
            "status": self._status,
            "startTimeUtc": self._started.isoformat(),
            "endTimeUtc": self._ended.isoformat() if self._ended else None,
            "error": self._error,
            "properties": self.properties,
            "logFiles": {},
        }

    get_details_with_logs = get_details

    def wait_for_completion(self, *_arguments: object, **_keywords: object) -> dict[str, Any]:
        """Returns the details at once: the caller is what would be waited for."""
        return self.get_details()

    def start(self) -> None:
        """Nothing to start."""

    def complete(self, _set_status: bool = True) -> None:
        """Say that the run has succeeded."""
        self._end("Completed")

    def fail(self, error_details: object = None, error_code: str | None = None, _set_status: bool = True) -> None:
        """Say that the run has failed."""
        self._error = ": ".join(str(part) for part in (error_code, error_details) if part is not None) or None
        self._end("Failed")

    def cancel(self) -> None:
        """Say that the run is cancelled; the script goes on."""
        self._end("Canceled")

    def tag(self, key: str, value: object = None) -> None:
        """Set a tag, for this process."""
        self._tags[key] = "" if value is None else str(value)
        print(f"tag {key} = {self._tags[key]}", flush=True)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set several tags."""
        for key, value in tags.items():
            self.tag(key, value)

    def remove_tags(self, tags: str | Iterable[str]) -> None:
        """Remove tags; those that are not there are left out."""
        for key in [tags] if isinstance(tags, str) else tags:
            self._tags.pop(key, None)

    def get_tags(self) -> dict[str, str]:
        """The tags that were set."""
        return self.tags

    def add_properties(self, properties: Mapping[str, object]) -> None:
        """Add properties, which cannot change any more."""
        changed = [key for key, value in properties.items() if self._properties.get(key, str(value)) != str(value)]
        if changed:
            raise UserErrorException(f"properties cannot change: {', '.join(changed)}; use a tag")
        self._properties.update({key: str(value) for key, value in properties.items()})

    def get_properties(self) -> dict[str, str]:
        """The properties that were added."""
        return self.properties

    def upload_file(self, name: str, path_or_stream: object, datastore_name: str | None = None) -> None:
        """Say where the file is; outside of a run nothing is stored."""
        del datastore_name
        if isinstance(path_or_stream, (str, os.PathLike)):
            print(f"file {name}: {_existing(path_or_stream, folder=False)}, not stored outside of a run", flush=True)
        else:
            print(f"file {name}: a stream, not stored outside of a run", flush=True)

    def upload_files(
        self, names: Sequence[str], paths: Sequence[str | os.PathLike[str]], *_arguments: object, **_keywords: object
    ) -> None:
        """Say where the files are."""
        if len(names) != len(paths):
            raise UserErrorException(f"upload_files takes one path for each name, not {len(paths)} for {len(names)}")
        for name, path in zip(names, paths, strict=True):
            self.upload_file(name, path)

    def upload_folder(self, name: str, path: str | os.PathLike[str], datastore_name: str | None = None) -> None:
        """Say where the folder is."""
        del datastore_name
        print(f"folder {name}: {_existing(path, folder=True)}, not stored outside of a run", flush=True)

    def get_file_names(self) -> Sequence[str]:
        """No names: nothing is stored."""
        return []

    def get_portal_url(self) -> None:
        """There is no page."""

    def child_run(self, name: str | None = None, run_id: str | None = None, outputs: object = None) -> OfflineRun:
        """Another offline run below this one."""
        del outputs
        child = OfflineRun(name, parent=self)
        child.id = run_id or child.id
        self._children.append(child)
        return child

    def create_children(
        self, count: int | None = None, tag_key: str | None = None, tag_values: Sequence[object] | None = None
    ) -> Sequence[OfflineRun]:
        """Several children: a number of them, or one for each value of a tag."""
        if (count is None) == (tag_key is None or tag_values is None):
            raise UserErrorException("create_children takes either count, or tag_key and tag_values")
        children = [self.child_run() for _ in range(count if count is not None else len(tag_values or ()))]
        for child, value in zip(children, tag_values or (), strict=False):
            child.tag(str(tag_key), value)
        return children

    def get_children(self, recursive: bool = False, *_arguments: object, **_keywords: object) -> Sequence[OfflineRun]:
        """The children that this process made."""
        below = [each for child in self._children for each in child.get_children(True)] if recursive else []
        return [*self._children, *below]

    def _end(self, status: str) -> None:
        self._status = status
        self._ended = datetime.now(timezone.utc)

    @staticmethod
    def get_context(allow_offline: bool = True) -> Any:
        """The same as ``Run.get_context``."""
        from mlflow_pytorch_estimator.estimator.runs.run import Run

        return Run.get_context(allow_offline)

    get = _impossible("get", "call Run.get")
    list = _impossible("list", "call Run.list")
    register_model = _impossible("register_model", "submit the script first, or use Model.register with the file")
    submit_child = _impossible("submit_child", _SUBMIT)
    download_file = _impossible("download_file", "open the local file")
    download_files = _impossible("download_files", "open the local files")
    get_all_logs = _impossible("get_all_logs", "what the script prints is on its terminal")
    get_environment = _impossible("get_environment", _SUBMIT)
    get_secret = _impossible("get_secret", "read the environment variable")
    get_secrets = _impossible("get_secrets", "read the environment variables")
    get_snapshot_id = _impossible("get_snapshot_id", _SUBMIT)
    take_snapshot = _impossible("take_snapshot", _SUBMIT)
    restore_snapshot = _impossible("restore_snapshot", _SUBMIT)
    clean = _impossible("clean", "remove the local files")


def _existing(path: str | os.PathLike[str], folder: bool) -> Path:
    found = Path(path)
    if not (found.is_dir() if folder else found.is_file()):
        raise UserErrorException(f"there is no {'folder' if folder else 'file'} {str(path)!r}")
    return found.absolute()
