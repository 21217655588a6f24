"""A run in a notebook: status, link, phases, last metrics, last log lines."""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING, Any

from mlflow_pytorch_estimator import journal
from mlflow_pytorch_estimator import tags as tag_names
from mlflow_pytorch_estimator.failure import tail
from mlflow_pytorch_estimator.journal import duration
from mlflow_pytorch_estimator.status import Phase

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.runs.run import Run
    from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

_METRICS = 8
_LINES = 10
_LONGEST_LINE = 200
_TAIL_BYTES = 16 * 1024
# Readable on a light and on a dark page.
_COLOURS = {Phase.COMPLETED: "#2e8540", Phase.FAILED: "#d0342c", Phase.CANCELED: "#8a6d3b", Phase.RUNNING: "#2374bb"}
_CELL = "text-align:left;vertical-align:top;padding:2px 12px 2px 0"


def html(run: Run) -> str:
    """A fragment for ``_repr_html_``; everything that comes from outside is escaped."""
    entity, job, phase = run._read(), run.job, run._phase()
    found = entity.data.tags
    name = f"{escape(entity.info.run_name or '')} <code>{escape(run.id)}</code>"
    url = run.get_portal_url()
    rows = [
        ("Run", f'<a href="{escape(url)}" target="_blank" rel="noopener">{name}</a>' if url else name),
        ("Experiment", escape(run.experiment.name)),
        ("Status", _badge(phase) + _reason(found, phase)),
        ("Compute", escape(found.get(tag_names.COMPUTE, "this machine" if job else ""))),
        ("Phases", _phases(job)),
        ("Metrics", _metrics(entity.data.metrics)),
        ("Note", escape(found.get(tag_names.NOTICE, ""))),
    ]
    table = "".join(
        f'<tr><th style="{_CELL}">{title}</th><td style="{_CELL}">{content}</td></tr>'
        for title, content in rows
        if content
    )
    return f'<table style="border-collapse:collapse">{table}</table>{_log(job)}'


def _badge(phase: Phase) -> str:
    colour = _COLOURS.get(phase, "#6b6b6b")
    style = f"background:{colour};color:white;border-radius:4px;padding:1px 8px;font-weight:600"
    return f'<span style="{style}">{phase}</span>'


def _reason(found: dict[str, str], phase: Phase) -> str:
    reason = found.get(tag_names.FAILURE)
    return f" {escape(reason)}" if reason and phase.terminal else ""


def _phases(job: GpuClusterSubmittedRun | None) -> str:
    if job is None:
        return ""
    outcome = job.directory.outcome
    entries = journal.timeline(job.directory.events(), outcome.time if outcome else time.time())
    return " &rarr; ".join(f"{entry['phase']} {duration(float(str(entry['seconds'])))}" for entry in entries)


def _metrics(values: dict[str, Any]) -> str:
    own = sorted((name, value) for name, value in values.items() if not name.startswith("system/"))
    shown = [f"{escape(name)} = {value:.6g}" for name, value in own[:_METRICS]]
    more = [f"and {len(own) - _METRICS} more"] if len(own) > _METRICS else []
    return "<br>".join([*shown, *more])


def _log(job: GpuClusterSubmittedRun | None) -> str:
    logs = job.directory.rank_logs() if job else []
    if not logs:
        return ""
    lines = tail(logs[0], _TAIL_BYTES).splitlines()[-_LINES:]
    if not lines:
        return ""
    text = escape("\n".join(line[:_LONGEST_LINE] for line in lines))
    style = "margin:6px 0;padding:6px 8px;border-left:3px solid #8888;overflow-x:auto;text-align:left"
    style += ";font-family:monospace"
    return f'<div>last lines of <code>logs/{logs[0].name}</code></div><pre style="{style}">{text}</pre>'
