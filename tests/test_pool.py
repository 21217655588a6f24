"""Clusters on this machine: who gets their nodes, which are up, and what is left when a holder dies."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_pytorch_estimator import clusters, jobdir
from mlflow_pytorch_estimator.clusters import Cluster
from mlflow_pytorch_estimator.schedulers import pool
from mlflow_pytorch_estimator.schedulers.base import NodeState
from mlflow_pytorch_estimator.schedulers.local import LocalScheduler
from mlflow_pytorch_estimator.schedulers.local_node import wait_for_turn
from mlflow_pytorch_estimator.schedulers.machine import Capacity, detect_memory_gb
from mlflow_pytorch_estimator.schedulers.pool import Occupant
from mlflow_pytorch_estimator.schedulers.queue import Queue, Request, Ticket, Waiting

MACHINE = Capacity(tuple(range(8)), tuple(range(4)), 64.0)


def define(name: str = "one", **settings: object) -> Cluster:
    cluster = Cluster(name, **{"max_nodes": 2, "cpus_per_node": 1, **settings})  # type: ignore[arg-type]  # passed through
    clusters.store(cluster)
    return cluster


class Line:
    """A queue in this process, with short requests by name."""

    def __init__(self, root: Path) -> None:
        self.queue = Queue(root)
        self.tickets: dict[str, Ticket] = {}

    def enter(self, name: str, pool: str | None = None, **wanted: object) -> None:
        request = Request(**{"cpus": 1, "gpus": 0, "pool": pool, **wanted})  # type: ignore[arg-type]  # passed through
        self.tickets[name] = self.queue.enter(name, request)

    def poll(self, name: str) -> Capacity | Waiting:
        return self.queue.poll(self.tickets[name].path, MACHINE)

    def runs(self, *names: str) -> bool:
        return all(isinstance(self.poll(name), Capacity) for name in names)

    def end(self, name: str) -> None:
        ticket = self.tickets.pop(name)
        self.queue.leave(ticket.path)
        ticket.lock.close()

    def nodes(self, name: str) -> dict[str, tuple[int, ...]]:
        return {job.run_id: job.nodes for job in self.queue.occupants(name)[0]}

    def close(self) -> None:
        for name in list(self.tickets):
            self.end(name)


@pytest.fixture
def line(home: Path) -> Iterator[Line]:
    line = Line(home / "queue")
    yield line
    line.close()


# The limit


def test_a_cluster_never_has_more_than_its_nodes(line: Line) -> None:
    define(max_nodes=2)
    for name in "abc":
        line.enter(name, "one")
    assert line.runs("a", "b")
    waiting = line.poll("c")
    assert isinstance(waiting, Waiting)
    assert waiting.describe() == "waiting for a node of one (2 of 2 in use)"
    assert line.nodes("one") == {"a": (0,), "b": (1,)}
    line.end("a")
    assert line.runs("c")
    assert line.nodes("one") == {"b": (1,), "c": (0,)}


def test_a_full_cluster_does_not_hold_up_others(line: Line) -> None:
    define("one", max_nodes=1)
    define("two", max_nodes=1)
    line.enter("a", "one")
    assert line.runs("a")
    line.enter("b", "one")
    line.enter("c", "two")
    line.enter("d")
    assert line.runs("c", "d")
    assert not line.runs("b")
    line.enter("e", "two")
    assert not line.runs("e")
    line.end("a")
    assert line.runs("b")
    assert not line.runs("e")


def test_within_a_cluster_a_big_job_is_not_overtaken(line: Line) -> None:
    define(max_nodes=3)
    line.enter("a", "one")
    assert line.runs("a")
    line.enter("big", "one", nodes=3, cpus=3)
    line.enter("small", "one")
    assert line.poll("small") == Waiting(2)
    big = line.poll("big")
    assert isinstance(big, Waiting)
    assert big.describe() == "waiting for 3 nodes of one (1 of 3 in use)"
    line.end("a")
    assert not line.runs("small")
    assert line.runs("big")
    assert line.nodes("one") == {"big": (0, 1, 2)}


def test_a_job_that_waits_for_the_machine_holds_up_all(line: Line) -> None:
    define("one")
    define("two")
    line.enter("a", "one", cpus=2)
    assert line.runs("a")
    line.enter("big", "one", cpus=8)
    line.enter("small", "two")
    line.enter("none")
    assert line.poll("small") == Waiting(2)
    assert line.poll("none") == Waiting(3)
    assert line.poll("big") == Waiting(1)


def test_update_reaches_those_who_wait(line: Line) -> None:
    cluster = define(max_nodes=1)
    line.enter("a", "one")
    line.enter("b", "one")
    assert line.runs("a")
    assert not line.runs("b")
    clusters.change(cluster.name, max_nodes=2)
    assert line.runs("b")
    clusters.change(cluster.name, max_nodes=1)
    line.enter("c", "one")
    line.end("a")
    waiting = line.poll("c")
    assert isinstance(waiting, Waiting)
    assert (waiting.in_use, waiting.limit) == (1, 1)


def test_a_job_too_large_for_a_cluster_that_shrank_holds_up_nobody(line: Line) -> None:
    define(max_nodes=2)
    line.enter("a", "one")
    assert line.runs("a")
    line.enter("big", "one", nodes=2, cpus=2)
    line.enter("small", "one")
    clusters.change("one", max_nodes=1)
    line.end("a")
    big = line.poll("big")
    assert isinstance(big, Waiting)
    assert big.describe() == "waiting for 2 nodes of one (0 of 1 in use)"
    assert line.runs("small")
    clusters.change("one", max_nodes=3)
    assert line.runs("big")


@pytest.mark.parametrize("broken", [None, "{", "[]"])
def test_a_job_whose_cluster_has_gone_still_runs(line: Line, home: Path, broken: str | None) -> None:
    define(max_nodes=1)
    line.enter("a", "one")
    line.enter("b", "one")
    assert line.runs("a")
    clusters.remove("one")
    if broken is not None:
        (home / "compute/one.json").write_text(broken)
    line.enter("c")
    assert line.runs("b", "c")


# Priority and memory


def test_low_priority_comes_after_all_that_wait(line: Line) -> None:
    line.enter("running", cpus=8)
    assert line.runs("running")
    line.enter("low", low_priority=True)
    line.enter("low too", low_priority=True)
    line.enter("normal", cpus=8)
    assert line.poll("low") == Waiting(2)
    assert line.poll("low too") == Waiting(3)
    assert line.poll("normal") == Waiting(1)
    line.end("running")
    assert not line.runs("low")
    assert line.runs("normal")
    line.end("normal")
    assert not line.runs("low too")
    assert line.runs("low", "low too")


def test_memory_is_counted_when_it_is_asked_for(line: Line) -> None:
    line.enter("a", memory_gb=40.0)
    line.enter("b", memory_gb=24.0)
    line.enter("c", memory_gb=0.5)
    assert line.runs("a", "b")
    assert line.poll("c") == Waiting(2)
    line.end("b")
    assert line.runs("c")
    line.enter("none")
    assert line.runs("none")


def test_memory_of_a_container_is_its_limit(tmp_path: Path) -> None:
    whole = detect_memory_gb(tmp_path / "none")
    limit = tmp_path / "memory.max"
    limit.write_text("max\n")
    assert detect_memory_gb(limit) == whole > 0.1
    limit.write_text(f"{2**27}\n")
    assert detect_memory_gb(limit) == 0.125


# With real processes

HOLDER = """
import json, sys, time
from pathlib import Path
from mlflow_pytorch_estimator.schedulers.machine import Capacity
from mlflow_pytorch_estimator.schedulers.queue import Queue, Request, Waiting

