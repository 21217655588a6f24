"""What belongs to a run in the store: its name, tags, properties and files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException

from mlflow_pytorch_estimator import tags as tag_names
from mlflow_pytorch_estimator import topology
from mlflow_pytorch_estimator.estimator.artifacts.run_files import RunFiles
from mlflow_pytorch_estimator.estimator.checking import text_tags
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.experiment import Experiment
from mlflow_pytorch_estimator.estimator.recording import ledger
from mlflow_pytorch_estimator.estimator.recording.recorder import Recorder
from mlflow_pytorch_estimator.estimator.recording.sinks import MlflowSink, MutedSink, PrefixSink
from mlflow_pytorch_estimator.estimator.runs import context as run_context
from mlflow_pytorch_estimator.estimator.runs import details as run_details
from mlflow_pytorch_estimator.estimator.runs import search as run_search
from mlflow_pytorch_estimator.page import MARK, own_text
from mlflow_pytorch_estimator.rank_policy import policy

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.models.model import Model

_logger = logging.getLogger(__name__)


class StoredRun(Recorder):
    """A run as the store has it. On ranks above 0 of a job it reads, but does not write."""

    def __init__(self, experiment: Experiment, run_id: str) -> None:
        self._experiment = experiment
        self._stores = experiment.workspace.stores
        self._client = self._stores.client()
        self._id = run_id
        if self._read().info.experiment_id != experiment.id:
            raise UserErrorException(f"run {run_id} is in another experiment than {experiment.name!r}: use Run.get")
        inside = run_context.is_this_job(run_id)
        shared = inside or run_id == run_context.run_of_environment()
        owner = not shared or topology.is_rank_zero()
        super().__init__(MlflowSink(self._client, run_id) if owner else self._sink_of_others())
        self._inside, self._owner = inside, owner
        self._told = False
        self.files = RunFiles(self._stores, run_id)

    def _sink_of_others(self) -> MutedSink:
        found = policy.current()
        return PrefixSink(self._client, self._id) if found and found.keeps_metrics else MutedSink()

    def _read(self) -> Any:
        try:
            return self._client.get_run(self._id)
        except MlflowException as error:
            raise run_search.unread(self._id, self._stores.tracking_uri, error) from error

    @property
    def id(self) -> str:
        """MLflow's id of the run."""
        return self._id

    @property
    def run_id(self) -> str:
        """The same as ``id``."""
        return self._id

    @property
    def experiment(self) -> Experiment:
        """The experiment that it belongs to."""
        return self._experiment

    @property
    def name(self) -> str:
        """Its name."""
        return str(self._read().info.run_name or "")

    @property
    def display_name(self) -> str:
        """The same as ``name``; can be set."""
        return self.name

    @display_name.setter
    def display_name(self, name: str) -> None:
        if self._writes():
            self._client.update_run(self._id, name=name)

    @property
    def description(self) -> str | None:
        """What somebody has written above the page that the job writes; can be set."""
        return own_text(self._read().data.tags.get(tag_names.NOTE, "")) or None

    @description.setter
    def description(self, text: str) -> None:
        if self._writes():
            ours = self._read().data.tags.get(tag_names.NOTE, "").partition(MARK)
            self._client.set_tag(self._id, tag_names.NOTE, f"{text}\n\n{MARK}{ours[2]}" if ours[1] else text)

    @property
    def tags(self) -> dict[str, str]:
        """All tags, those of MLflow and of the job included."""
        found = self._read().data.tags
        return {key: value for key, value in found.items() if not key.startswith((tag_names.PROPERTY, ledger.PREFIX))}

    def get_tags(self) -> dict[str, str]:
        """The same as ``tags``."""
        return self.tags

    def tag(self, key: str, value: Any = None) -> None:
        """Set a tag."""
        self.set_tags({key: value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set several tags."""
        given = text_tags(tags)
        if self._writes():
            for key, value in given.items():
                self._client.set_tag(self._id, key, value)

    def remove_tags(self, tags: str | Iterable[str]) -> None:
        """Remove tags; those that are not there are left out."""
        present = self.tags
        for key in [tags] if isinstance(tags, str) else tags:
            if key in present and self._writes():
                self._client.delete_tag(self._id, key)

    @property
    def properties(self) -> dict[str, str]:
        """What was added with ``add_properties``, and the commit that the source came from."""
        return run_details.properties(self._read().data.tags)

    def get_properties(self) -> dict[str, str]:
        """The same as ``properties``."""
        return self.properties

    def add_properties(self, properties: Mapping[str, Any]) -> None:
        """Add properties, which cannot change any more."""
        given, present = text_tags(properties), self.properties
        changed = sorted(key for key, value in given.items() if present.get(key, value) != value)
        if changed:
            raise UserErrorException(f"properties cannot change: {', '.join(changed)}; use a tag")
        if self._writes():
            for key, value in given.items():
                self._client.set_tag(self._id, tag_names.PROPERTY + key, value)

    def get_file_names(self) -> Sequence[str]:
        """The names of all files of the run, those of its models included."""
        return self.files.names()

    def download_file(self, name: str, output_file_path: str | os.PathLike[str] | None = None) -> None:
        """Save one file, by default under its last name in the working directory."""
        self.files.download(name, output_file_path)

    def download_files(
        self,
        prefix: str | None = None,
        output_directory: str | os.PathLike[str] | None = None,
        output_paths: Sequence[str] | None = None,
        batch_size: int = 100,
        append_prefix: bool = True,
    ) -> None:
        """Save all files below a prefix; ``batch_size`` makes no difference."""
        self.files.download_many(prefix, output_directory, output_paths, append_prefix)

    def upload_file(self, name: str, path_or_stream: str | os.PathLike[str] | IO[bytes] | IO[str]) -> None:
        """Store one file under that name."""
        if self._writes():
            self.files.upload_file(name, path_or_stream)

    def upload_files(self, names: Sequence[str], paths: Sequence[str | os.PathLike[str]]) -> None:
        """Store several files, each under its name."""
        if self._writes():
            self.files.upload_files(names, paths)

    def upload_folder(self, name: str, path: str | os.PathLike[str]) -> None:
        """Store a folder with all that is in it under that name."""
        if self._writes():
            self.files.upload_folder(name, path)

    def register_model(
        self,
        model_name: str,
        model_path: str | None = None,
        tags: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
        model_framework: str | None = None,
        model_framework_version: str | None = None,
        description: str | None = None,
    ) -> Model:
        """Register a file or folder of the run as a new version of a model; None means the path of that name."""
        if not self._owner:
            raise UserErrorException(f"rank {topology.rank()} cannot register {model_name!r}: let rank 0 do it")
        from mlflow_pytorch_estimator.estimator.models.model import Model
        from mlflow_pytorch_estimator.estimator.models.registration import register

        version = register(
            self._stores,
            self._id,
            model_name,
            model_path,
            tags=tags,
            properties=properties,
            description=description,
            model_framework=model_framework,
            model_framework_version=model_framework_version,
        )
        return Model(self._experiment.workspace, name=version.name, version=version.version)

    def _writes(self) -> bool:
        """Whether this rank may write; the others say once that they do not."""
        if not self._owner and not self._told:
            self._told = True
            _logger.info("rank %d does not write to the run: rank 0 owns it", topology.rank())
        return self._owner
