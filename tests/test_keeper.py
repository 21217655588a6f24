"""The keeper as the agent uses it: through ``ranks.start``, with real commands, and through death of every party."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import processes_with, wait_until
from rank_ends import end

from mlflow_pytorch_estimator import keeper, locks, ranks
from mlflow_pytorch_estimator.launchers.base import RankCommand
from mlflow_pytorch_estimator.ranks import Rank


class Node:
    """Starts ranks whose processes can be told from all others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.log = folder / "rank.log"
        self._started: list[Rank] = []

    def start(self, *argv: str, inherited: Sequence[int] = (), afterwards: tuple[str, ...] = ()) -> Rank:
        command = RankCommand(0, 0, argv, {"MARK": self.mark}, afterwards=afterwards)
        self._started.append(ranks.start(command, self.log, self.folder, os.environ, inherited))
        return self._started[-1]

    def clean(self) -> None:
        for rank in self._started:
            rank.process.kill()
            rank.process.wait()
        for pid in self.left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def bash(self, script: str, inherited: Sequence[int] = ()) -> Rank:
        return self.start("bash", "-c", script, inherited=inherited)

    def python(self, script: str) -> Rank:
        return self.start(sys.executable, "-c", script)

    def says(self, text: str) -> None:
        wait_until(lambda: self.log.exists() and text in self.log.read_text(), 20, f"{text!r} in the log")

    @property
    def left(self) -> list[int]:
        return processes_with(self.mark)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.clean()


@pytest.mark.parametrize("status", [0, 1, 3, 42, 127, 128, 255])
def test_the_exit_status_passes_through(node: Node, status: int) -> None:
    assert node.bash(f"exit {status}").process.wait(20) == status


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGINT])
def test_death_by_signal_passes_through(node: Node, number: int) -> None:
    assert node.bash(f"kill -{int(number)} $$").process.wait(20) == -number


def test_a_dead_rank_dumps_no_second_core(node: Node) -> None:
    rank = node.python("import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.kill(os.getpid(), 3)")
    assert rank.process.wait(20) == -signal.SIGQUIT
    assert [path.name for path in node.folder.iterdir()] == ["rank.log"]


def test_arguments_reach_the_command_unchanged(node: Node) -> None:
    values = ["a b", "$HOME", "'\"", "line\nbreak", "--", "-I", "täglich ☃", ""]
    script = "import sys; sys.stdout.write(repr(sys.argv[1:]))"
    assert node.start(sys.executable, "-c", script, *values).process.wait(20) == 0
    assert node.log.read_text(encoding="utf-8") == repr(values)


@pytest.mark.parametrize("command", ["no-such-command-of-ours", "/etc/passwd", "/"])
def test_a_command_that_cannot_start_is_named_in_the_log(node: Node, command: str) -> None:
    assert node.start(command, "x").process.wait(20) == 127
    text = node.log.read_text()
    assert text.startswith(f"cannot start {command}: ")
    assert len(text.splitlines()) == 1


def test_the_log_is_appended_to_and_private(node: Node) -> None:
    node.bash("echo one").process.wait(20)
    node.bash("echo two >&2; echo three").process.wait(20)
    assert node.log.read_text() == "one\ntwo\nthree\n"
    assert node.log.stat().st_mode & 0o777 == 0o600


def test_binary_junk_and_endless_lines_pass(node: Node) -> None:
    junk = bytes(range(256)) * 64
    (node.folder / "junk").write_bytes(junk)
    size = 256 << 20
    assert node.bash(f"cat junk; head -c {size} /dev/zero").process.wait(60) == 0
    assert node.log.stat().st_size == len(junk) + size
    with node.log.open("rb") as handle:
        assert handle.read(len(junk)) == junk
    node.log.unlink()


def test_a_rank_reads_an_empty_standard_input(node: Node) -> None:
    assert node.bash("cat; echo done").process.wait(20) == 0
    assert node.log.read_text() == "done\n"


def test_the_ranks_signals_are_as_a_shell_would_leave_them(node: Node) -> None:
    node.bash("grep -E 'Sig(Blk|Ign)' /proc/self/status").process.wait(20)
    blocked, ignored = (int(line.split()[1], 16) for line in node.log.read_text().splitlines())
    assert blocked == 0
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        assert not ignored & 1 << (number - 1)


def test_a_rank_leads_its_own_session(node: Node) -> None:
    node.python("import os; print(os.getsid(0) == os.getpid() == os.getpgrp())").process.wait(20)
    assert node.log.read_text() == "True\n"