queue = Queue(Path(sys.argv[1]))
ticket = queue.enter(sys.argv[2], Request(**json.loads(sys.argv[3])))
print("waits", flush=True)
while isinstance(answer := queue.poll(ticket.path, Capacity(tuple(range(8)), tuple(range(4)))), Waiting):
    time.sleep(0.01)
print(json.dumps(answer.cpus), flush=True)
sys.stdin.read()
queue.leave(ticket.path)
"""


class Holder:
    """A real process with a place in the machine's queue."""

    def __init__(self, home: Path, name: str, **wanted: object) -> None:
        argv = [sys.executable, "-c", HOLDER, str(home / "queue"), name, json.dumps({"cpus": 1, "gpus": 0, **wanted})]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self._out = self.process.stdout
        assert self._out.readline() == "waits\n"

    def granted(self) -> list[int]:
        answer: list[int] = json.loads(self._out.readline())
        return answer

    def end(self) -> None:
        self.process.communicate()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def states(cluster: Cluster) -> dict[str, tuple[str, str | None]]:
    state = LocalScheduler().cluster_state(cluster)
    assert state.target == len(state.nodes)
    return {node.name: (node.state.value, node.run_id) for node in state.nodes}


def test_a_killed_holder_gives_its_nodes_back(home: Path) -> None:
    cluster = define(max_nodes=2, idle_seconds=30.0)
    dying = Holder(home, "dying", pool="one", nodes=2, cpus=4, gpus=2)
    assert dying.granted() == [0, 1, 2, 3]
    assert states(cluster) == {"one-0": ("running", "dying"), "one-1": ("running", "dying")}
    (first, second) = LocalScheduler().cluster_state(cluster).nodes
    assert (first.cpus, first.gpus, second.cpus, second.gpus) == ((0, 1), (0,), (2, 3), (1,))
    following = Holder(home, "next", pool="one")
    dying.kill()
    assert following.granted() == [0]
    assert states(cluster) == {"one-0": ("running", "next"), "one-1": ("idle", None)}
    following.end()
    assert states(cluster) == {"one-0": ("idle", None), "one-1": ("idle", None)}


