"""The widgets of ``RunDetails``, and what stands in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from mlflow_pytorch_estimator.estimator.showing import markup
from mlflow_pytorch_estimator.estimator.showing.sight import CHARTS, Sight

_LOG_HEIGHT = "260px"


class View:
    """One run. Each piece is a widget of its own, so that one that changes leaves the others, and the page, still."""

    def __init__(
        self, cancel: Callable[[], None], choose_log: Callable[[str], None], page: Callable[[int], None]
    ) -> None:
        self.head, self.failure, self.facts, self.clock = (_piece() for _ in range(4))
        self.trouble, self.charts, self.log_text, self.children = (_piece() for _ in range(4))
        self.cancel = widgets.Button(description="Cancel the run", layout=widgets.Layout(width="auto"))
        self.cancel.on_click(lambda _: cancel())
        self.cancel_said = _piece()
        self.log = widgets.Dropdown(options=[], layout=widgets.Layout(width="280px"))
        self._choose_log, self._filling = choose_log, False
        self.log.observe(self._log_chosen, "value")
        self.back, self.forth = _small("angle-left", "earlier metrics"), _small("angle-right", "further metrics")
        self.back.on_click(lambda _: page(-CHARTS))
        self.forth.on_click(lambda _: page(CHARTS))
        self.span = _piece()
        self._pager = _row(self.back, self.forth, self.span)
        self._buttons = _row(self.cancel, self.cancel_said)
        # In a column from the bottom up the last line stays in sight, unless somebody has scrolled away from it.
        frame = widgets.Layout(
            height=_LOG_HEIGHT, overflow="auto", display="flex", flex_flow="column-reverse", width="auto"
        )
        frame.border_left = "3px solid #8888"
        frame.padding = "0 0 0 10px"
        self._log_frame = widgets.Box([self.log_text], layout=frame)
        self._log = widgets.VBox([_row(self.log), self._log_frame])
        self.box = widgets.VBox(
            [
                *(self.head, self.failure, self.facts, self.clock, self._buttons, self.trouble),
                *(self._pager, self.charts, self._log, self.children),
            ],
            layout=widgets.Layout(padding="4px 0", overflow="hidden"),
        )
        self.box.add_class("gpu-cluster-run")

    def show(self, sight: Sight, first: int) -> None:
        """Bring all pieces but the log's text up to date; ``first`` is the number of the first metric drawn."""
        _set(self.head, markup.head(sight))
        _set(self.failure, markup.failure(sight))
        _set(self.facts, markup.facts(sight))
        _set(self.clock, markup.clock(sight))
        _set(self.trouble, markup.trouble(sight.trouble))
        _set(self.charts, markup.metrics(sight))
        _set(self.children, markup.children(sight.children))
        _visible(self._buttons, sight.cancelable or bool(self.cancel_said.value))
        _visible(self.cancel, sight.cancelable)
        count = len(sight.metrics)
        _set(self.span, markup.span(first, count))
        _visible(self._pager, count > CHARTS)
        self.back.disabled, self.forth.disabled = first == 0, first + CHARTS >= count
        self._offer(sight.logs)

    def show_log(self, text: str) -> None:
        """Show the end of the chosen log."""
        _set(self.log_text, markup.log(text) if text else "")

    def say(self, text: str) -> None:
        """Say something beside the button."""
        _set(self.cancel_said, markup.trouble(text))

    def close(self) -> None:
        """Take all of it off the page."""
        for widget in (*self.box.children, *self._buttons.children, *self._pager.children, self.log, self._log_frame):
            widget.close()
        self.log_text.close()
        self.box.close()

    def _offer(self, names: tuple[str, ...]) -> None:
        _visible(self._log, bool(names))
        if tuple(self.log.options) == names:
            return
        chosen = self.log.value
        self._filling = True  # new options choose the first by themselves
        try:
            with self.log.hold_sync():
                self.log.options = names
                self.log.value = chosen if chosen in names else (names[0] if names else None)
        finally:
            self._filling = False
        if self.log.value != chosen:
            self._choose_log(self.log.value or "")

    def _log_chosen(self, change: Any) -> None:
        if not self._filling:
            self._choose_log(change["new"] or "")


def _piece() -> widgets.HTML:
    piece = widgets.HTML(layout=widgets.Layout(margin="0 0 6px 0", display="none", width="auto"))
    piece.add_class("gpu-cluster-piece")
    return piece


def _small(icon: str, tooltip: str) -> widgets.Button:
    return widgets.Button(icon=icon, tooltip=tooltip, layout=widgets.Layout(width="32px"))


def _row(*parts: Any) -> widgets.HBox:
    return widgets.HBox(parts, layout=widgets.Layout(align_items="center", overflow="hidden", min_height="34px"))


def _set(piece: widgets.HTML, content: str) -> None:
    if piece.value != content:
        piece.value = content
        _visible(piece, bool(content))


def _visible(widget: Any, shown: bool) -> None:
    widget.layout.display = None if shown else "none"
