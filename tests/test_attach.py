"""Following a job directory that grows, is cut off in the middle, or says strange things."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_pytorch_estimator import locks
from mlflow_pytorch_estimator.attach import Follower, LogTail
from mlflow_pytorch_estimator.console import Terminal
from mlflow_pytorch_estimator.jobdir import JobDir, Outcome
from mlflow_pytorch_estimator.journal import duration
from mlflow_pytorch_estimator.spec import InterpreterSpec, JobSpec
from mlflow_pytorch_estimator.status import Phase

JOB = JobSpec("r1", "0", "toy", "main", "true", {}, InterpreterSpec("local"))


def drain(tail: LogTail) -> bytes:
    data = b""
    while more := tail.read(last=True):
        data += more
    return data


def add(path: Path, data: bytes) -> None:
    with path.open("ab") as handle:
        handle.write(data)


def test_only_whole_lines_are_read_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = LogTail(path)
    assert tail.read() == b""
    assert tail.read(last=True) == b""
    add(path, b"one\ntw")
    assert tail.read() == b"one\n"
    assert tail.read() == b""
    add(path, b"o\n\nthr")
    assert tail.read() == b"two\n\n"
    add(path, b"ee")
    assert tail.read() == b""
    assert drain(tail) == b"three\n"
    assert tail.read(last=True) == b""


def test_a_prefix_stands_before_each_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = LogTail(path, b"[rank 1] ")
    add(path, b"one\n\ntwo\nthr")
    assert tail.read() == b"[rank 1] one\n[rank 1] \n[rank 1] two\n"
    assert drain(tail) == b"[rank 1] thr\n"


def test_characters_are_not_torn(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = LogTail(path)
    seen = b""
    for byte in "täglich ☃\n".encode() * 3:
        add(path, bytes([byte]))
        piece = tail.read()
        piece.decode()
        seen += piece
    assert seen.decode() == "täglich ☃\n" * 3


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_lines_longer_than_memory_should_hold_pass_in_pieces(tmp_path: Path, size: int) -> None:
    path = tmp_path / "log"
    data = b"x" * size + b"\nshort\n"
    add(path, data)
    assert drain(LogTail(path)) == data
    add(path, b"y" * size)
    tail = LogTail(path)
    pieces = []
    while piece := tail.read():
        pieces.append(piece)
        assert len(piece) <= 2 << 20
    assert (b"".join(pieces) + drain(tail)).rstrip(b"\n") == data + b"y" * size


def test_bytes_arrive_as_they_are_however_they_grow(tmp_path: Path) -> None:
    draw = random.Random(5)
    for turn in range(10):
        path = tmp_path / f"log{turn}"
        tail = LogTail(path)
        written = seen = b""
        for _ in range(50):
            data = draw.randbytes(draw.randint(0, 300)) + draw.choice([b"", b"\n", b"\r", b"\n\n"])
            written += data
            add(path, data)
            seen += tail.read()
        seen += drain(tail)
        assert seen == written or seen == written + b"\n"


class Heard(Terminal):
    """A terminal that remembers."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.bytes = b""

    def say(self, message: str, phase: Phase | None = None) -> None:
        self.said.append((phase.value if phase else "", message))

    def output(self, data: bytes) -> None:
        self.bytes += data


@pytest.fixture
def directory(home: Path) -> JobDir:
    staged, lock = JobDir.stage()
    staged.write_job(JOB)
    settled = staged.settle("r1")
    lock.close()
    return settled


def follow_while(directory: JobDir, work: Callable[[], None]) -> tuple[Heard, Outcome]:
    """Follow in this thread what another one does to the directory, lock in hand."""
    lock = locks.acquire(directory.lock)

    def live() -> None:
        try:
            work()
        finally:
            lock.close()

    thread = threading.Thread(target=live)
    heard = Heard()
    thread.start()
    try:
        return heard, Follower(directory, heard).follow()
    finally:
        thread.join()


def test_a_job_is_followed_to_its_end(directory: JobDir, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        directory.enter(Phase.QUEUED)
        time.sleep(0.1)
        directory.enter(Phase.QUEUED, "waiting for 1 job ahead")
        directory.enter(Phase.RUNNING, "on here")
        for number in range(20):
            add(directory.rank_log(0), b"line %d\nand ha" % number)
            time.sleep(0.01)
            add(directory.rank_log(0), b"lf\n")
        add(directory.rank_log(0), b"no newline")
        directory.enter(Phase.FINALIZING)
        directory.delivered.touch()  # before the outcome, or the follower would be free to deliver that
        directory.conclude(Phase.FAILED, "rank 0 died", 1, failure={"traceback": "Traceback: täglich"})

    heard, outcome = follow_while(directory, work)
    assert outcome == directory.outcome
    assert heard.bytes == b"".join(b"line %d\nand half\n" % number for number in range(20)) + b"no newline\n"
    assert heard.said[:-1] == [
        ("Queued", ""),
        ("Queued", "waiting for 1 job ahead"),
        ("Running", "on here"),
        ("Finalizing", ""),
    ]
    assert heard.said[-1][0] == "Failed"
    assert heard.said[-1][1].startswith("after ")
    assert capsys.readouterr().err == "Traceback: täglich\n"


def test_ranks_are_told_apart_when_there_are_several(directory: JobDir) -> None:
    for rank in (0, 1, 10):
        directory.rank_log(rank).touch()

    def work() -> None:
        directory.enter(Phase.RUNNING)
        for rank in (0, 1, 10):
            add(directory.rank_log(rank), b"hello\n")
        directory.conclude(Phase.COMPLETED, "", 0)
        directory.delivered.touch()

    heard, outcome = follow_while(directory, work)
    assert outcome.phase is Phase.COMPLETED
    assert set(heard.bytes.splitlines()) == {b"[rank 0] hello", b"[rank 1] hello", b"[rank 10] hello"}


def test_a_big_log_of_a_job_that_has_ended_is_printed_whole(directory: JobDir) -> None:
    data = b"".join(b"%d\n" % number for number in range(1_000_000))
    directory.rank_log(0).write_bytes(data)
    directory.enter(Phase.RUNNING)
    directory.conclude(Phase.COMPLETED, "", 0)
    directory.delivered.touch()
    heard, _ = follow_while(directory, lambda: None)
    assert heard.bytes == data


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (3.21, "3.2 s"),
        (59.94, "59.9 s"),
        (60, "1 min 0 s"),
        (125.2, "2 min 5 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (3840, "1 h 4 min"),
        (360_000, "100 h 0 min"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_bytes_go_to_standard_output_and_our_words_to_standard_error(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    Terminal().output(b"\xff\x00\n")
    Terminal().say("hello", Phase.RUNNING)
    Terminal().say("")
    Terminal().commands("r1")
    captured = capfdbinary.readouterr()
    assert captured.out == b"\xff\x00\n"
    lines = captured.err.decode().splitlines()
    assert lines[:2] == ["gpu-cluster: Running    hello", "gpu-cluster:"]
    assert lines[2] == "    gpu-cluster logs --follow r1"
