"""The job directory, mirrored into the MLflow run. Idempotent: it may be repeated, by anyone, after any crash."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mlflow.entities import Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from mlflow_pytorch_estimator import locks, page, tags, tracking, uploads
from mlflow_pytorch_estimator.arrays import group
from mlflow_pytorch_estimator.files import write_atomic
from mlflow_pytorch_estimator.jobdir import JobDir, Outcome
from mlflow_pytorch_estimator.secretvalues import Concealer
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.system_metrics import SystemMetrics
from mlflow_pytorch_estimator.tracking import Stores, stores_of

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.relay.forward import Forwarder

_STATUS_CHECK_SECONDS = 10.0
_LONGEST_PARAMETER = 6000
_LONGEST_TAG = 8000
_REFUSALS = ("INVALID_PARAMETER_VALUE", "ENDPOINT_NOT_FOUND", "FEATURE_DISABLED")


def _storable(text: str, longest: int) -> str:
    """Text that every store takes: no bytes that are not UTF-8, not too long."""
    text = text.encode("utf-8", errors="backslashreplace").decode()
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _note(there: Mapping[str, str], text: str) -> str:
    """Our page, below what somebody else has written there."""
    theirs = page.own_text(there.get(tags.NOTE, ""))
    return f"{theirs}\n\n{page.MARK}\n\n{text}" if theirs else f"{page.MARK}\n\n{text}"


def _forwarder(directory: JobDir, stores: Stores) -> Forwarder:
    from mlflow_pytorch_estimator.relay.forward import Forwarder

    return Forwarder(directory, stores)


class RunMirror:
    """Writes one run from one job directory."""

    def __init__(self, directory: JobDir, stores: Stores | None = None) -> None:
        self._directory = directory
        self._job = directory.job
        self._stores = stores or stores_of(self._job)
        self._client = self._stores.client()
        self._forwarder = _forwarder(directory, self._stores) if self._job.relay else None
        self._concealer = Concealer.from_environ()
        self._metrics = SystemMetrics(self._client, self._job, directory)
        self._logs = uploads.LiveLogs(self._client, self._job.run_id)
        self._state: tuple[Phase, int, str] | None = None
        self._checked = 0.0

    def sync(self) -> None:
        """One round while the job lives: phase, logs, system metrics."""
        with locks.holding(self._directory.delivery_lock):
            if self._directory.outcome is not None:
                return  # somebody may have delivered it: nothing live must come after
            phase = self._directory.phase
            state = (phase, self._directory.attempt, page.waiting_reason(phase, self._directory.events()))
            if state != self._state:
                self._enter(phase)
                self._state = state
            elif phase is Phase.RUNNING and time.monotonic() - self._checked > _STATUS_CHECK_SECONDS:
                self._keep_running()
            if phase is Phase.RUNNING:
                self._tell_datasets()
                self._metrics.upload()
                self._logs.upload(self._directory.rank_logs())

    def relay(self) -> None:
        """Send on what the ranks have said to MLflow, where they cannot do that themselves."""
        if self._forwarder is not None:
            self._forwarder.pump()

    def close(self) -> None:
        """Let go of what relaying needs."""
        if self._forwarder is not None:
            self._forwarder.close()

    def deliver(self) -> None:
        """Write everything that is left, the status last. Raises what the store raises."""
        with locks.holding(self._directory.delivery_lock):
            outcome = self._directory.outcome
            if outcome is None or self._directory.delivered.exists():
                return
            try:
                self.relay()
            finally:
                self.close()
            with _forgetting_deleted_runs():
                self._deliver(outcome)
            self._mark_delivered()

    def _mark_delivered(self) -> None:
        with group.ending(self._directory) as above:
            if above is not None:
                self._show(above)
            self._directory.delivered.touch(mode=0o600)

    def _show(self, above: JobDir) -> None:
        """Write the run above those of an array, as it is now."""
        mirror = RunMirror(above, self._stores)
        with _forgetting_deleted_runs():
            mirror.sync()
        mirror.deliver()

    def _enter(self, phase: Phase) -> None:
        self._set_tags(phase, None, {})
        self._client.update_run(self._job.run_id, status=phase.mlflow_status)
        self._checked = time.monotonic()
        above = group.begun(self._directory) if phase is Phase.RUNNING else None
        if above is not None:
            self._show(above)

    def _tell_datasets(self) -> None:
        """Once; it reads the data. Datasets that the store refuses are told of no more."""
        if not self._job.datasets or self._directory.datasets_told.exists():
            return
        from mlflow_pytorch_estimator.datasets import inputs_of

        try:
            self._client.log_inputs(self._job.run_id, inputs_of(self._directory.job, self._concealer.conceal))
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
        with suppress(OSError):  # it would be told once more, which changes nothing
            self._directory.datasets_told.touch(mode=0o600)

    def _keep_running(self) -> None:
        # A process of the job that leaves `start_run` ends the run, although the job goes on.
        self._checked = time.monotonic()
        status = self._client.get_run(self._job.run_id).info.status
        if RunStatus.is_terminated(RunStatus.from_string(status)):
            self._client.update_run(self._job.run_id, status=Phase.RUNNING.mlflow_status)

    def _set_tags(self, phase: Phase, outcome: Outcome | None, more: dict[str, str]) -> None:
        there = self._client.get_run(self._job.run_id).data.tags
        waiting = page.waiting_reason(phase, self._directory.events())
        if not waiting and tags.WAITING in there:
            self._client.delete_tag(self._job.run_id, tags.WAITING)
        values = {
            tags.STATUS: phase.value,
            tags.NOTE: _note(there, page.describe(self._job, self._directory, phase, outcome)),
            **({tags.JOB_ID: self._directory.job_id} if self._directory.job_id else {}),
            **({tags.WAITING: waiting} if waiting else {}),
            **({tags.ATTEMPT: str(self._directory.attempt)} if self._directory.attempt > 1 else {}),
            **more,
        }
        run_tags = [
            RunTag(key, _storable(self._concealer.conceal(value), _LONGEST_TAG)) for key, value in values.items()
        ]
        self._client.log_batch(self._job.run_id, tags=run_tags)

    def _deliver(self, outcome: Outcome) -> None:
        run_id = self._job.run_id
        self._metrics.upload()
        problems = uploads.upload_results(self._client, self._directory, self._job, outcome, self._concealer)
        run = self._client.get_run(run_id)
        # The script's own logging wins: MLflow refuses a second value, so ours may only come after it.
        params = [
            Param(key, _storable(self._concealer.conceal(value), _LONGEST_PARAMETER))
            for key, value in self._job.parameters.items()
            if key not in run.data.params
        ]
        problems += self._log_params(params)
        self._tell_datasets()
        if problems:
            with suppress(OSError):
                write_atomic(self._directory.undelivered, "\n".join(problems) + "\n")
        self._set_tags(outcome.phase, outcome, tags.of_outcome(outcome, problems))
        tracking.end(self._client, run_id, outcome.phase.mlflow_status, run.info.start_time)

    def _log_params(self, params: list[Param]) -> list[str]:
        # A name or value that the store refuses must not keep the job's end from the run.
        try:
            for start in range(0, len(params), 100):
                self._client.log_batch(self._job.run_id, params=params[start : start + 100])
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            return [f"parameters: {str(error)[:300]}"]
        return []


@contextmanager
def _forgetting_deleted_runs() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        # Somebody deleted the run or its experiment: there is nothing left to tell the truth to.
        deleted = any(words in str(error) for words in ("'deleted' state", "Current state is deleted"))
        if error.error_code != "RESOURCE_DOES_NOT_EXIST" and not deleted:
            raise
