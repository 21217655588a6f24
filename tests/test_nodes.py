"""What agents of several nodes stand on: their connection, the records of ranks, the kernel's counters, free ports."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import wait_until
from hypothesis import given
from hypothesis import strategies as st

from mlflow_pytorch_estimator import failure
from mlflow_pytorch_estimator.launchers import blame, ports
from mlflow_pytorch_estimator.launchers.base import RankCommand
from mlflow_pytorch_estimator.nodes import arrival, here, oom, records, wire
from mlflow_pytorch_estimator.nodes.events import Ended
from mlflow_pytorch_estimator.nodes.here import HereNode, Scene

# --- the connection


@pytest.fixture
def door() -> Iterator[wire.Door]:
    made = wire.Door("127.0.0.1")
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[wire.Channel, socket.socket]]:
    """A channel, and the bare other end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        bare = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    channel = wire.Channel(accepted)
    yield channel, bare
    channel.close()
    bare.close()


def admit_while(door: wire.Door, visit: Callable[[], object]) -> tuple[wire.Channel, dict[str, object]] | None:
    visitor = threading.Thread(target=visit)
    visitor.start()
    found = door.admit(10)
    visitor.join()
    return found


def knock(door: wire.Door, words: bytes) -> None:
    host, _, port = door.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.recv(4096)
        connection.sendall(words)
        while connection.recv(4096):
            pass


def test_an_agent_with_the_secret_comes_in(door: wire.Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(wire.SECRET_VARIABLE, door.secret)
    joined: list[tuple[wire.Channel, str]] = []
    admitted = admit_while(door, lambda: joined.append(wire.join(door.address, {"place": "n2"}, 10)))
    assert admitted is not None
    channel, greeting = admitted
    (there, seen_as) = joined[0]
    assert greeting == {"place": "n2", "seen_as": "127.0.0.1"}
    assert seen_as == "127.0.0.1"
    long = {"do": "start", "words": "x" * 1_000_000}  # longer than a greeting may be
    sender = threading.Thread(target=there.send, args=(long,))
    sender.start()
    assert channel.receive(10) == [long]
    sender.join()
    there.close()
    assert channel.receive(5) == []
    assert channel.closed


@pytest.mark.parametrize("secret", ["", "0" * 64])
def test_an_agent_without_the_secret_does_not(door: wire.Door, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv(wire.SECRET_VARIABLE, secret)
    joined: list[tuple[wire.Channel, str]] = []
    assert admit_while(door, lambda: joined.append(wire.join(door.address, {"place": "n2"}, 10))) is None
    there, _ = joined[0]
    assert there.receive(5) == []
    assert there.closed


NOISE = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"[1]\n",
    b"null\n",
    b"\xff\xfe\n",
    b'{"answer": "\xc3\xa9"}\n',
    b"[" * 4000 + b"\n",
]


@pytest.mark.parametrize("words", [*NOISE, b"x" * 1_000_000], ids=lambda words: repr(words[:8]))
def test_noise_at_the_door_ends_nothing(door: wire.Door, monkeypatch: pytest.MonkeyPatch, words: bytes) -> None:
    def visit() -> None:
        with contextlib.suppress(ConnectionError):  # shut in the visitor's face
            knock(door, words)

    def come() -> None:
        wire.join(door.address, {"place": "n2"}, 10)[0].close()

    assert admit_while(door, visit) is None
    monkeypatch.setenv(wire.SECRET_VARIABLE, door.secret)
    admitted = admit_while(door, come)
    assert admitted is not None
    admitted[0].close()


def test_nobody_at_the_door(door: wire.Door) -> None:
    began = time.monotonic()
    assert door.admit(0.2) is None
    assert 0.15 < time.monotonic() - began < 5


def test_no_door(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="refused"):
        wire.join(f"127.0.0.1:{ports.reserve('127.0.0.1')}", {}, 5)


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.none()), min_size=1), st.randoms())
def test_messages_arrive_whole_however_they_are_cut(messages: list[dict[str, object]], draw: random.Random) -> None:
    ours, theirs = socket.socketpair()
    words = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
    channel = wire.Channel.__new__(wire.Channel)  # a pair of sockets has no TCP options
    channel._socket, channel._received, channel.longest, channel.closed = ours, b"", None, False
    received = []
    with ours, theirs:
        while words:
            size = draw.randint(1, len(words))
            theirs.sendall(words[:size])
            words = words[size:]
            received += channel.receive()
        theirs.close()
        received += channel.receive()
    assert received == messages
    assert channel.closed


