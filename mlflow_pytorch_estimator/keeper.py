"""Starts one rank and leaves nothing of it behind. Run as a file:

    python -I -S keeper.py AGENT_PID [AFTERWARDS ...] -- COMMAND ...
    python -I -S keeper.py launched LOGS RECORDS -- COMMAND ...

The keeper stands between the agent and a rank because a killed agent cannot clean up. It adopts every
process that the rank leaves (child subreaper), and it ends them all when the rank has ended or the agent
has gone. A killed keeper takes the rank with it, and the rest falls to the agent, which adopts as well.
AFTERWARDS is a command that ends what no process of ours is the parent of: a container.

    SIGTERM  pass it on to the rank's process group (the agent asks the rank to end)
    SIGHUP   kill everything now (the agent asks, or the kernel because the agent has gone)
    SIGUSR1, SIGUSR2  pass it on to those processes of the rank that handle it; others would die of it

It ends as the rank ended: same exit status, same signal. Standard library only, and little of that.

In the second form a foreign launcher (``torchrun``, ``mpirun``) is the parent. The keeper then learns its rank from
the launcher's variables, writes to the rank's own log, and notes in RECORDS when the rank starts and how it ends.
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
_FOR_CHECKPOINTS = (signal.SIGUSR1, signal.SIGUSR2)
_RANK_VARIABLES = ("RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")
_LAUNCHED = "launched"


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def become_subreaper() -> None:
    """Adopt the orphans among this process's descendants (Linux 3.4)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _processes() -> dict[int, tuple[int, bytes]]:
    """Parent and state of every living process, read from /proc."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - no pathlib here, see below
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as handle:  # noqa: PTH123 - pathlib would double start-up
                    fields = handle.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it ended while we looked
            if fields[0] != b"Z":
                found[int(name)] = int(fields[1]), fields[0]
    return found


def _children(processes: dict[int, tuple[int, bytes]]) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in processes.items():
        children.setdefault(parent, []).append(pid)
    return children


def descendants(root: int, children: dict[int, list[int]] | None = None) -> list[int]:
    """Pids of all living descendants of a process."""
    children = _children(_processes()) if children is None else children
    found: list[int] = []
    frontier = [root]
    while frontier:
        frontier = [child for parent in frontier for child in children.get(parent, [])]
        found += frontier
    return found


def families(roots: list[int]) -> dict[int, list[int]]:
    """For each of these processes itself and all its living descendants, from one look at /proc."""
    processes = _processes()
    children = _children(processes)
    return {root: [root, *descendants(root, children)] for root in roots if root in processes}


def stopped(roots: list[int]) -> list[int]:
    """Which of these processes, or one below them, somebody has stopped (SIGSTOP)."""
    processes = _processes()
    children = _children(processes)
    states = {
        root: [processes[pid][1] for pid in (root, *descendants(root, children)) if pid in processes] for root in roots
    }
    return [root for root, found in states.items() if b"T" in found]


def signal_handlers(root: int, number: int) -> None:
    """Send a signal to the first process on each branch below ``root`` that handles it."""
    children = _children(_processes())
    frontier = list(children.get(root, []))
    while frontier:
        pid = frontier.pop()
        if _handles(pid, number):
            signal_all([pid], number)
        else:
            frontier += children.get(pid, [])


def _handles(pid: int, number: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", "rb") as handle:  # noqa: PTH123 - as above
            caught = next(line for line in handle if line.startswith(b"SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


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


def tidy_up(command: list[str], limit_seconds: float = 10.0) -> bool:
    """Run a command without its output until it succeeds, three times at most; True at once when it is empty."""
    deadline = time.monotonic() + limit_seconds
    for pause in (0.1, 0.5, 0.0) if command else ():
        if _succeeds(command, deadline):
            return True
        time.sleep(pause)
    return not command


def _succeeds(command: list[str], deadline: float) -> bool:
    silent = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    asking = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    try:
        pid = os.posix_spawnp(command[0], command, os.environ, file_actions=silent, setsigmask=(), setsigdef=asking)
    except OSError:
        return False
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def _keep_descriptors() -> None:
    """The locks are the keeper's: no program that it starts may hold them longer."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - as above
        try:
            if int(name) > 2:
                os.set_inheritable(int(name), False)
        except OSError:
            continue  # that of the listing itself


def _start(command: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, *_FOR_CHECKPOINTS):
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


def _join_launched(logs: str, records: str) -> str:
    """Become the keeper of the rank that a foreign launcher has made of this process; returns its record's path."""
    rank = next(os.environ[name] for name in _RANK_VARIABLES if name in os.environ)
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if os.getpgrp() != os.getpid():  # newer launchers have seen to it
        os.setsid()  # what the launcher's group is sent must not reach the rank twice
    log = os.open(f"{logs}/rank_{int(rank)}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    begin = os.fstat(log).st_size
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    record = f"{records}/{int(rank)}.{int(restart)}.{os.getpid()}"
    _write_record(f"{record}.started", f"{begin} {time.time():.3f}")
    return record


def _write_record(path: str, text: str) -> None:
    fd = os.open(f"{path}~", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(fd, text.encode())
    os.close(fd)
    os.rename(f"{path}~", path)  # noqa: PTH104 - as above


def _note_end(record: str, status: int) -> None:
    try:  # noqa: SIM105 - contextlib costs milliseconds here
        _write_record(f"{record}.ended", f"{os.waitstatus_to_exitcode(status)} {time.time():.6f}")
    except OSError:  # a full disk: what the rank has left must end all the same
        pass


def main(argv: list[str]) -> None:
    """Run the command given after ``--`` and end as it ends."""
    cut = argv.index("--")
    launched = argv[0] == _LAUNCHED
    record = _join_launched(*argv[1:cut]) if launched else ""
    agent = os.getppid() if launched else int(argv[0])
    afterwards = [] if launched else argv[1:cut]
    rank = 0

    def pass_on(number: int, frame: FrameType | None) -> None:
        if rank:
            try:
                os.kill(-rank, signal.SIGTERM)
            except ProcessLookupError:
                signal_all([rank], signal.SIGTERM)  # just forked: it leads no group yet

    def kill_now(number: int, frame: FrameType | None) -> None:
        kill_descendants()

    def checkpoint(number: int, frame: FrameType | None) -> None:
        signal_handlers(os.getpid(), number)

    blocked = {signal.SIGTERM, signal.SIGHUP, *_FOR_CHECKPOINTS}
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGHUP, kill_now)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in () if record else _FOR_CHECKPOINTS:  # below a launcher the outer keeper finds the rank itself
        signal.signal(number, checkpoint)
    become_subreaper()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)
    if os.getppid() != agent:
        os._exit(129)  # the agent went before it could be watched
    _keep_descriptors()
    rank = _start(argv[cut + 1 :])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
    status = _wait(rank)
    if record:
        _note_end(record, status)
    # First: a container's own programs need no help then. Again, if the agent had to kill them meanwhile.
    tidy = tidy_up(afterwards)
    _end_leftovers()
    if not tidy:
        tidy_up(afterwards)
    _end_like(status)


if __name__ == "__main__":
    main(sys.argv[1:])
