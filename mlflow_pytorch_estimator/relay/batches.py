"""Which requests need no answer, and how many of them become one.

The paths and fields are those of MLflow's REST API.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mlflow_pytorch_estimator.relay.calls import Call

_RUNS = "/mlflow/runs/"
_MOST = {"metrics": 1000, "params": 100, "tags": 100}  # what a store takes at once
_MOST_ENTRIES = 1000
_MOST_BYTES = 500_000
_SINGLE = {"log-metric": "metrics", "log-parameter": "params", "set-tag": "tags"}
_UNANSWERED = frozenset({*_SINGLE, "log-batch", "log-inputs", "delete-tag", "update"})


def prompt_answer(method: str, path: str, body: bytes) -> dict[str, Any] | None:
    """What a rank is told at once, or None where only the store knows.

    Given where MLflow's client does nothing with the answer, or only with what is in the request itself.
    """
    name = _run_call(path)
    if method != "POST" or name not in _UNANSWERED:
        return None
    if name != "update":
        return {}
    try:
        asked = json.loads(body)
    except ValueError:
        return None
    known = ("run_id", "run_uuid", "run_name", "status", "end_time")
    return {"run_info": {**{key: asked[key] for key in known if key in asked}, "lifecycle_stage": "active"}}


@dataclass
class Group:
    """Requests that are sent as one."""

    calls: list[Call]
    end: int
    """Offset behind the last one."""
    body: dict[str, Any] | None = None
    """Of the ``log-batch`` that says the same, if there are several."""
    _bytes: int = 0
    _values: dict[tuple[str, str], Any] = field(default_factory=dict)

    @classmethod
    def of(cls, call: Call, end: int) -> Group:
        """A group of one, which others may join."""
        group = cls([call], end)
        entries = _entries(call)
        if entries is not None:
            group.body = {"run_id": entries[0], "metrics": [], "params": [], "tags": []}
            group._take(call, entries[1])
        return group

    def join(self, call: Call, end: int) -> bool:
        """Take one more request in, if the store can get it in the same batch."""
        entries = _entries(call) if self.body is not None else None
        if (
            self.body is None
            or entries is None
            or entries[0] != self.body["run_id"]
            or not self._fits(call, entries[1])
        ):
            return False
        self._take(call, entries[1])
        self.calls.append(call)
        self.end = end
        return True

    def _fits(self, call: Call, entries: list[tuple[str, dict[str, Any]]]) -> bool:
        body = self.body or {}
        counts = {kind: len(body[kind]) for kind in _MOST}
        for kind, entry in entries:
            counts[kind] += 1
            # A second value for a tag or a parameter is the store's business, in a batch of its own.
            if kind != "metrics" and self._values.get((kind, entry["key"]), entry.get("value")) != entry.get("value"):
                return False
        within = all(counts[kind] <= most for kind, most in _MOST.items()) and sum(counts.values()) <= _MOST_ENTRIES
        return within and self._bytes + len(call.text or "") <= _MOST_BYTES

    def _take(self, call: Call, entries: list[tuple[str, dict[str, Any]]]) -> None:
        body = self.body or {}
        for kind, entry in entries:
            if kind != "metrics":
                if (kind, entry["key"]) in self._values:
                    continue
                self._values[kind, entry["key"]] = entry.get("value")
            body[kind].append(entry)
        self._bytes += len(call.text or "")


def groups(calls: Iterable[tuple[Call, int]]) -> Iterator[Group]:
    """Neighbours that make one batch, in order."""
    group: Group | None = None
    for call, end in calls:
        if group is not None and group.join(call, end):
            continue
        if group is not None:
            yield group
        group = Group.of(call, end)
    if group is not None:
        yield group


def _run_call(path: str) -> str:
    """``log-metric`` of ``/api/2.0/mlflow/runs/log-metric``; "" of other paths."""
    prefix, _, name = path.partition("?")[0].partition(_RUNS)
    return name if prefix.startswith("/api/") else ""


def _entries(call: Call) -> tuple[str, list[tuple[str, dict[str, Any]]]] | None:
    """The run of a request, and what it adds to a batch, each with its kind; None for all other requests."""
    name = _run_call(call.path)
    if not call.answered or call.text is None or name not in {*_SINGLE, "log-batch"}:
        return None
    try:
        body = json.loads(call.text)
        run = body.get("run_id") or body["run_uuid"]
        if name == "log-batch":
            found = [(kind, entry) for kind in _MOST for entry in body.get(kind, ())]
        else:
            found = [(_SINGLE[name], {key: body[key] for key in body if key not in {"run_id", "run_uuid"}})]
        all(entry["key"] for _, entry in found)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return run, found