def test_locks_are_the_keepers_not_the_ranks(node: Node) -> None:
    lock = locks.acquire(node.folder / "lock")
    rank = node.bash("ls -l /proc/self/fd; echo up; exec sleep 60", inherited=[lock.fd])
    node.says("up")
    lock.close()
    assert str(node.folder / "lock") not in node.log.read_text()
    assert locks.is_held(node.folder / "lock")
    os.kill(rank.process.pid, signal.SIGKILL)
    rank.process.wait(20)
    assert locks.wait_until_free(node.folder / "lock", 5)
    wait_until(lambda: not node.left, 5, "the end of the rank")


LEFTOVERS = {
    "background": "sleep 987 & echo up",
    "nohup": "nohup sleep 987 >/dev/null 2>&1 & echo up",
    "setsid": "setsid sleep 987 & echo up",
    "double fork": "(setsid bash -c 'sleep 987 & sleep 986 &' &) ; sleep 0.3; echo up",
    "tree": "bash -c 'bash -c \"sleep 987 & wait\" & wait' & sleep 0.3; echo up",
}


@pytest.mark.parametrize("kind", LEFTOVERS)
def test_what_a_rank_leaves_ends_with_it(node: Node, kind: str) -> None:
    began = time.monotonic()
    assert node.bash(f"{LEFTOVERS[kind]}; exit 5").process.wait(20) == 5
    assert node.left == []
    assert time.monotonic() - began < 10


def test_leftovers_may_tidy_up_and_the_deaf_are_killed(node: Node) -> None:
    node.bash(
        "bash -c 'trap \"echo tidy; exit\" TERM; echo up1; while :; do sleep 0.1; done' &"
        "bash -c 'trap \"\" TERM; echo up2; while :; do sleep 0.1; done' &"
        "while [ $(grep -c up $0) -lt 2 ]; do sleep 0.05; done".replace("$0", str(node.log))
    ).process.wait(20)
    assert node.left == []
    assert "tidy" in node.log.read_text()


def test_sigterm_reaches_the_rank_and_its_group(node: Node) -> None:
    rank = node.bash(
        "trap 'echo parent; wait; exit 9' TERM; "
        "bash -c 'trap \"echo child; exit\" TERM; echo up; while :; do sleep 0.1; done' & wait"
    )
    node.says("up")
    rank.process.send_signal(signal.SIGTERM)
    assert rank.process.wait(20) == 9
    assert {"up", "child", "parent"} <= set(node.log.read_text().split())


def test_sigterm_ends_a_rank_that_does_not_care(node: Node) -> None:
    rank = node.bash("echo up; exec sleep 987")
    node.says("up")
    rank.process.send_signal(signal.SIGTERM)
    assert rank.process.wait(20) == -signal.SIGTERM


def test_a_sigterm_in_the_moment_of_the_start_is_not_lost(node: Node) -> None:
    for _ in range(8):
        # The keeper inherits the mask, so the signal is pending until the keeper has started the rank.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            rank = node.start("sleep", "987")
            rank.process.send_signal(signal.SIGTERM)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        assert rank.process.wait(5) == -signal.SIGTERM


def test_sighup_kills_everything_at_once(node: Node) -> None:
    rank = node.bash(
        "trap '' TERM HUP; setsid bash -c \"trap '' TERM HUP; echo up; sleep 987; sleep 986\" & wait; wait"
    )
    node.says("up")
    began = time.monotonic()
    rank.process.send_signal(signal.SIGHUP)
    assert rank.process.wait(20) == -signal.SIGKILL
    assert time.monotonic() - began < 2
    assert node.left == []


def test_ctrl_c_in_the_terminal_is_not_for_the_keeper(node: Node) -> None:
    rank = node.bash("echo up; exec sleep 987")
    node.says("up")
    rank.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert rank.exit_code is None
    end([rank], 5)


class Afterwards:
    """A command for after a rank: it notes each of its runs, and fails the first ``failures`` times."""

    def __init__(self, folder: Path, script: str = "", failures: int = 0) -> None:
        self.runs = folder / "runs"
        noting = f"echo run >> {self.runs}; [ $(grep -c run {self.runs}) -gt {failures} ]"
        self.command = ("bash", "-c", f"{script}\n{noting}")

    @property
    def count(self) -> int:
        return len(self.runs.read_text().splitlines()) if self.runs.exists() else 0


@pytest.mark.parametrize(
    ("script", "code"), [("true", 0), ("exit 3", 3), ("kill -9 $$", -9), ("(setsid sleep 987 &); exit 4", 4)]
)
def test_what_comes_afterwards_comes_however_a_rank_ends(node: Node, script: str, code: int) -> None:
    afterwards = Afterwards(node.folder, script="echo unseen; echo unseen >&2; ls -l /proc/self/fd > fds; sleep 0.2")
    lock = locks.acquire(node.folder / "lock")
    rank = node.start("bash", "-c", script, inherited=[lock.fd], afterwards=afterwards.command)
    lock.close()
    assert rank.process.wait(20) == code
    assert afterwards.count == 1
    assert "unseen" not in node.log.read_text()
    assert str(node.folder / "lock") not in (node.folder / "fds").read_text()
    assert node.left == []


