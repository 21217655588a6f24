"""The local queue and its locks, with real processes that hold, wait, fork and die."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import wait_until

from mlflow_pytorch_estimator import locks
from mlflow_pytorch_estimator.schedulers.machine import Capacity
from mlflow_pytorch_estimator.schedulers.queue import Queue, Request, Waiting

MACHINE = Capacity(tuple(range(8)), tuple(range(4)))

# Takes a place, waits for the grant, tells it, and holds it until its standard input ends.
HOLDER = """
import json, os, sys, time
from pathlib import Path
from mlflow_pytorch_estimator.schedulers.machine import Capacity
from mlflow_pytorch_estimator.schedulers.queue import Queue, Request, Waiting

queue = Queue(Path(sys.argv[1]))
ticket = queue.enter(sys.argv[2], Request(int(sys.argv[3]), int(sys.argv[4])))
print(ticket.path, flush=True)
while isinstance(answer := queue.poll(ticket.path, Capacity(tuple(range(8)), tuple(range(4)))), Waiting):
    time.sleep(0.01)
print(json.dumps([answer.cpus, answer.gpus]), flush=True)
sys.stdin.read()
queue.leave(ticket.path)
"""


class Holder:
    """A real process with a place in a queue."""

    def __init__(self, root: Path, name: str, cpus: int, gpus: int) -> None:
        argv = [sys.executable, "-c", HOLDER, str(root), name, str(cpus), str(gpus)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self._out = self.process.stdout
        self.ticket = Path(self._out.readline().strip())

    def granted(self) -> list[list[int]]:
        """The cores and GPUs; waits for them."""
        answer: list[list[int]] = json.loads(self._out.readline())
        return answer

    def end(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


def test_places_are_taken_in_order_and_shares_do_not_overlap(tmp_path: Path) -> None:
    first, second = Holder(tmp_path, "a", 4, 2), Holder(tmp_path, "b", 4, 2)
    assert first.granted() == [[0, 1, 2, 3], [0, 1]]
    assert second.granted() == [[4, 5, 6, 7], [2, 3]]
    assert first.ticket.name < second.ticket.name
    first.end()
    second.end()
    assert list((tmp_path / "tickets").iterdir()) == []


def test_a_big_request_at_the_head_is_not_overtaken(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    running = queue.enter("running", Request(2, 1))
    assert queue.poll(running.path, MACHINE) == Capacity((0, 1), (0,))
    big = queue.enter("big", Request(8, 4))
    small = queue.enter("small", Request(1, 0))
    for _ in range(3):
        assert queue.poll(small.path, MACHINE) == Waiting(2)
        assert queue.poll(big.path, MACHINE) == Waiting(1)
    queue.leave(running.path)
    running.lock.close()
    assert queue.poll(small.path, MACHINE) == Waiting(1)
    assert queue.poll(big.path, MACHINE) == MACHINE
    queue.leave(big.path)
    big.lock.close()
    assert queue.poll(small.path, MACHINE) == Capacity((0,), ())
    small.lock.close()


def test_a_grant_stays_what_it_was(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    ticket = queue.enter("a", Request(3, 1))
    granted = queue.poll(ticket.path, MACHINE)
    assert granted == Capacity((0, 1, 2), (0,))
    assert queue.poll(ticket.path, MACHINE) == granted
    assert queue.poll(ticket.path, Capacity((5,), ())) == granted
    ticket.lock.close()


@pytest.mark.parametrize("request_", [Request(9, 0), Request(0, 5), Request(9, 5)])
def test_more_than_the_machine_has_waits(tmp_path: Path, request_: Request) -> None:
    queue = Queue(tmp_path)
    ticket = queue.enter("a", request_)
    assert queue.poll(ticket.path, MACHINE) == Waiting(0)
    ticket.lock.close()


def test_a_killed_process_gives_its_share_back(tmp_path: Path) -> None:
    dying = Holder(tmp_path, "dying", 8, 4)
    assert dying.granted() == [list(range(8)), list(range(4))]
    queue = Queue(tmp_path)
    ticket = queue.enter("next", Request(8, 4))
    assert queue.poll(ticket.path, MACHINE) == Waiting(1)
    dying.kill()
    assert queue.poll(ticket.path, MACHINE) == MACHINE
    assert not dying.ticket.exists()
    ticket.lock.close()


def test_a_process_killed_while_it_waits_leaves_its_place(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    running = queue.enter("running", Request(1, 0))
    assert queue.poll(running.path, MACHINE) == Capacity((0,), ())
    dying = Holder(tmp_path, "dying", 8, 0)
    ticket = queue.enter("last", Request(1, 0))
    assert queue.poll(ticket.path, MACHINE) == Waiting(2)
    dying.kill()
    assert queue.poll(ticket.path, MACHINE) == Capacity((1,), ())
    ticket.lock.close()
    running.lock.close()


def test_a_share_returns_only_with_the_last_that_inherited_it(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    ticket = queue.enter("parent", Request(8, 4))
    assert queue.poll(ticket.path, MACHINE) == MACHINE
    child = subprocess.Popen(["sleep", "60"], pass_fds=[ticket.lock.fd])
    ticket.lock.close()
    after = queue.enter("after", Request(1, 1))
    try:
        assert queue.poll(after.path, MACHINE) == Waiting(1)
    finally:
        child.kill()
        child.wait()
    assert queue.poll(after.path, MACHINE) == Capacity((0,), (0,))
    after.lock.close()


def test_the_sequence_goes_on_in_an_emptied_queue(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        ticket = Queue(tmp_path).enter("x", Request(1, 0))
        Queue(tmp_path).leave(ticket.path)
        ticket.lock.close()
        names.append(ticket.path.name)
    assert names == ["000000000001-x", "000000000002-x", "000000000003-x"]


def test_leaving_twice_is_fine(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    ticket = queue.enter("x", Request(1, 0))
    queue.leave(ticket.path)
    queue.leave(ticket.path)
    ticket.lock.close()
    assert list((tmp_path / "tickets").iterdir()) == []


def test_what_a_killed_writer_left_on_its_ticket_does_not_matter(tmp_path: Path) -> None:
    queue = Queue(tmp_path)
    ticket = queue.enter("x", Request(1, 0))
    (tmp_path / "tickets" / "000000000000-torn").write_text('{"requ')
    assert queue.poll(ticket.path, MACHINE) == Capacity((0,), ())
    assert not (tmp_path / "tickets" / "000000000000-torn").exists()
    ticket.lock.close()


def test_the_queue_is_private(tmp_path: Path) -> None:
    ticket = Queue(tmp_path / "queue").enter("x", Request(1, 0))
    assert ticket.path.parent.stat().st_mode & 0o777 == 0o700
    assert ticket.path.stat().st_mode & 0o777 == 0o600
    ticket.lock.close()


# Asks again and again for random shares, holds each for a moment and writes down from when to when.
CROWD = """
import json, os, random, sys, time
from pathlib import Path
from mlflow_pytorch_estimator.schedulers.machine import Capacity
from mlflow_pytorch_estimator.schedulers.queue import Queue, Request, Waiting