def test_a_holder_killed_while_it_waits_leaves_no_node(home: Path) -> None:
    cluster = define(max_nodes=1, idle_seconds=30.0)
    running, dying = Holder(home, "running", pool="one"), Holder(home, "dying", pool="one")
    assert running.granted() == [0]
    dying.kill()
    assert states(cluster) == {"one-0": ("running", "running")}
    last = Holder(home, "last", pool="one")
    running.end()
    assert last.granted() == [0]
    last.end()


def test_two_clusters_side_by_side(home: Path) -> None:
    one, two = define("one", max_nodes=1), define("two", max_nodes=2)
    holders = [Holder(home, name, pool=name[:3]) for name in ("one-a", "one-b", "two-a", "two-b", "two-c")]
    assert [holders[index].granted() for index in (0, 2, 3)] == [[0], [1], [2]]
    assert states(one) == {"one-0": ("running", "one-a")}
    assert {run for _, run in states(two).values()} == {"two-a", "two-b"}
    clusters.change("two", max_nodes=3)
    assert holders[4].granted() == [3]
    holders[0].end()
    assert holders[1].granted() == [0]
    for holder in holders[1:]:
        holder.end()


def test_the_journal_says_what_a_job_waits_for(home: Path, line: Line) -> None:
    define(max_nodes=1)
    line.enter("a", "one")
    line.enter("b", "one")
    assert line.runs("a")
    directory, lock = jobdir.JobDir.stage()
    queue = Queue(home / "queue", lambda name: _after(0.5, directory, clusters.find(name)))
    assert wait_for_turn(directory, queue, line.tickets["b"].path, MACHINE) is None
    assert [event.message for event in directory.events()] == ["waiting for a node of one (1 of 1 in use)"]
    lock.close()


def _after(seconds: float, directory: jobdir.JobDir, cluster: Cluster | None) -> Cluster | None:
    if directory.events() and time.time() - directory.events()[0].time > seconds:
        directory.request_cancel()
    return cluster