def test_what_fails_afterwards_is_tried_again_but_not_forever(node: Node) -> None:
    afterwards = Afterwards(node.folder, failures=4)
    assert not keeper.tidy_up(list(afterwards.command))
    assert afterwards.count == 3
    assert node.start("true", afterwards=afterwards.command).process.wait(20) == 0
    assert afterwards.count == 5
    assert node.start("true", afterwards=("no-such-command-of-ours",)).process.wait(20) == 0
    began = time.monotonic()
    assert not keeper.tidy_up(["sleep", "987"], 0.3)
    assert time.monotonic() - began < 3


def test_a_killed_keeper_leaves_the_rest_to_the_agent(node: Node) -> None:
    afterwards = Afterwards(node.folder)
    rank = node.start("bash", "-c", "echo up; exec sleep 987", afterwards=afterwards.command)
    node.says("up")
    rank.process.kill()
    rank.process.wait(20)
    assert afterwards.count == 0
    end([rank], 5)
    assert afterwards.count == 1


def test_a_sighup_in_the_middle_of_it_does_not_prevent_it(node: Node) -> None:
    afterwards = Afterwards(node.folder, script="touch begun; sleep 0.5")
    rank = node.start("true", afterwards=afterwards.command)
    wait_until((node.folder / "begun").exists, 20)
    rank.process.send_signal(signal.SIGHUP)
    assert rank.process.wait(20) == 0
    assert afterwards.count == 1
    assert node.left == []


AGENT = """
import os, sys, time
from pathlib import Path
from mlflow_pytorch_estimator import ranks
from mlflow_pytorch_estimator.launchers.base import RankCommand
folder = Path(sys.argv[1])
for rank in range(2):
    command = RankCommand(rank, rank, ("bash", "-c", sys.argv[2]), afterwards=("touch", f"after_{rank}"))
    ranks.start(command, folder / f"rank_{rank}.log", folder, os.environ, ())
time.sleep(987)
"""


@pytest.mark.parametrize(
    "script",
    [
        "echo up; exec sleep 987",
        "trap '' TERM HUP; echo up; sleep 987; sleep 986",
        "setsid sleep 987 & (setsid bash -c 'sleep 986 &' &); sleep 0.3; echo up; wait",
    ],
)
def test_nothing_outlives_a_killed_agent(node: Node, script: str) -> None:
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(node.folder), script], env={**os.environ, "MARK": node.mark}
    )
    for rank in range(2):
        log = node.folder / f"rank_{rank}.log"
        wait_until(lambda log=log: log.exists() and "up" in log.read_text(), 20)  # type: ignore[misc]  # mypy cannot type it
    agent.kill()
    agent.wait()
    wait_until(lambda: not node.left, 10, "the end of everything")
    assert {path.name for path in node.folder.glob("after_*")} == {"after_0", "after_1"}


def test_a_keeper_whose_agent_went_first_starts_nothing(tmp_path: Path) -> None:
    argv = [sys.executable, "-I", "-S", keeper.__file__, "1", "--", "touch", str(tmp_path / "started")]
    assert subprocess.run(argv, check=False).returncode == 129
    assert not (tmp_path / "started").exists()


def test_ending_ranks_waits_for_the_grace_period_and_no_longer(node: Node) -> None:
    deaf = node.bash("trap '' TERM; echo up; while :; do sleep 0.1; done")
    node.says("up")
    began = time.monotonic()
    end([deaf], 0.5)
    assert 0.5 <= time.monotonic() - began < 5
    assert deaf.exit_code == -signal.SIGKILL
    assert node.left == []


def test_ending_ranks_that_have_ended_is_quick(node: Node) -> None:
    rank = node.bash("exit 4")
    rank.process.wait(20)
    began = time.monotonic()
    end([rank], 30)
    assert time.monotonic() - began < 2
    assert rank.exit_code == 4


def test_descendants_are_found_over_generations() -> None:
    with subprocess.Popen(["bash", "-c", "bash -c 'sleep 987; :' & wait"], start_new_session=True) as tree:
        wait_until(lambda: len(keeper.descendants(tree.pid)) == 2, 10)
        os.killpg(tree.pid, signal.SIGKILL)
    assert keeper.descendants(tree.pid) == []
    keeper.signal_all([tree.pid], signal.SIGTERM)  # has gone: no error
