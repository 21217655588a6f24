"""``Run``: an MLflow run together with the job that works for it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mlflow.utils import mlflow_tags

from mlflow_pytorch_estimator import tags as tag_names
from mlflow_pytorch_estimator import tracking
from mlflow_pytorch_estimator.estimator.checking import text_tags
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.experiment import Experiment
from mlflow_pytorch_estimator.estimator.runs import context as run_context
from mlflow_pytorch_estimator.estimator.runs import details as run_details
from mlflow_pytorch_estimator.estimator.runs import page as run_page
from mlflow_pytorch_estimator.estimator.runs import search as run_search
from mlflow_pytorch_estimator.estimator.runs import waiting as run_waiting
from mlflow_pytorch_estimator.estimator.runs.stored import StoredRun
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.recording.offline import OfflineRun
    from mlflow_pytorch_estimator.estimator.workspace import Workspace

_logger = logging.getLogger(__name__)


class Run(StoredRun):
    """A run of an experiment: its status, logs, metrics and files, and the way to end it or to register a model.

    Raises UserErrorException when the experiment has no such run.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._experiment, self._id)  # what it holds besides cannot be copied

    def __repr__(self) -> str:
        return f"Run(experiment={self._experiment.name!r}, id={self._id!r}, status={self.status!r})"

    def _repr_html_(self) -> str:
        return run_page.html(self)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.complete()
        else:
            self.fail(error_details=f"{type(error).__name__}: {error}")

    @staticmethod
    def get_context(allow_offline: bool = True) -> Run | OfflineRun:
        """The run that this script works for; outside of any run, one that prints.

        Raises RunEnvironmentException there with ``allow_offline=False``.
        """
        return run_context.get_context(allow_offline)

    @staticmethod
    def get(workspace: Workspace, run_id: str) -> Run:
        """The run of that id."""
        return run_search.get(workspace, run_id)

    @staticmethod
    def list(
        experiment: Experiment,
        type: str | None = None,  # noqa: A002 - the original's name
        tags: str | Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
        status: str | None = None,
        include_children: bool = False,
    ) -> Iterator[Run]:
        """The runs of an experiment, newest first."""
        run_search.check_type(type)
        return run_search.listed(experiment, tags, properties, status, include_children)

    @property
    def type(self) -> str:
        """``gpu-cluster`` for a job, ``interactive`` for a run of some process."""
        return "gpu-cluster" if tag_names.STATUS in self._read().data.tags else "interactive"

    @property
    def parent(self) -> Run | None:
        """The run that this one is a child of."""
        parent = self._read().data.tags.get(mlflow_tags.MLFLOW_PARENT_RUN_ID)
        return Run.get(self._experiment.workspace, parent) if parent else None

    @property
    def status(self) -> str:
        """Preparing, Queued, Scaling, Running, Finalizing, Completed, Failed or Canceled."""
        return str(self._phase())

    def get_status(self) -> str:
        """The same as ``status``."""
        return self.status

    def get_detailed_status(self) -> dict[str, str]:
        """The status, and what the job says to it."""
        phase = self._phase()
        return {"status": str(phase), "details": run_details.saying(self, phase)}

    @property
    def job(self) -> GpuClusterSubmittedRun | None:
        """The job, when it was submitted from this machine and this workspace's home."""
        with self._experiment.workspace.at_home():
            directory = JobDir.of_run(self._id)
        if not directory.exists:
            return None
        return GpuClusterSubmittedRun(self._id, directory, self.get_portal_url(), stores=self._stores)

    def _phase(self) -> Phase:
        here = run_context.this_job() if self._inside else None
        if here is not None and here.exists:
            return here.phase  # the store hears of it a little later
        return run_details.phase(self._read(), self.job)

    def wait_for_completion(
        self, show_output: bool = False, wait_post_processing: bool = False, raise_on_error: bool = True
    ) -> dict[str, Any]:
        """Wait until the run has ended and everything of it is stored; returns ``get_details()``.

        Raises ExperimentExecutionException when it failed or was canceled, unless ``raise_on_error`` is False.
        Ctrl-C lets go of the job, which goes on: DetachedError; a second one within 5 s cancels it.
        ``wait_post_processing`` makes no difference: a run has ended when its files are there.
        """
        run_waiting.wait(self, show_output, raise_on_error)
        return self.get_details()

    def get_details(self) -> dict[str, Any]:
        """Id, target, status, times, error, properties, what was submitted, and the names of the logs."""
        return run_details.details(self)

    def get_details_with_logs(self) -> dict[str, Any]:
        """``get_details`` with the text of each log in ``logFiles``."""
        found = self.get_details()
        return {**found, "logFiles": run_details.log_texts(self)}

    def get_all_logs(self, destination: str | os.PathLike[str] | None = None) -> Sequence[str]:
        """Save all logs, also of a job that runs, in a folder (``ID_logs`` here); returns their paths."""
        return run_details.save_logs(self, Path(destination) if destination else Path(f"{self._id}_logs"))

    def get_portal_url(self) -> str | None:
        """The page of the run; None where the store has no user interface."""
        return tracking.run_url(self._read(), self._stores.tracking_uri)

    @property
    def input_datasets(self) -> dict[str, str]:
        """Inside of a job: the path of each input by its name."""
        return run_context.inputs()

    def get_snapshot_id(self) -> str | None:
        """Digest of the sources that the job runs; None where the job is not known."""
        return self.job.directory.job.snapshot if self.job else None

    def start(self) -> None:
        """Nothing to do: a run has started when it is there."""

    def cancel(self) -> None:
        """End the job and wait until nothing of it is left; the run is Canceled. From inside of the job: ask for it."""
        if self._inside:
            run_context.cancel_this_job()
        elif self.job is not None:
            self.job.cancel()
        else:
            self.flush()
            run_waiting.end_interactive(self, "KILLED")

    def complete(self) -> None:
        """End a run of this process; a job ends by itself."""
        if not self._is_job("complete"):
            self.flush()
            run_waiting.end_interactive(self, "FINISHED")

    def fail(self, error_details: Any = None, error_code: str | None = None) -> None:
        """End a run of this process as Failed; a job fails by raising an exception or exiting with a status."""
        if self._is_job("fail"):
            return
        self.flush()
        text = ": ".join(str(part) for part in (error_code, error_details) if part)
        if text:
            self._client.set_tag(self._id, tag_names.FAILURE, text[:5000])
        run_waiting.end_interactive(self, "FAILED")

    def child_run(self, name: str | None = None) -> Run:
        """A new run below this one, to log into; ``complete`` ends it. On ranks above 0, this run itself."""
        if not self._writes():
            return self  # muted, so that each child exists once
        tags = {mlflow_tags.MLFLOW_PARENT_RUN_ID: self._id}
        return self._experiment.start_logging(run_name=name, tags=tags)

    def submit_child(self, config: Any, tags: Mapping[str, Any] | None = None, **overrides: Any) -> Run:
        """Submit a job whose run is below this one."""
        below = {**text_tags(tags), mlflow_tags.MLFLOW_PARENT_RUN_ID: self._id}
        return self._experiment.submit(config, below, **overrides)

    def create_children(
        self, count: int | None = None, tag_key: str | None = None, tag_values: Sequence[Any] | None = None
    ) -> Sequence[Run]:
        """Several children: a number of them, or one for each value of a tag."""
        if (count is None) == (tag_key is None or tag_values is None):
            raise UserErrorException("create_children takes either count, or tag_key and tag_values")
        if count is not None:
            return [self.child_run() for _ in range(count)]
        children = [self.child_run() for _ in tag_values or ()]
        for child, value in zip(children, tag_values or (), strict=True):
            child.tag(str(tag_key), value)
        return children

    def get_children(
        self,
        recursive: bool = False,
        tags: str | Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
        type: str | None = None,  # noqa: A002 - the original's name
        status: str | None = None,
    ) -> Iterator[Run]:
        """The runs below this one, newest first."""
        run_search.check_type(type)
        return run_search.children(self, recursive, tags, properties, status)

    def _is_job(self, method: str) -> bool:
        if not self._inside and self.job is None:
            return False
        _logger.info("%s(): run %s belongs to a job, whose own end decides", method, self._id)
        return True
