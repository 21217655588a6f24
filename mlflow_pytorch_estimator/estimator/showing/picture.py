"""A run as one piece of HTML that needs nobody to keep it up: in saved and exported notebooks, and without widgets."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from mlflow_pytorch_estimator.estimator.showing import markup
from mlflow_pytorch_estimator.estimator.showing.sight import Sight

LINES = 10
"""Of the log that is open."""


def html(sight: Sight, logs: Mapping[str, str]) -> str:
    """A fragment. ``logs`` are the ends of some logs by name; the first is open, the others open with a click."""
    parts = [
        markup.head(sight),
        markup.failure(sight),
        markup.facts(sight) + markup.clock(sight),
        markup.trouble(sight.trouble),
        markup.metrics(sight) + markup.more_metrics(sight),
        _logs(logs),
        markup.children(sight.children),
    ]
    body = "".join(f'<div style="margin:0 0 8px">{part}</div>' for part in parts if part)
    return f'<div class="gpu-cluster-run" style="padding:4px 0">{body}</div>'


def _logs(logs: Mapping[str, str]) -> str:
    return "".join(
        f'<details{"" if place else " open"} style="font-size:13px;text-align:left">'
        f"<summary>last lines of <code>{escape(name)}</code></summary>{markup.framed(markup.log(text))}</details>"
        for place, (name, text) in enumerate(logs.items())
    )
