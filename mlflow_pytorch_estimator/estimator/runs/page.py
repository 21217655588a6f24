"""A run in a notebook: status, link, phases, charts of metrics, last log lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.estimator.showing import picture
from mlflow_pytorch_estimator.estimator.showing.logs import Logs
from mlflow_pytorch_estimator.estimator.showing.sight import Sight, Watched, look

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.runs.run import Run

_MOST_LOGS = 8


def html(run: Run) -> str:
    """A fragment for ``_repr_html_``; everything that comes from outside is escaped."""
    watched = Watched(run)
    sight = look(watched)
    return picture.html(sight, ends_of_logs(watched.logs, sight))


def ends_of_logs(logs: Logs, sight: Sight) -> dict[str, str]:
    """The last lines of the first logs; of those that cannot be read, the reason."""
    found = {}
    for name in sight.logs[:_MOST_LOGS]:
        try:
            found[name] = logs.end(name, picture.LINES)
        except (MlflowException, GpuClusterError) as error:
            found[name] = f"cannot be read: {error}"
    return {name: text for name, text in found.items() if text}
