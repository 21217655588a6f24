"""A run in a notebook with widgets: kept up to date, with its log, and a button that cancels it."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlflow_pytorch_estimator.errors import one_line
from mlflow_pytorch_estimator.widgets.view import View
from mlflow_pytorch_estimator.widgets.watch import Watch

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.showing.sight import Sight, Watched
    from mlflow_pytorch_estimator.widgets.place import Cell

_DOUBLE_CLICK_SECONDS = 0.4
_CONFIRM_SECONDS = 8.0


class Live:
    """One run on the screen. It refreshes as long as it is in sight and the run has not ended."""

    def __init__(self, watched: Watched, cell: Cell) -> None:
        self.run_id, self.cell = watched.run.id, cell
        self._run = watched.run
        self._armed: float | None = None
        self._canceling = False
        self.view = View(self._cancel_clicked, self._log_chosen, self._turn_page)
        self.watch = Watch(watched, self._show, self._show_log)
        self._closed = False

    def begin(self, fallback: str) -> dict[str, Any]:
        """Start to refresh; what to display. ``fallback`` is HTML for pages that know no widgets."""
        self._show(self.watch.sight)
        self.watch.poke()
        self.view.box._view_count = 0  # asks the front end to count
        self.view.box.observe(self._views_changed, "_view_count")
        bundle: dict[str, Any] = dict(self.view.box._repr_mimebundle_() or {})
        return {**bundle, "text/html": fallback}

    def stop(self, why: str) -> None:
        """Refresh no more, and say why."""
        self.watch.stop(why)

    def close(self) -> None:
        """End it: nothing of it is on the page any more."""
        self._closed = True
        self.watch.stop()
        self.view.close()

    def _show(self, sight: Sight) -> None:
        if self._closed:
            return
        if self._armed is not None and time.monotonic() - self._armed > _CONFIRM_SECONDS:
            self._disarm()
        canceling = (sight.canceling or self._canceling) and not sight.phase.terminal
        cancelable = sight.cancelable and not canceling
        if sight.phase.terminal:
            self.view.say("")
        self.view.show(replace(sight, canceling=canceling, cancelable=cancelable), self.watch.first)

    def _show_log(self, text: str) -> None:
        if not self._closed:
            self.view.show_log(text)

    def _log_chosen(self, name: str) -> None:
        self.watch.log = name
        if name:
            self.watch.poke()

    def _turn_page(self, step: int) -> None:
        self.watch.first = max(0, min(self.watch.first + step, len(self.watch.sight.metrics) - 1))
        self.watch.poke()

    def _views_changed(self, change: Any) -> None:
        if change["new"]:
            self.watch.poke()  # it is back in sight; one look, if the run has ended meanwhile
        elif change["old"]:
            self.watch.stop()

    def _cancel_clicked(self) -> None:
        now = time.monotonic()
        if self._armed is None or now - self._armed > _CONFIRM_SECONDS:
            self._armed = now
            self.view.cancel.description, self.view.cancel.button_style = "Click again to cancel it", "danger"
        elif now - self._armed >= _DOUBLE_CLICK_SECONDS:
            self._disarm()
            self._canceling = True
            self.view.say("canceling: the job gets time to end by itself")
            self.watch.poke()
            threading.Thread(target=self._cancel, name="RunDetails cancel", daemon=True).start()

    def _disarm(self) -> None:
        self._armed = None
        self.view.cancel.description, self.view.cancel.button_style = "Cancel the run", ""

    def _cancel(self) -> None:
        try:
            self._run.cancel()
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            self.view.say(f"not canceled: {one_line(error)}")
        finally:
            self._canceling = False
            self.watch.poke()
