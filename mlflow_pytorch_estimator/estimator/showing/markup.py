"""Pieces of HTML about a run. Everything that comes from a run is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import urlsplit

from mlflow_pytorch_estimator.estimator.showing import charts
from mlflow_pytorch_estimator.estimator.showing.reading import MOST_CHILDREN
from mlflow_pytorch_estimator.estimator.showing.sight import CHARTS, Child, Sight
from mlflow_pytorch_estimator.journal import duration
from mlflow_pytorch_estimator.status import Phase

# Readable on a light and on a dark page.
_COLOURS = {Phase.COMPLETED: "#2e8540", Phase.FAILED: "#d0342c", Phase.CANCELED: "#8a6d3b", Phase.RUNNING: "#2374bb"}
_OTHER = "#6b6b6b"
_TEXT = "font-size:13px;line-height:20px;text-align:left"
_CODE = "font-family:var(--jp-code-font-family,monospace);font-size:12px;line-height:17px"
_BLOCK = f"{_CODE};margin:0;white-space:pre-wrap;overflow-wrap:anywhere;background:transparent;color:inherit"
_TD = "text-align:left;vertical-align:top;padding:1px 0"
_TABLE = f"border-collapse:collapse;border:none;margin:0;{_TEXT}"
_MOST_TRACEBACK = 6000
_LONGEST_REASON = 2000


def badge(phase: Phase, canceling: bool = False) -> str:
    """The status as a word on its colour."""
    colour = _COLOURS.get(phase, _OTHER) if not canceling else _COLOURS[Phase.CANCELED]
    style = f"background:{colour};color:white;border-radius:4px;padding:1px 8px;font-weight:600;white-space:nowrap"
    return f'<span style="{style}">{"Canceling" if canceling else phase}</span>'


def head(sight: Sight) -> str:
    """Status, name, id and link in one line."""
    parts = [badge(sight.phase, sight.canceling), f"<strong>{escape(sight.name)}</strong>" if sight.name else ""]
    parts.append(f'<code style="{_CODE};background:transparent;color:inherit">{escape(sight.run_id)}</code>')
    parts.append(_link(sight.url, "open in MLflow") if sight.url else "")
    style = f"{_TEXT};display:flex;flex-wrap:wrap;align-items:center;gap:4px 10px"
    return f'<div style="{style}">{"".join(part for part in parts if part)}</div>'


def failure(sight: Sight) -> str:
    """Why it failed, the traceback under it; or why it waits or was canceled."""
    if not sight.reason:
        return ""
    reason = escape(sight.reason[:_LONGEST_REASON])
    if sight.phase is not Phase.FAILED:
        return f'<div style="{_TEXT}">{reason}</div>'
    shown = f'<pre style="{_BLOCK};margin-top:4px">{escape(sight.traceback[-_MOST_TRACEBACK:])}</pre>'
    style = f"{_TEXT};border-left:3px solid {_COLOURS[Phase.FAILED]};padding:2px 0 2px 10px"
    return f'<div style="{style}"><strong>{reason}</strong>{shown if sight.traceback else ""}</div>'


def facts(sight: Sight) -> str:
    """What does not change from second to second."""
    return _table(
        [
            ("Experiment", escape(sight.experiment)),
            ("Compute", escape(sight.compute)),
            ("Note", escape(sight.notice)),
        ]
    )


def clock(sight: Sight) -> str:
    """What does: how long it has been at it, and the phases."""
    arrow = " &rarr; "
    phases = arrow.join(
        escape(phase) if Phase(phase).terminal else f"{escape(phase)} {duration(seconds)}"
        for phase, seconds in sight.phases
    )
    return _table([("Elapsed", duration(sight.elapsed) if sight.elapsed is not None else ""), ("Phases", phases)])


def metrics(sight: Sight) -> str:
    """The charts of one page of metrics."""
    return charts.grid(sight.series)


def more_metrics(sight: Sight) -> str:
    """How many there are that are not drawn."""
    left = len(sight.metrics) - len(sight.series)
    return f'<div style="{_TEXT}">and {left} more metrics</div>' if left > 0 else ""


def span(first: int, count: int) -> str:
    """Which of the metrics are drawn: ``1 to 12 of 100``."""
    return f"{first + 1} to {min(first + CHARTS, count)} of {count} metrics"


def log(text: str) -> str:
    """Lines of a log."""
    return f'<pre style="{_BLOCK}">{escape(text)}</pre>'


def framed(content: str) -> str:
    """A log in a picture, set off by a line."""
    return f'<div style="border-left:3px solid #8888;padding:4px 0 4px 10px;margin:2px 0 6px">{content}</div>'


def children(found: Sequence[Child]) -> str:
    """The runs below it."""
    if not found:
        return ""
    rows = "".join(
        f'<tr><td style="{_TD};padding-right:10px">{badge(child.phase)}</td>'
        f'<td style="{_TD};padding-right:10px">{_link(child.url, child.name or child.run_id)}</td>'
        f'<td style="{_TD}"><code style="{_CODE};background:transparent;color:inherit">{escape(child.run_id)}</code>'
        "</td></tr>"
        for child in found[:MOST_CHILDREN]
    )
    more = f"the first {MOST_CHILDREN} runs below it" if len(found) > MOST_CHILDREN else "Runs below it"
    return f'<div style="{_TEXT}"><strong>{more}</strong><table style="{_TABLE}">{rows}</table></div>'


def _table(rows: Sequence[tuple[str, str]]) -> str:
    body = "".join(f"<strong>{title}</strong><span>{content}</span>" for title, content in rows if content)
    return f'<div style="{_TEXT};display:grid;grid-template-columns:92px 1fr">{body}</div>' if body else ""


def trouble(text: str) -> str:
    """Why what is shown may be old."""
    return f'<div style="{_TEXT};opacity:0.75;font-style:italic">{escape(text)}</div>' if text else ""


def _link(url: str | None, text: str) -> str:
    if not url or urlsplit(url).scheme not in {"http", "https"}:
        return escape(text)
    return f'<a href="{escape(url)}" target="_blank" rel="noopener">{escape(text)}</a>'
