"""A run in some lines of plain text."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow_pytorch_estimator.estimator.showing.charts import number
from mlflow_pytorch_estimator.estimator.showing.logs import last_lines
from mlflow_pytorch_estimator.estimator.showing.sight import Sight
from mlflow_pytorch_estimator.journal import duration
from mlflow_pytorch_estimator.status import Phase

_METRICS = 8


def lines(sight: Sight, logs: Mapping[str, str]) -> list[str]:
    """The run; ``logs`` are the ends of its logs by name, of which the first is shown."""
    status = "Canceling" if sight.canceling else str(sight.phase)
    found = [f"run {sight.run_id} {_flat(sight.name)}".rstrip()]
    found += [line for line in sight.traceback.splitlines() if sight.phase is Phase.FAILED]
    rows = [
        ("status", f"{status}: {_flat(sight.reason)}" if sight.reason else status),
        ("compute", _flat(sight.compute)),
        ("elapsed", duration(sight.elapsed) if sight.elapsed is not None else ""),
        ("metrics", _metrics(sight)),
        ("runs below it", str(len(sight.children) or "")),
        ("link", sight.url or ""),
        ("note", _flat("; ".join(text for text in (sight.notice, sight.trouble) if text))),
    ]
    found += [f"  {title:<14}{content}" for title, content in rows if content]
    name, text = next(iter(logs.items()), ("", ""))
    return [*found, f"  last lines of {name}:", *(f"    {line}" for line in text.splitlines())] if text else found


def _metrics(sight: Sight) -> str:
    shown = [f"{name} = {number(sight.latest[name].value)}" for name in sight.metrics[:_METRICS]]
    more = len(sight.metrics) - len(shown)
    return _flat(", ".join([*shown, *([f"and {more} more"] if more > 0 else [])]))


def _flat(text: str) -> str:
    return last_lines(" ".join(text.split()), 1)
