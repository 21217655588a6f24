"""SIGTERM in a job: what was logged is sent first, then the process ends as it would have without us.

Only where the script leaves SIGTERM to the system. A thread does it, because the main thread may be in the middle of
a computation, or wait for a rank that is no more: Python's handlers run when it comes back, and the system's own would
not have waited for that either.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import traceback
from types import FrameType
from typing import Protocol
from weakref import WeakSet

from mlflow_pytorch_estimator.schedulers.base import JOB_DIRECTORY_VARIABLE


class Closing(Protocol):
    """What has something to finish before the end."""

    def close(self) -> None:
        """Finish it, in another thread than the one that was interrupted."""


_closing: WeakSet[Closing] = WeakSet()
_installed: list[int] = []  # the writing end of the pipe, once there is one


def before_the_end(item: Closing) -> None:
    """Have something closed before SIGTERM ends this process of a job, if it still lives then.

    Only a call from the main thread can begin that; one from another thread joins in.
    """
    _closing.add(item)
    in_main = threading.current_thread() is threading.main_thread()
    if not _installed and in_main and os.environ.get(JOB_DIRECTORY_VARIABLE):
        _install()


def _install() -> None:
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writing, False)
    _installed.append(writing)
    threading.Thread(target=_wait, args=(reading,), name="last-call", daemon=True).start()
    signal.signal(signal.SIGTERM, _on_sigterm)
    other = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    if other != -1:  # an event loop's: the handler has to do
        signal.set_wakeup_fd(other)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    os.write(_installed[0], bytes([number]))


def _wait(reading: int) -> None:
    while True:
        # Of all signals: the wake-up descriptor is one for all.
        if signal.SIGTERM in os.read(reading, 1) and signal.getsignal(signal.SIGTERM) is _on_sigterm:
            break
    for item in list(_closing):
        try:
            item.close()
        except Exception:  # noqa: BLE001 - the process has to end in any case
            traceback.print_exc()
    ctypes.CDLL(None).signal(int(signal.SIGTERM), 0)  # `signal.signal` is for the main thread only
    os.kill(os.getpid(), signal.SIGTERM)


def _after_fork_in_child() -> None:
    # The thread is not here, and a worker has nothing queued: it sends by itself.
    if _installed:
        os.close(_installed.pop())
        if signal.getsignal(signal.SIGTERM) is _on_sigterm:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_after_fork_in_child)
