"""Which of several ranks is to blame: a rank that fails takes the others with it, and one of those may end first."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlflow_pytorch_estimator import failure
from mlflow_pytorch_estimator.nodes.events import Ended

# What is raised on a rank when another one has gone: by Horovod, by Gloo, by NCCL, and by torch's store.
_CONSEQUENCE = re.compile(
    r"""
    ^([\w.]+\.)?HorovodInternalError\b
    | ^([\w.]+\.)?(RuntimeError|DistBackendError|DistNetworkError|DistStoreError|TimeoutError):
      .*(Connection\ (closed|reset)\ by\ (remote\ )?peer | Broken\ pipe | Connection\ refused
         | remote\ process\ exited | ncclRemoteError | ncclSystemError | [Tt]imed\ out | failed\ to\ recv
         | Application\ timeout | Read\ error | Connection\ was\ likely\ closed)
    """,
    re.MULTILINE | re.VERBOSE,
)


def is_consequence(text: str) -> bool:
    """Whether the last traceback of a log says that another rank had gone before."""
    return bool(_CONSEQUENCE.search(failure.last_traceback(text)))


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
