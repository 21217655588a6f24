"""A run in a notebook without widgets: a picture that is replaced by newer ones until the run has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_pytorch_estimator.widgets.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_pytorch_estimator.estimator.showing.sight import Sight, Watched
    from mlflow_pytorch_estimator.widgets.place import Cell

_SECONDS = 3.0


class Still:
    """One run as a picture."""

    def __init__(self, watched: Watched, cell: Cell, drawn: Callable[[Sight], dict[str, Any]]) -> None:
        self.run_id, self.cell = watched.run.id, cell
        self._drawn = drawn
        self._handle: Any = None
        self._last: dict[str, Any] = {}
        self.watch = Watch(watched, self._show, lambda text: None, seconds=_SECONDS)

    def begin(self, sight: Sight, display: Callable[..., Any]) -> None:
        """Show it, and go on as long as the run has not ended."""
        self._last = self._drawn(sight)
        self._handle = display(self._last, raw=True, display_id=True)
        self.watch.sight = sight
        if not sight.phase.terminal or sight.trouble:
            self.watch.poke()

    def stop(self, why: str) -> None:
        """Refresh no more, and say why."""
        self.watch.stop(why)

    def close(self) -> None:
        """Refresh no more."""
        self.watch.stop()

    def _show(self, sight: Sight) -> None:
        drawn = self._drawn(sight)
        if self._handle is not None and drawn != self._last:
            self._last = drawn
            self._handle.update(drawn, raw=True)
