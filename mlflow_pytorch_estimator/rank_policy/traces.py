"""What a rank above 0 writes on traces: those that it makes are dropped, on others it may write."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from mlflow.utils.mlflow_tags import MLFLOW_ARTIFACT_LOCATION

from mlflow_pytorch_estimator.rank_policy import scratch
from mlflow_pytorch_estimator.rank_policy.policy import RankPolicy
from mlflow_pytorch_estimator.rank_policy.runs import MemoryRuns


class GuardedTraces:
    """Traces begin and end nowhere; what is said about a dropped trace is dropped as well."""

    def __init__(self, original: SimpleNamespace, policy: RankPolicy, runs: MemoryRuns) -> None:
        self._original = original
        self._policy = policy
        self._runs = runs
        self._dropped: set[str] = set()

    def start_trace(self, trace_info: Any) -> Any:
        """The trace, with a place for its spans that is thrown away."""
        self._policy.tell()
        self._dropped.add(trace_info.trace_id)
        trace_info.tags.setdefault(
            MLFLOW_ARTIFACT_LOCATION, str(scratch.folder("traces", trace_info.trace_id, "artifacts"))
        )
        return trace_info

    def log_spans(self, location: str, spans: Sequence[Any], *_arguments: Any, **_named: Any) -> Sequence[Any]:
        """The spans."""
        self._policy.tell()
        self._dropped.update(span.trace_id for span in spans)
        return spans

    async def log_spans_async(self, location: str, spans: Sequence[Any]) -> Sequence[Any]:
        """The spans."""
        return self.log_spans(location, spans)

    def set_trace_tag(self, trace_id: str, key: str, value: str) -> None:
        """Set a tag."""
        if trace_id not in self._dropped:
            self._original.set_trace_tag(trace_id, key, value)

    def delete_trace_tag(self, trace_id: str, key: str) -> None:
        """Delete a tag."""
        if trace_id not in self._dropped:
            self._original.delete_trace_tag(trace_id, key)

    def create_assessment(self, assessment: Any) -> Any:
        """The assessment."""
        return assessment if assessment.trace_id in self._dropped else self._original.create_assessment(assessment)

    def link_prompts_to_trace(self, trace_id: str, prompt_versions: Sequence[Any]) -> None:
        """Link prompts."""
        if trace_id not in self._dropped:
            self._original.link_prompts_to_trace(trace_id, prompt_versions)

    def link_traces_to_run(self, trace_ids: Sequence[str], run_id: str) -> None:
        """Link traces to a run that is neither the job's nor of this process."""
        self._link("link_traces_to_run", trace_ids, run_id)

    def unlink_traces_from_run(self, trace_ids: Sequence[str], run_id: str) -> None:
        """The reverse."""
        self._link("unlink_traces_from_run", trace_ids, run_id)

    def _link(self, method: str, trace_ids: Sequence[str], run_id: str) -> None:
        if run_id == self._policy.run_id:
            self._policy.tell()
        elif run_id not in self._runs:
            rest = [trace for trace in trace_ids if trace not in self._dropped]
            if rest:
                getattr(self._original, method)(rest, run_id)
