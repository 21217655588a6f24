"""Where output appears: in a notebook with widgets, in one without, or on a terminal."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """The cell that is being executed. ``id`` is empty where the front end does not tell."""

    id: str
    execution: str


def shell() -> Any:
    """IPython's shell in a notebook's kernel; None elsewhere."""
    ipython = sys.modules.get("IPython")
    found = ipython.get_ipython() if ipython is not None else None
    return found if getattr(found, "kernel", None) is not None else None


def has_widgets(notebook: Any) -> bool:
    """Whether somebody is there to see and use widgets."""
    # nbconvert, papermill and nbclient execute notebooks without anybody: they take no input, and show no widgets.
    attended = _request(notebook).get("content", {}).get("allow_stdin", True)
    return bool(attended) and importlib.util.find_spec("ipywidgets") is not None


def cell(notebook: Any) -> Cell:
    """The cell that is being executed."""
    request = _request(notebook)
    return Cell(
        str(request.get("metadata", {}).get("cellId") or ""), str(request.get("header", {}).get("msg_id") or "")
    )


def _request(notebook: Any) -> dict[str, Any]:
    return dict(notebook.kernel.get_parent("shell") or {})
