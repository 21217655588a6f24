"""Starts one rank and leaves nothing of it behind. Run as a file: ``python -I -S keeper.py AGENT_PID -- COMMAND ...``.

The keeper stands between the agent and a rank because a killed agent cannot clean up. It adopts every
process that the rank leaves (child subreaper), and it ends them all when the rank has ended or the agent
has gone. A killed keeper takes the rank with it, and the rest falls to the agent, which adopts as well.

    SIGTERM  pass it on to the rank's process group (the agent asks the rank to end)
    SIGHUP   kill everything now (the agent asks, or the kernel because the agent has gone)

It ends as the rank ended: same exit status, same signal. Standard library only, and little of that.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LEFTOVER_GRACE_SECONDS = 2.0


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def become_subreaper() -> None:
    """Adopt the orphans among this process's descendants (Linux 3.4)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def descendants(root: int) -> list[int]:
    """Pids of all living descendants of a process, read from /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - no pathlib here, see below
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as handle:  # noqa: PTH123 - pathlib would double start-up
                    fields = handle.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it ended while we looked
            if fields[0] != b"Z":
                children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    frontier = [root]
    while frontier:
        frontier = [child for parent in frontier for child in children.get(parent, [])]
        found += frontier
    return found


def signal_all(pids: list[int], number: int) -> None:
    """Send a signal to processes that may have gone."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def kill_descendants(deadline_seconds: float = 10.0) -> bool:
    """SIGKILL every descendant until none is left; False if some would not go (uninterruptible sleep)."""
    deadline = time.monotonic() + deadline_seconds
    while pids := descendants(os.getpid()):
        signal_all(pids, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _start(command: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.closerange(3, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") < 65536 else 65536)
        os.execvp(command[0], command)  # noqa: S606 - an argv list, no shell
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def _wait(rank: int) -> int:
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == rank:
            return status


def _end_leftovers() -> None:
    left = descendants(os.getpid())
    if not left:
        return
    signal_all(left, signal.SIGTERM)
    deadline = time.monotonic() + _LEFTOVER_GRACE_SECONDS
    while descendants(os.getpid()) and time.monotonic() < deadline:
        time.sleep(0.02)
    kill_descendants()


def _end_like(status: int) -> None:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the rank has dumped its core already
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 255)


def main(argv: list[str]) -> None:
    """Run the command given after ``--`` and end as it ends."""
    agent, command = int(argv[0]), argv[2:]
    rank = 0

    def pass_on(number: int, frame: FrameType | None) -> None:
        if rank:
            try:
                os.kill(-rank, signal.SIGTERM)
            except ProcessLookupError:
                signal_all([rank], signal.SIGTERM)  # just forked: it leads no group yet

    def kill_now(number: int, frame: FrameType | None) -> None:
        kill_descendants()

    blocked = {signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGHUP, kill_now)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    become_subreaper()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)
    if os.getppid() != agent:
        os._exit(129)  # the agent went before it could be watched
    rank = _start(command)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
    status = _wait(rank)
    _end_leftovers()
    _end_like(status)


if __name__ == "__main__":
    main(sys.argv[1:])
