"""All nodes of a job as the agent of the first one sees them: it starts the others' agents and leads them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mlflow_pytorch_estimator import failure, ranks
from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.launchers.base import RankCommand
from mlflow_pytorch_estimator.nodes import wire
from mlflow_pytorch_estimator.nodes.events import Ended
from mlflow_pytorch_estimator.nodes.samples import MetricsFile
from mlflow_pytorch_estimator.schedulers.base import Allocation, Others

_FOLLOWER = "mlflow_pytorch_estimator.nodes.follower"
_PATIENCE_SECONDS = 2.0  # beyond the grace period, for a node to say that nothing is left there
_LEAVE_SECONDS = 1.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0
_POLL_SECONDS = 0.05

Record = Callable[[str, float, Mapping[str, float]], None]
"""Takes the system metrics of a node: its name, when, and the values."""


@dataclass
class ThereNode:
    """Another node, through the connection to its agent."""

    place: Allocation
    channel: wire.Channel
    record: Record
    over: bool = True
    stopped: list[int] = field(default_factory=list)
    arrived: set[int] = field(default_factory=set)
    lost: bool = False
    _orders: int = 0
    _overdue: float = float("inf")

    @property
    def name(self) -> str:
        """The node's name."""
        return self.place.node

    def start(self, commands: Sequence[RankCommand], environ: Mapping[str, str], records: Path) -> None:
        """Start these processes there; ``environ`` is added to the environment of the node's agent."""
        self.over, self.stopped, self.arrived = False, [], set()
        self._orders += 1
        processes = [asdict(command) for command in commands]
        where = {"environ": dict(environ), "records": str(records)}
        self.channel.send({"do": "start", "number": self._orders, "commands": processes, **where})

    def poll(self) -> list[Ended]:
        """What has ended there since the last time; the loss of the node is its agent's end."""
        ended = []
        for message in self.channel.receive():
            if message["say"] == "ended":
                ended.append(Ended.from_message(message["event"]))
            elif message["say"] == "over":
                self.over = message["number"] == self._orders  # it may have crossed a new order on its way
            elif message["say"] == "state":
                self.stopped, self.arrived = message["stopped"], set(message["arrived"])
            elif message["say"] == "sample":
                self.record(self.name, message["time"], message["values"])
        if time.monotonic() > self._overdue:
            self.channel.close()  # its agent ends everything then, or whoever started the agent does
        if self.over:
            self._overdue = float("inf")
        if self.channel.closed and not self.lost:
            self.lost = self.over = True
            ended.append(_loss(self.name))
        return ended

    def signal(self, number: int) -> None:
        """Send SIGUSR1 or SIGUSR2 to the ranks there that handle it."""
        self.channel.send({"do": "signal", "number": number})

    def look_for_arrivals(self) -> set[int]:
        """The ranks there that have gone to meet the others so far."""
        return self.arrived

    def end(self, grace_seconds: float, key: str | None = None) -> None:
        """Ask all there to end, or one; by force after so long. A second call changes nothing."""
        if key is not None:
            self.channel.send({"do": "end", "grace_seconds": grace_seconds, "key": key})
        elif not self.over and self._overdue == float("inf"):
            self._overdue = time.monotonic() + grace_seconds + _PATIENCE_SECONDS
            self.channel.send({"do": "end", "grace_seconds": grace_seconds, "key": None})

    def come_back(self, channel: wire.Channel) -> None:
        """The node has an agent again; nothing runs there yet."""
        self.channel, self.lost, self.over = channel, False, True

    def leave(self) -> None:
        """Nothing more is to be done there."""
        self.channel.send({"do": "leave"})
        self.channel.close()


def _loss(node: str) -> Ended:
    reason = f"node {node} was lost: its agent has gone"
    report = {"rank": None, "node": node, "exit_code": None, "signal": None, "reason": reason, "traceback": ""}
    return Ended(node, -signal.SIGKILL, time.time(), report={**report, "out_of_memory": False, "last_lines": []})