root, me = Path(sys.argv[1]), int(sys.argv[2])
queue, draw, machine = Queue(root), random.Random(me), Capacity(tuple(range(8)), tuple(range(4)))
with (root / f"record-{me}").open("w") as record:
    for turn in range(int(sys.argv[3])):
        wanted = Request(draw.randint(1, 8), draw.randint(0, 4))
        ticket = queue.enter(f"{me}-{turn}", wanted)
        while isinstance(answer := queue.poll(ticket.path, machine), Waiting):
            time.sleep(0.005)
        began = time.monotonic()
        assert (len(answer.cpus), len(answer.gpus)) == (wanted.cpus, wanted.gpus)
        time.sleep(draw.random() * 0.03)
        line = {"from": began, "to": time.monotonic(), "cpus": answer.cpus, "gpus": answer.gpus,
                "place": ticket.path.name}
        record.write(json.dumps(line) + "\\n")
        if draw.random() < 0.5:
            queue.leave(ticket.path)
        ticket.lock.close()  # the other half just lets go, as a process that dies
"""


def test_nothing_is_ever_granted_twice(tmp_path: Path) -> None:
    crowd = [subprocess.Popen([sys.executable, "-c", CROWD, str(tmp_path), str(me), "12"]) for me in range(8)]
    assert [process.wait(60) for process in crowd] == [0] * 8
    records = [json.loads(line) for file in tmp_path.glob("record-*") for line in file.read_text().splitlines()]
    assert len(records) == 8 * 12
    for kind, size in (("cpus", 8), ("gpus", 4)):
        for item in range(size):
            spans = sorted((record["from"], record["to"]) for record in records if item in record[kind])
            assert spans, f"{kind} {item} was never used"
            for (_, end), (begin, _) in itertools.pairwise(spans):
                assert end <= begin, f"{kind} {item} was granted twice"
    in_order = [record["place"] for record in sorted(records, key=lambda record: record["from"])]
    # The clock is read after the grant, so neighbours may swap; nobody is overtaken by more than that.
    places = sorted(in_order)
    assert max(abs(index - places.index(place)) for index, place in enumerate(in_order)) <= 8


def test_random_deaths_leave_the_machine_whole(tmp_path: Path) -> None:
    draw = random.Random(7)
    holders = [Holder(tmp_path, str(me), draw.randint(1, 4), draw.randint(0, 2)) for me in range(6)]
    for holder in draw.sample(holders, len(holders)):
        holder.kill()
    queue = Queue(tmp_path)
    ticket = queue.enter("all", Request(8, 4))
    assert queue.poll(ticket.path, MACHINE) == MACHINE
    assert [path.name for path in (tmp_path / "tickets").iterdir()] == [ticket.path.name]
    ticket.lock.close()


# Locks


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = locks.try_acquire(path)
    assert held is not None
    assert locks.try_acquire(path) is None
    assert locks.is_held(path)
    held.close()
    held.close()
    assert not locks.is_held(path)
    again = locks.try_acquire(path)
    assert again is not None
    again.close()


def test_a_lock_without_a_file_is_free_and_asking_makes_none(tmp_path: Path) -> None:
    assert not locks.is_held(tmp_path / "none")
    assert locks.wait_until_free(tmp_path / "none", 0)
    assert not (tmp_path / "none").exists()


def test_asking_does_not_take_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    locks.acquire(path).close()
    for _ in range(3):
        assert not locks.is_held(path)


def test_two_who_ask_do_not_take_each_other_for_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not locks.is_held(path)


def test_holding_lets_go_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(RuntimeError), locks.holding(path):  # noqa: PT012 - what happens inside is the point
        assert locks.is_held(path)
        raise RuntimeError
    assert not locks.is_held(path)


def test_descriptors_are_not_inherited_unless_passed_on(tmp_path: Path) -> None:
    held = locks.acquire(tmp_path / "lock")
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    held.close()
    assert not locks.is_held(tmp_path / "lock")
    child.kill()
    child.wait()


ADOPTER = """
import subprocess, sys
from pathlib import Path
from mlflow_pytorch_estimator import locks
held = locks.adopt(Path(sys.argv[1]), int(sys.argv[2]))
grandchild = subprocess.Popen(["sleep", "60"], close_fds=False)  # must not get the lock
print(grandchild.pid, flush=True)
sys.stdin.read()
"""


def test_a_lock_is_adopted_by_a_child_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = locks.acquire(path)
    argv = [sys.executable, "-c", ADOPTER, str(path), str(held.fd)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[held.fd]
    ) as adopter:
        assert adopter.stdout is not None
        grandchild = int(adopter.stdout.readline())
        held.close()
        assert locks.is_held(path)
        assert not locks.wait_until_free(path, 0.1)
        adopter.kill()
        adopter.wait()
        assert locks.wait_until_free(path, 5)
        os.kill(grandchild, signal.SIGKILL)


def test_waiting_for_a_lock_ends_when_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    child = subprocess.Popen(["flock", str(path), "sleep", "0.5"])
    wait_until(lambda: locks.is_held(path), 10)
    began = time.monotonic()
    assert locks.wait_until_free(path, 20)
    assert time.monotonic() - began < 10
    child.wait()
    child = subprocess.Popen(["flock", str(path), "sleep", "0.3"])
    wait_until(lambda: locks.is_held(path), 10)
    locks.acquire(path).close()
    assert child.wait() == 0
