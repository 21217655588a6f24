"""Which of several ranks is to blame: a rank that fails takes the others with it, and one of those may end first."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlflow_pytorch_estimator import failure
from mlflow_pytorch_estimator.nodes.events import Ended

# What is said on a rank when another one has gone: by Gloo, by NCCL, and by torch's store.
_LOST = r"""
    (Connection\ (closed|reset)\ by\ (remote\ )?peer | Broken\ pipe | Connection\ refused
     | remote\ process\ exited | ncclRemoteError | ncclSystemError | [Tt]imed\ out | failed\ to\ recv
     | Application\ timeout | Read\ error | Connection\ was\ likely\ closed)
"""
_RAISED = re.compile(
    rf"""
    ^([\w.]+\.)?HorovodInternalError\b
    | ^([\w.]+\.)?(RuntimeError|DistBackendError|DistNetworkError|DistStoreError|TimeoutError): .*{_LOST}
    """,
    re.MULTILINE | re.VERBOSE,
)
# In a thread of the library, where Python has no say; the process aborts.
_THROWN = re.compile(
    rf"terminate\ called\ after\ throwing\ an\ instance\ of\ '[\w:]+'\s+(\[\w+\]:?\s*)?what\(\):\s .*{_LOST}",
    re.VERBOSE,
)
_LAST_WORDS = 4096


def is_consequence(text: str) -> bool:
    """Whether the end of a log says that another rank had gone before: in its last traceback, or as it aborts."""
    return bool(_RAISED.search(failure.last_traceback(text)) or _THROWN.search(text[-_LAST_WORDS:]))


def culprit(ended: Sequence[Ended]) -> Ended | None:
    """The end with which the failure began; None when all have succeeded.

    A lost node comes before its ranks and a rank before its launcher, which only reports what it saw.
    """
    failed = [event for event in ended if event.exit_code != 0]
    last = max((event.restart for event in failed if event.rank is not None and not event.launcher), default=0)
    failed = [event for event in failed if event.launcher or event.rank is None or event.restart == last]
    return min(failed, key=_order, default=None)


def _order(event: Ended) -> tuple[int, float]:
    if event.launcher:
        return (-1 if _was_killed(event) else 2), event.time
    return int(event.consequence), event.time


def _was_killed(launcher: Ended) -> bool:
    """Whether somebody ended a launcher: it takes its ranks with it, and their ends are noted first."""
    return launcher.exit_code < 0 or "SignalException" in (launcher.report or {}).get("traceback", "")
