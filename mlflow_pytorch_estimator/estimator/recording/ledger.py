"""What a run has been logged already: which key a name has there, and which step comes next.

MLflow knows metrics, tags and files. What a name was logged as beyond a plain metric under its own name is kept in
one tag of the run for each such name, a JSON object, so that ``get_metrics`` finds it again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace

from mlflow_pytorch_estimator.estimator.recording import legalnames

_logger = logging.getLogger(__name__)

# MLflow's pages hide tags that begin like this one.
PREFIX = "mlflow.gpu_cluster.logged."
_MAX_NAME = 1000  # characters of each text in the tag, whose value MLflow cuts


@dataclass(frozen=True)
class Mark:
    """How a name was logged. ``path`` is its latest file, ``count`` the number of files that it has."""

    name: str
    key: str
    kind: str = "metric"
    path: str | None = None
    count: int = 0
    description: str = ""

    def tag(self) -> tuple[str, str]:
        """The tag that keeps this; ASCII, because not every database stores every character."""
        name = PREFIX + self.key
        if len(name) > legalnames.MAX_LENGTH:
            name = PREFIX + hashlib.sha256(self.key.encode()).hexdigest()[:32]
        content = {key: value for key, value in asdict(self).items() if value}
        return name, json.dumps({**content, "name": self.name[:_MAX_NAME]})


def read_marks(tags: Mapping[str, str]) -> dict[str, Mark]:
    """The marks among a run's tags, by the name that the script used."""
    found = {}
    for key, value in tags.items():
        if not key.startswith(PREFIX):
            continue
        try:
            mark = Mark(**json.loads(value))
        except (ValueError, TypeError):  # cut short, or somebody else's
            continue
        found[mark.name] = mark
    return found


class Ledger:
    """Names and steps of one run. ``last_step`` looks one up that an earlier process logged."""

    def __init__(self, metrics: Iterable[str], marks: Mapping[str, Mark], last_step: Callable[[str], int]) -> None:
        self._unread = set(metrics)
        self._marks = dict(marks)
        self._owners = {key: key for key in self._unread} | {mark.key: mark.name for mark in marks.values()}
        self._last_step = last_step
        self._steps: dict[str, int] = {}

    def mark(self, name: str, kind: str = "metric") -> tuple[Mark, bool]:
        """How this name is logged, and whether that is new and worth a tag."""
        known = self._marks.get(name)
        if known is not None and kind in {known.kind, "metric"}:
            return known, False
        mark = replace(known, kind=kind) if known else Mark(name, self._key(name), kind)
        if kind == "metric" and mark.key == name:
            return mark, False
        self._marks[name] = mark
        return mark, True

    def update(self, mark: Mark) -> None:
        """Remember a mark that was stored."""
        self._marks[mark.name] = mark

    def steps(self, key: str, count: int, step: int | None) -> list[int]:
        """The steps of ``count`` values; without one they go on after the last."""
        last = self._steps.get(key, -1)
        if step is None and key not in self._steps and key in self._unread:
            last = self._last_step(key)
        found = [step] * count if step is not None else list(range(last + 1, last + 1 + count))
        if found:
            self._steps[key] = max(last, found[-1])
        return found

    def _key(self, name: str) -> str:
        key = legalnames.nearest(name)
        # A name longer than this is known by its beginning after a restart; its key holds a digest of all of it.
        if self._owners.setdefault(key, name[:_MAX_NAME]) != name[:_MAX_NAME]:
            taken, key = key, legalnames.distinct(name)
            self._owners[key] = name[:_MAX_NAME]
            _logger.warning("%r is logged as %r, because %r is taken by %r", name, key, taken, self._owners[taken])
        return key
