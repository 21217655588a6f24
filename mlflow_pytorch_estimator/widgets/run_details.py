"""``RunDetails``: what is known of a run, shown where one looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.runs.page import ends_of_logs
from mlflow_pytorch_estimator.estimator.runs.run import Run
from mlflow_pytorch_estimator.estimator.showing import picture, text
from mlflow_pytorch_estimator.estimator.showing.sight import Sight, Watched, look
from mlflow_pytorch_estimator.widgets import data, place, shown

_SETTINGS = {"debug"}


class RunDetails:
    """A run to look at. Raises UserErrorException when ``run_instance`` is no ``Run``."""

    def __init__(self, run_instance: Run) -> None:
        if not isinstance(run_instance, Run):
            raise UserErrorException(f"RunDetails takes a Run, not {type(run_instance).__name__}")
        self._run = run_instance

    def __repr__(self) -> str:
        return f"RunDetails({self._run.id!r})"

    def show(
        self, render_lib: Callable[[str], Any] | None = None, widget_settings: Mapping[str, Any] | None = None
    ) -> None:
        """Show the run: with widgets in a notebook, as a picture in one without, as text on a terminal.

        Widgets and picture follow the run until it has ended. ``render_lib`` is a function that shows HTML, such as
        Databricks' ``displayHTML``; it gets the picture once. ``widget_settings`` is taken for the original's sake:
        its one setting is ``debug``, which makes no difference.
        """
        _checked(widget_settings)
        watched, notebook = Watched(self._run), place.shell()
        if render_lib is not None:
            render_lib(_picture(watched, look(watched)))
        elif notebook is None:
            print("\n".join(_lines(watched, look(watched))), flush=True)
        else:
            _in_notebook(watched, notebook)

    def get_widget_data(self, widget_settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the widget shows, as a dict that JSON can take; times are Unix seconds. Reads the run anew."""
        settings = _checked(widget_settings)
        watched = Watched(self._run)
        sight = look(watched)
        return {**data.of(sight, ends_of_logs(watched.logs, sight)), "widget_settings": settings}


def _in_notebook(watched: Watched, notebook: Any) -> None:
    from IPython.display import display

    cell = place.cell(notebook)
    if place.has_widgets(notebook):
        from mlflow_pytorch_estimator.widgets.live import Live

        live = Live(watched, cell)
        shown.begin(live, notebook)
        display(live.begin(_picture(watched, live.watch.sight)), raw=True)
        return
    from mlflow_pytorch_estimator.widgets.still import Still

    still = Still(watched, cell, lambda sight: _still(watched, sight))
    shown.begin(still, notebook)
    still.begin(look(watched), display)


def _still(watched: Watched, sight: Sight) -> dict[str, Any]:
    return {"text/html": _picture(watched, sight), "text/plain": "\n".join(_lines(watched, sight))}


def _picture(watched: Watched, sight: Sight) -> str:
    return picture.html(sight, ends_of_logs(watched.logs, sight))


def _lines(watched: Watched, sight: Sight) -> list[str]:
    return text.lines(sight, ends_of_logs(watched.logs, sight))


def _checked(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    given = dict(settings or {})
    if set(given) - _SETTINGS:
        raise UserErrorException(f"widget_settings: {sorted(set(given) - _SETTINGS)} unknown; there is only 'debug'")
    return given