# Which nodes are up

CLUSTER = Cluster("c", min_nodes=0, max_nodes=4, idle_seconds=100.0, created=0.0)


@pytest.mark.parametrize(
    ("settings", "taken", "released", "expected"),
    [
        ({}, (), {}, ()),
        ({}, (), {0: 950.0, 1: 899.0}, (0,)),
        ({}, (0,), {0: 950.0, 2: 999.0}, (2,)),
        ({"idle_seconds": 0.0}, (), {0: 1000.0, 1: 999.9}, ()),
        ({"min_nodes": 2}, (), {}, (0, 1)),
        ({"min_nodes": 2}, (3,), {}, (0,)),
        ({"min_nodes": 2}, (0, 1), {}, ()),
        ({"min_nodes": 2}, (), {3: 990.0}, (0, 3)),
        ({"min_nodes": 4, "idle_seconds": 0.0}, (), {}, (0, 1, 2, 3)),
        ({"max_nodes": 2}, (0,), {1: 990.0, 2: 990.0, 3: 990.0}, (1,)),
        ({"max_nodes": 1}, (0, 1), {2: 990.0}, ()),
        ({"created": 960.0}, (), {0: 950.0, 1: 970.0}, (1,)),
    ],
)
def test_nodes_stay_for_the_idle_time_and_the_least_always(
    settings: dict[str, float], taken: tuple[int, ...], released: dict[int, float], expected: tuple[int, ...]
) -> None:
    assert pool.idle(replace(CLUSTER, **settings), taken, released, 1000.0) == expected  # type: ignore[arg-type]  # mixed


def test_nodes_that_are_up_are_used_first() -> None:
    assert pool.pick(1, {0}, (3,)) == (3,)
    assert pool.pick(3, {0}, (3,)) == (1, 2, 3)
    assert pool.pick(2, set(), ()) == (0, 1)
    assert pool.pick(0, set(), (1,)) == ()


def test_power_up_counts_those_that_run(home: Path, line: Line) -> None:
    cluster = define(max_nodes=4, idle_seconds=0.0)
    line.enter("a", "one")
    assert line.runs("a")
    LocalScheduler().power_up(cluster, 3)
    assert states(cluster) == {"one-0": ("running", "a"), "one-1": ("idle", None), "one-2": ("idle", None)}
    LocalScheduler().power_up(cluster, 2)
    assert len(states(cluster)) == 3


@given(
    nodes=st.integers(1, 6),
    per_node=st.integers(0, 10),
    have=st.integers(1, 12),
)
def test_nodes_share_out_the_machine_evenly(nodes: int, per_node: int, have: int) -> None:
    together = pool.total(per_node, nodes, have)
    shares = pool.share_out(range(together), nodes)
    assert len(shares) == nodes
    assert len({len(share) for share in shares}) == 1
    if per_node == 0:
        assert together == 0
    elif nodes == 1:
        assert together == per_node
    else:
        assert len(shares[0]) == max(1, min(per_node, have // nodes))
        assert together <= have
        assert {item for share in shares for item in share} == set(range(together))


def test_a_node_of_counts_has_the_cores_that_go_with_its_gpus() -> None:
    assert pool.node_shape(Cluster("c", gpus_per_node=1), MACHINE) == (2, 1, None)
    assert pool.node_shape(Cluster("c", cpus_per_node=3), MACHINE) == (3, 0, None)
    assert pool.node_shape(Cluster("c", cpus_per_node=30, memory_gb_per_node=99.0), MACHINE) == (8, 0, 64.0)


def test_the_states_have_the_originals_names() -> None:
    assert {state.value for state in NodeState} == {
        *("idle", "leaving", "preempted", "preparing", "running", "unusable")
    }
    job = Occupant("r", (1,), (4, 5), ())
    assert [node.name for node in pool.nodes(CLUSTER, [job], {}, 1.0)] == ["c-1"]
