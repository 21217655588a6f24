"""Looks at a run in the background until it has ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from mlflow.exceptions import MlflowException

from mlflow_pytorch_estimator.errors import GpuClusterError, one_line
from mlflow_pytorch_estimator.estimator.showing.reading import GONE
from mlflow_pytorch_estimator.estimator.showing.sight import Sight, Watched
from mlflow_pytorch_estimator.journal import duration

_FAR_SECONDS = 2.0
_FAR_SHARE = 5
"""The store is asked at most this part of the time."""
_LONGEST_PAUSE = 30.0
_AFTER_THE_END = 600.0
"""How long a store that is away is asked for the last values of a run that has ended."""


class Watch:
    """Two threads, so that a store that is away does not hold up what the job directory says.

    ``show`` gets what there is to see, one call at a time, and ``show_log`` the end of the chosen log. Neither thread
    outlives the run's end, or ``stop`` by more than one question to the store (10 s).
    """

    def __init__(
        self, watched: Watched, show: Callable[[Sight], None], show_log: Callable[[str], None], seconds: float = 1.0
    ) -> None:
        self._watched = watched
        self._show, self._show_log, self._seconds = show, show_log, seconds
        self._lock = threading.RLock()
        self._round: _Round | None = None
        self.sight = watched.near(watched.blank())
        self.first = 0
        """Number of the first metric that is drawn."""
        self.log = ""
        """Name of the chosen log."""

    @property
    def alive(self) -> bool:
        """Whether it goes on looking."""
        found = self._round
        return found is not None and not found.over.is_set()

    def poke(self) -> None:
        """Look at once, because something else is to be shown; begin again if it was over."""
        with self._lock:
            if self.alive and self._round is not None:
                self._round.wake()
                return
            self._round = _Round()
            for name, turns in (("near", self._near_turns), ("store", self._far_turns)):
                job = threading.Thread(
                    target=_guarded, args=(turns, self._round), name=f"RunDetails {name}", daemon=True
                )
                job.start()

    def stop(self, why: str = "") -> None:
        """Look no more; ``why`` is shown."""
        found = self._round
        if found is None or found.over.is_set():
            return
        found.end()  # without the lock: a picture that is being drawn may wait for the store
        if why:
            with self._lock:
                self.sight = replace(self.sight, trouble=why)
                self._show(self.sight)

    def _near_turns(self, turn: _Round) -> None:
        while not turn.over.is_set():
            self._near_turn(turn)
            turn.near.wait(self._seconds)
            turn.near.clear()
        if turn.finished:
            self._near_turn(turn)

    def _near_turn(self, turn: _Round) -> None:
        before = self.sight.phase
        self._see(turn, lambda seen: seen)
        if self.sight.phase.terminal and not before.terminal:
            turn.far.set()
        name = self.log
        text = self._end_of(name) if name else ""
        with self._lock:
            if self._round is turn and name == self.log and (turn.finished or not turn.over.is_set()):
                self._show_log(text)

    def _end_of(self, name: str) -> str:
        try:
            return self._watched.logs.end(name)
        except (MlflowException, GpuClusterError, OSError) as error:
            return f"{name} cannot be read: {one_line(error)}"

    def _far_turns(self, turn: _Round) -> None:
        since, pause = time.monotonic(), _FAR_SECONDS
        while not turn.over.is_set():
            was_over, begin = self.sight.phase.terminal, time.monotonic()
            try:
                found = self._watched.far(self.sight, self.first)
            except Exception as error:  # noqa: BLE001 - whatever a store may raise: the next look may do better
                gone = getattr(error, "error_code", "") == GONE
                away = time.monotonic() - since
                given_up = gone or (was_over and away > _AFTER_THE_END)
                said = _said(error, away, gone=gone, given_up=given_up)
                self._see(turn, lambda seen, said=said: replace(seen, trouble=said))  # type: ignore[misc]
                if given_up:
                    turn.end()
                pause = min(_LONGEST_PAUSE, pause * 1.5)
            else:
                since = time.monotonic()
                pause = min(_LONGEST_PAUSE, max(_FAR_SECONDS, _FAR_SHARE * (since - begin)))
                self._see(turn, lambda _, found=found: found)  # type: ignore[misc]
                if self.sight.phase.terminal and (was_over or self._watched.directory is None):
                    turn.end(finished=True)
            turn.far.wait(pause)
            turn.far.clear()

    def _see(self, turn: _Round, change: Callable[[Sight], Sight]) -> None:
        with self._lock:
            if self._round is turn and (turn.finished or not turn.over.is_set()):
                try:
                    self.sight = self._watched.near(change(self.sight))
                except (OSError, ValueError, LookupError):
                    return  # a file in the making, or a directory that is just being removed
                self._show(self.sight)


class _Round:
    """From a start to a stop; each has its own threads."""

    def __init__(self) -> None:
        self.over, self.near, self.far = threading.Event(), threading.Event(), threading.Event()
        self.finished = False

    def wake(self) -> None:
        self.near.set()
        self.far.set()

    def end(self, finished: bool = False) -> None:
        self.finished = finished
        self.over.set()
        self.wake()


def _guarded(turns: Callable[[_Round], None], turn: _Round) -> None:
    try:
        turns(turn)
    except BaseException:
        turn.end()  # not one thread without the other
        raise


def _said(error: Exception, away: float, *, gone: bool, given_up: bool) -> str:
    if gone:
        return f"not refreshed any more: {one_line(error)}"
    what = "not asked any more" if given_up else "asked again"
    return f"the store does not answer, for {duration(away)}; it is {what} ({one_line(error)[:300]})"
