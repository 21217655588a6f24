"""Sends what was logged, in order and in the background, so that no store can slow or end a training.

MLflow's own asynchronous logging is not used: it writes with ten threads, so the order of a resumed vector is not
kept, and it forgets what the store did not take. Here one thread lives while there is something to send. What a store
that is away did not take stays in memory, up to a bound, and is tried again. The end of the interpreter waits for it.
So does SIGTERM in a job, see ``lastcall``. Only a process that is killed can lose what it logged last. A script that
logs faster than its store takes is slowed down to that, so that little is left to send at the end.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

from mlflow.exceptions import MlflowException

from mlflow_pytorch_estimator.errors import one_line
from mlflow_pytorch_estimator.estimator.recording.lastcall import before_the_end
from mlflow_pytorch_estimator.secretvalues import without_password

_logger = logging.getLogger(__name__)

LIMIT = 100_000
BACKLOG = 10_000  # entries: what a store of a few thousand a second takes within a grace period
AT_EXIT_SECONDS = 60.0
_BATCH = 500
_ROOM_SECONDS = 5.0
_PAUSES = (1.0, 5.0, 15.0, 60.0)
_WARN_EVERY_SECONDS = 60.0
# Sending the same again would not help. Everything else, also a token that has expired, may mend itself.
_REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "MALFORMED_REQUEST"})


class Entry(Protocol):
    """Something to send; ``weight`` is about its size in memory, in units of a kilobyte."""

    @property
    def weight(self) -> int:
        """About a kilobyte each."""


E = TypeVar("E", bound=Entry)

_FORK_WAITS_SECONDS = 5.0
_sending = threading.Lock()


def _before_fork() -> None:
    # A child that is forked in the middle of a send inherits locks of MLflow's that nobody there will open.
    _sending.acquire(timeout=_FORK_WAITS_SECONDS)


def _after_fork() -> None:
    if _sending.locked():
        _sending.release()


def _after_fork_in_child() -> None:
    global _sending  # noqa: PLW0603 - the old one may be held by a thread that is not here
    _sending = threading.Lock()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


class Delivery(Generic[E]):
    """A queue with one thread behind it. ``send`` gets entries of one type, oldest first, and raises if it failed."""

    _takes: bool  # whether the store took what it was sent last

    def __init__(
        self, send: Callable[[Sequence[E]], None], target: str, on_fork: Callable[[], None] = lambda: None
    ) -> None:
        self._send = send
        self._on_fork = on_fork
        self._target = target
        self._in_fork = False
        self._registered = False
        self._reset()

    def put(self, entry: E) -> None:
        """Have an entry sent; returns at once, unless a store that takes what is logged has much left to take."""
        self._notice_fork()
        with self._changed:
            self._wait_for_room()
            if self._weight > LIMIT:
                self._lost += 1
                return
            self._entries.append(entry)
            self._weight += entry.weight
            if not self._registered:
                self._registered = True
                atexit.register(self._at_exit)
                before_the_end(self)
            inline = not self._thread_runs()
        if inline:
            self._run()

    def flush(self, timeout: float) -> bool:
        """Wait until everything was sent; False if that took longer than ``timeout`` seconds."""
        self._notice_fork()
        self._wake.set()
        with self._changed:
            orphaned = bool(self._entries) and not self._thread_runs()
        if orphaned:
            self._run()
        with self._changed:
            return self._changed.wait_for(lambda: not self._entries, 0 if orphaned else timeout)

    def close(self) -> None:
        """Take nothing more: ``put`` does not return. Send what is left, unless the store is away."""
        with self._changed:
            self._closed = True
            failures = self._failures
            self._wake.set()
            self._changed.wait_for(lambda: not self._entries or self._failures > failures, AT_EXIT_SECONDS)

    def _wait_for_room(self) -> None:
        while self._closed:
            self._changed.wait()
        if len(self._entries) >= BACKLOG and self._takes:
            enough = self._changed.wait_for(lambda: len(self._entries) < BACKLOG or not self._takes, _ROOM_SECONDS)
            self._takes = self._takes and enough  # else not before it takes something again
            self._wait_for_room()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._entries: list[E] = []
        self._weight = 0
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._takes = True
        self._closed = False
        self._lost = 0
        self._warned_at = -_WARN_EVERY_SECONDS

    def _notice_fork(self) -> None:
        # A worker of a data loader: the entries are its parent's, its lock may be held by a thread that is not here,
        # and it ends without `atexit`, so it sends by itself.
        if os.getpid() != self._pid:
            self._reset()
            self._in_fork = True
            self._on_fork()

    def _thread_runs(self) -> bool:
        if self._thread is None and not self._in_fork:
            thread = threading.Thread(target=self._run, name="run-log", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending
                return False
            self._thread = thread
        return self._thread is not None

    def _run(self) -> None:
        while True:
            with self._changed:
                batch = self._batch()
                if not batch:
                    self._thread = None
                    return
            sent = self._deliver(batch)
            with self._changed:
                self._takes = bool(sent)
                self._remove(sent)
                self._changed.notify_all()
            if not sent:
                if threading.current_thread() is not self._thread:
                    return
                self._wake.wait(_PAUSES[min(self._failures, len(_PAUSES)) - 1])
                self._wake.clear()

    def _batch(self) -> list[E]:
        if not self._entries:
            return []
        kind = type(self._entries[0])
        return list(islice((entry for entry in self._entries if type(entry) is kind), _BATCH))

    def _remove(self, sent: Sequence[E]) -> None:
        gone = {id(entry) for entry in sent}
        self._entries = [entry for entry in self._entries if id(entry) not in gone]
        self._weight -= sum(entry.weight for entry in sent)

    def _deliver(self, batch: Sequence[E]) -> list[E]:
        """Send a batch; returns the entries that are done with, sent or refused for good."""
        try:
            with _sending:
                self._send(batch)
        except Exception as error:  # noqa: BLE001 - whatever a store or its plug-in raises, the training goes on
            if not _is_refusal(error):
                self._failures += 1
                self._warn(error)
                return []
            if len(batch) == 1:
                _logger.error("%s refused %s: %s", self._target, batch[0], _line(error))  # noqa: TRY400 - one line
                return list(batch)
            return self._one_by_one(batch)
        self._failures = 0
        return list(batch)

    def _one_by_one(self, batch: Sequence[E]) -> list[E]:
        done: list[E] = []
        for entry in batch:
            sent = self._deliver([entry])
            if not sent:
                break
            done += sent
        return done

    def _warn(self, error: Exception) -> None:
        if time.monotonic() - self._warned_at < _WARN_EVERY_SECONDS:
            return
        self._warned_at = time.monotonic()
        lost = f", {self._lost} more were dropped" if self._lost else ""
        _logger.warning(
            "%s does not take what is logged; the training goes on, %d records are kept and sent again%s: %s",
            *(self._target, len(self._entries), lost, _line(error)),
        )

    def _at_exit(self) -> None:
        if os.getpid() != self._pid or self.flush(1.0):
            return
        _logger.warning("waiting up to %.0f s until %s takes what was logged", AT_EXIT_SECONDS, self._target)
        if not self.flush(AT_EXIT_SECONDS):
            _logger.error("%d records were not stored: %s did not take them", len(self._entries), self._target)


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, MlflowException):
        return error.error_code in _REFUSALS
    return isinstance(error, (TypeError, ValueError)) and not isinstance(error, OSError)


def _line(error: Exception) -> str:
    return without_password(one_line(error))[:300]