def test_what_is_no_message_closes_a_channel(pair: tuple[wire.Channel, socket.socket]) -> None:
    channel, bare = pair
    bare.sendall(b'{"say": "over"}\nnoise\n{"say": "more"}\n')
    assert channel.receive(5) == [{"say": "over"}]
    assert channel.closed
    channel.send({"do": "leave"})  # says nothing, raises nothing


def test_a_trickle_does_not_hold_the_reader(pair: tuple[wire.Channel, socket.socket]) -> None:
    channel, bare = pair
    over = threading.Event()

    def trickle() -> None:
        while not over.wait(0.05):
            bare.sendall(b"x")

    sender = threading.Thread(target=trickle)
    sender.start()
    began = time.monotonic()
    giving_up = threading.Timer(10, over.set)
    giving_up.start()
    assert channel.receive(0.5) == []
    assert 0.4 < time.monotonic() - began < 5
    over.set()
    giving_up.cancel()
    sender.join()


def test_an_end_that_takes_nothing_any_more(
    pair: tuple[wire.Channel, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, _ = pair
    monkeypatch.setattr(wire.Channel, "_SEND_SECONDS", 0.3)
    began = time.monotonic()
    while not channel.closed and time.monotonic() < began + 20:
        channel.send({"words": "x" * 1_000_000})
    assert channel.closed


# --- records


def test_lives_of_ranks(tmp_path: Path) -> None:
    assert records.read(tmp_path / "none") == {}
    for name, words in {
        "0.0.10.started": "0 5.5",
        "0.0.10.ended": "-9 7.25",
        "0.1.12.started": "300 8.0",
        "1.0.11.started": "0 5.75",
        "1.0.11.ended": "0 9.5",
        "1.0.11.started.part": "",
    }.items():
        (tmp_path / name).write_text(words)
    assert records.read(tmp_path) == {
        "0.0.10": records.Record(0, 0, 10, 0, -9, 5.5, 7.25),
        "0.1.12": records.Record(0, 1, 12, 300, None, 8.0, 8.0),
        "1.0.11": records.Record(1, 0, 11, 0, 0, 5.75, 9.5),
    }


# --- want of memory


def machine(root: Path, cgroup: str, **files: str) -> Path:
    """A folder that looks like ``/``; in names of files ``__`` stands for ``/``."""
    for name, words in {"proc__self__cgroup": cgroup, **files}.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(words)
    return root


def test_kills_of_the_own_group_count(tmp_path: Path) -> None:
    events = {"sys__fs__cgroup__job__memory.events": "low 0\noom 7\noom_kill 3\noom_group_kill 1\n"}
    assert oom.kills(machine(tmp_path, "0::/job\n", proc__vmstat="oom_kill 9\n", **events)) == 3


def test_kills_of_the_own_group_count_in_old_groups(tmp_path: Path) -> None:
    group = {"sys__fs__cgroup__memory__job__memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"}
    groups = "12:cpu,cpuacct:/x\n5:memory:/job\n1:name=systemd:/y\n0::/\n"
    assert oom.kills(machine(tmp_path, groups, proc__vmstat="oom_kill 9\n", **group)) == 2


def test_kills_on_the_machine_where_the_group_does_not_say(tmp_path: Path) -> None:
    assert oom.kills(machine(tmp_path, "0::/\n", proc__vmstat="nr_free_pages 5\noom_kill 9\n")) == 9
    (tmp_path / "proc/vmstat").write_text("nr_free_pages 5\n")  # before Linux 4.13
    assert oom.kills(tmp_path) == 0
    (tmp_path / "proc/self/cgroup").unlink()
    assert oom.kills(tmp_path) == 0


# --- ports


def test_a_reserved_port_is_given_to_nobody_by_chance_and_to_whoever_names_it() -> None:
    reserved = {ports.reserve("127.0.0.1") for _ in range(50)}
    assert len(reserved) == 50
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(500)]
    assert not reserved & {server.getsockname()[1] for server in held}
    for server in held:
        server.close()
    for port in reserved:
        socket.create_server(("127.0.0.1", port)).close()


# --- ranks that have gone to meet the others


def test_a_rank_is_there_when_it_has_connected(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = (
            "import os, socket, subprocess, sys\n"
            "sys.stdin.readline()\n"
            "held = socket.create_connection(('127.0.0.1', int(os.environ['MASTER_PORT'])))\n"
            "sys.stdin.readline()\n"
        )
        started = [
            subprocess.Popen(
                [sys.executable, "-c", script], stdin=subprocess.PIPE, env={**os.environ, "MASTER_PORT": str(named)}
            )
            for named in (port, port, "x")
        ]
        pids = [process.pid for process in started]
        try:
            assert arrival.arrived(pids) == []
            assert started[1].stdin is not None
            started[1].stdin.write(b"go\n")
            started[1].stdin.flush()
            wait_until(lambda: arrival.arrived(pids) == [pids[1]], 20, "the connection")
        finally:
            for process in started:
                process.kill()
                process.communicate()
        assert arrival.arrived(pids) == []


# --- whom to blame

LATER = 'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\n    step()\n'
CONSEQUENCES = [
    "horovod.common.exceptions.HorovodInternalError: Horovod has been shut down.",
    "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:42",
    "RuntimeError: Connection reset by peer",
    "torch.distributed.DistBackendError: NCCL error in: x.cpp:1, remote process exited or there was a network error",
    "torch.distributed.DistNetworkError: Failed to recv, got 0 bytes. Connection was likely closed.",
    "torch.distributed.DistStoreError: Timed out after 61 seconds waiting for clients. 1/2 clients joined.",
]
CAUSES = [
    "RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
    "ValueError: Connection closed by peer",
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
]


@pytest.mark.parametrize("words", CONSEQUENCES)
def test_another_rank_had_gone_before(words: str) -> None:
    assert blame.is_consequence(f"step 3\n{LATER}{words}\n")
    assert blame.is_consequence("".join(f"[rank1]: {line}\n" for line in f"{LATER}{words}".splitlines()))
    assert not blame.is_consequence(f"{words}\n")  # printed, not raised


THROWN = (
    "terminate called after throwing an instance of 'gloo::IoException'\n"
    "  what():  [gloo/transport/tcp/pair.cc:799] connect [127.0.0.1]:25005: Connection refused\n"
)


def test_another_rank_had_gone_before_a_thread_of_the_library_gave_up() -> None:
    assert blame.is_consequence(f"pid 5\n{THROWN}")
    assert blame.is_consequence("".join(f"[rank1]: {line}\n" for line in THROWN.splitlines()))
    assert not blame.is_consequence("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  no\n")
    assert not blame.is_consequence(THROWN + "step\n" * 2000)  # it went on


@pytest.mark.parametrize("words", CAUSES)
def test_nobody_had_gone_before(words: str) -> None:
    assert not blame.is_consequence(f"step 3\n{LATER}{words}\n")


def end(rank: int | None, code: int, when: float, **more: object) -> Ended:
    return Ended("n1", code, when, rank, **more)  # type: ignore[arg-type]


def test_the_first_that_failed_is_to_blame() -> None:
    assert blame.culprit([]) is None
    assert blame.culprit([end(0, 0, 1), end(1, 0, 2)]) is None
    first, second = end(1, 3, 2.0), end(0, 1, 2.5)
    assert blame.culprit([second, end(2, 0, 1.0), first]) == first


def test_a_rank_that_lost_another_is_not_to_blame_although_it_ended_first() -> None:
    lost, guilty = end(0, 1, 2.0, consequence=True), end(1, -9, 2.5)
    assert blame.culprit([lost, guilty]) == guilty
    assert blame.culprit([lost]) == lost  # whoever else is to blame, nothing says so


def test_of_a_launcher_that_started_its_ranks_again_the_last_time_counts() -> None:
    earlier, last = end(0, 1, 1.0, restart=0), end(1, 7, 5.0, restart=1)
    assert blame.culprit([earlier, last]) == last


def test_a_launcher_only_reports_what_it_saw_unless_it_was_killed() -> None:
    rank = end(1, 7, 5.0)
    for code in (1, 143):
        assert blame.culprit([end(0, code, 4.0, launcher="torchrun"), rank]) == rank
    killed = end(0, -9, 6.0, launcher="torchrun")
    assert blame.culprit([rank, killed]) == killed
    told = end(0, 1, 6.0, launcher="torchrun", report={"traceback": f"{LATER}SignalException: got signal: 15"})
    assert blame.culprit([rank, told]) == told


def test_a_lost_node_comes_before_its_ranks() -> None:
    lost = end(None, -9, 5.0)
    assert blame.culprit([end(0, 1, 5.1, consequence=True), lost]) == lost


# --- how ranks end


@pytest.fixture
def node(tmp_path: Path) -> HereNode:
    for name in ("logs", "records"):
        (tmp_path / name).mkdir()
    return HereNode(Scene("n0", tmp_path / "logs", tmp_path / "records", tmp_path))


def has_ended(node: HereNode) -> bool:
    return all(process.rank.process.poll() is not None for process in node._processes)


def test_a_rank_that_ends_between_two_looks_is_not_over_before_its_end_is_told(node: HereNode) -> None:
    node.start([RankCommand(0, 0, ("sh", "-c", "exit 3"))], os.environ)
    wait_until(lambda: has_ended(node), 30, "the end")
    assert not node.over  # else a job whose rank has failed would pass for completed
    assert [event.exit_code for event in node.poll()] == [3]
    assert node.over


def test_what_a_launchers_ranks_have_noted_is_told_with_its_end(
    node: HereNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "go"
    note = f"while [ ! -e {go} ]; do sleep 0.01; done; cd {tmp_path}/records; echo '3 6.0' > 1.0.77.ended; exit 1"
    (tmp_path / "records/1.0.77.started").write_text("0 5.0")
    node.start([RankCommand(0, 0, ("sh", "-c", note), launcher="torchrun")], os.environ)
    monkeypatch.setattr(here, "_is_alive", lambda pid: True)
    read = records.read

    def slow(folder: Path) -> dict[str, records.Record]:
        found = read(folder)
        go.touch()
        wait_until(lambda: has_ended(node), 30, "the end")
        return found

    monkeypatch.setattr(records, "read", slow)
    assert node.poll() == []
    assert not node.over
    monkeypatch.setattr(records, "read", read)
    assert [(event.rank, event.launcher, event.exit_code) for event in node.poll()] == [(1, "", 3), (0, "torchrun", 1)]
    assert node.over


def test_a_keeper_that_leaves_its_note_while_it_is_looked_for_was_not_killed(
    node: HereNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "records/1.0.77.started").write_text("0 5.0")
    (tmp_path / "records/2.0.78.started").write_text("0 5.0")

    def goes(pid: int) -> bool:
        (tmp_path / "records/1.0.77.ended").write_text("3 6.0")
        return False

    monkeypatch.setattr(here, "_is_alive", goes)
    assert {event.rank: event.exit_code for event in node.poll()} == {1: 3, 2: -9}


# --- events


def test_an_event_crosses_the_wire_and_versions() -> None:
    report = failure.report(1, "n1", -9, "", who="", runtime=None, out_of_memory=True)
    event = end(1, -9, 5.0, key="k", restart=2, consequence=True, report=report)
    crossed = json.loads(json.dumps({**event.to_message(), "of_a_later_version": 1}))
    assert Ended.from_message(crossed) == event
    assert "out of memory" in report["reason"]
