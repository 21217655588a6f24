"""What is shown in this notebook at present, and when that ends."""

from __future__ import annotations

from typing import Any, Protocol

from mlflow_pytorch_estimator.errors import DetachedError
from mlflow_pytorch_estimator.widgets.place import Cell

_INTERRUPTED = "not refreshed any more, because the kernel was interrupted; execute the cell again to go on"


class Shown(Protocol):
    """A run on the screen."""

    run_id: str
    cell: Cell

    def stop(self, why: str) -> None:
        """Refresh no more, and say why."""

    def close(self) -> None:
        """Refresh no more; it is not on the screen any more."""


_shown: list[Shown] = []
_listening: list[Any] = []


def begin(new: Shown, notebook: Any) -> None:
    """Remember what is shown, and close what stood in its place: the earlier execution of the same cell."""
    for old in [each for each in _shown if _replaced(each, new)]:
        old.close()
        _shown.remove(old)
    _shown.append(new)
    if notebook not in _listening:
        _listening.append(notebook)
        notebook.events.register("post_run_cell", _after_cell)


def _replaced(old: Shown, new: Shown) -> bool:
    if old.cell.execution == new.cell.execution:
        return False
    return old.cell.id == new.cell.id if new.cell.id else old.run_id == new.run_id


def _after_cell(result: Any) -> None:
    # `wait_for_completion` makes the second of the first.
    if isinstance(result.error_in_exec, (KeyboardInterrupt, DetachedError)):
        for each in _shown:
            each.stop(_INTERRUPTED)
