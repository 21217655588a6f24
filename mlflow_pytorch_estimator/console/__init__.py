"""What a person sees of a job while it goes on: plain lines, or lines that move on a terminal."""

from __future__ import annotations

import os
import sys

from mlflow_pytorch_estimator.console.plain import SilentTerminal, Terminal

__all__ = ["SilentTerminal", "Terminal", "coloured", "terminal"]


def terminal() -> Terminal:
    """The terminal of this process: a moving one where a person looks at it."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return Terminal()
    from mlflow_pytorch_estimator.console.live import LiveTerminal  # needs 0.1 s

    return LiveTerminal()


def coloured() -> bool:
    """Whether standard output takes colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