class Followers:
    """The agents of the other nodes: started together, admitted one by one, started again when one is lost."""

    def __init__(self, directory: JobDir, here: Allocation, others: Others, inherited: Sequence[int]) -> None:
        self._directory = directory
        self._others = others
        self._inherited = inherited
        self._door = wire.Door(here.address)
        self._record = MetricsFile(directory.system_metrics).append
        self._started = [self._spawn(number) for number in range(len(others.prefixes))]
        self._again: dict[int, float] = {}
        self._pause = _FIRST_PAUSE_SECONDS
        self.nodes: list[ThereNode] = []

    def _spawn(self, number: int) -> subprocess.Popen[bytes]:
        environ = {**os.environ, wire.SECRET_VARIABLE: self._door.secret}
        command = [sys.executable, "-m", _FOLLOWER, str(self._directory.path), self._door.address]
        prefix = self._others.prefixes[number]
        return ranks.spawn([*prefix, *command], self._log(number), self._directory.path, environ, self._inherited)

    def _log(self, number: int) -> Path:
        return self._directory.logs / f"agent_{number + 1}.log"

    def gather(self, seconds: float, canceled: Callable[[], bool]) -> bool:
        """Wait until all are there; False when the job was canceled meanwhile. ProjectError names what is missing."""
        deadline = time.monotonic() + seconds
        wanted = len(self._others.names)
        while len(self.nodes) < wanted:
            if canceled():
                return False
            self._admit(_POLL_SECONDS)
            self._refuse_the_dead()
            if time.monotonic() > deadline:
                there = ", ".join(node.name for node in self.nodes) or "none"
                raise ProjectError(
                    f"{len(self.nodes)} of {wanted} other nodes have joined within {seconds:g} s ({there}); "
                    "logs/agent_*.log in the job directory say more, start_timeout_seconds makes it wait longer"
                )
        order = {name: index for index, name in enumerate(self._others.names)}
        self.nodes.sort(key=lambda node: order.get(node.name, len(order)))
        return True

    def _admit(self, seconds: float) -> None:
        admitted = self._door.admit(seconds)
        if admitted is None:
            return
        channel, greeting = admitted
        place = Allocation.from_dict(greeting["place"])
        known = next((node for node in self.nodes if node.name == place.node), None)
        if known is None:
            self.nodes.append(ThereNode(place, channel, self._record))
        elif known.lost:
            known.come_back(channel)
        else:
            channel.close()

    def wait_for_lost(self, seconds: float, canceled: Callable[[], bool]) -> None:
        """Wait until no node is lost any more; ProjectError when that takes too long."""
        deadline = time.monotonic() + seconds
        while lost := [node.name for node in self.nodes if node.lost]:
            if canceled():
                return
            if time.monotonic() > deadline or len(self._others.prefixes) != len(self.nodes):
                raise ProjectError(f"node {lost[0]} was lost and did not come back within {seconds:g} s")
            self.regain(now=True)
            time.sleep(_POLL_SECONDS)

    def regain(self, *, now: bool = False) -> None:
        """Start the agents of lost nodes again, after a pause that grows; needs a way to start each by itself."""
        if len(self._others.prefixes) != len(self.nodes) or not any(node.lost for node in self.nodes):
            return
        for number, node in enumerate(self.nodes):
            if not node.lost:
                continue
            if number not in self._again:
                self._again[number] = time.monotonic() + self._pause
                self._pause = min(_LONGEST_PAUSE_SECONDS, 2 * self._pause)
            elif self._started[number].poll() is not None and (now or time.monotonic() > self._again[number]):
                del self._again[number]
                self._started[number] = self._spawn(number)
        self._admit(0.0)

    def _refuse_the_dead(self) -> None:
        for number, process in enumerate(self._started):
            code = process.poll()
            if code is not None:
                last = failure.tail(self._log(number)).strip().rpartition("\n")[2]
                raise ProjectError(f"the agent of another node {failure.describe_exit(code)}: {last[:500]}")

    def dismiss(self) -> None:
        """Let all go; an agent that does not (it may be stopped) is ended with all that it started."""
        for node in self.nodes:
            node.leave()
        self._door.close()
        deadline = time.monotonic() + _LEAVE_SECONDS
        for process in self._started:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGHUP)
