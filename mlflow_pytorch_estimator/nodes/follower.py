"""The agent of every node but the first: starts what the leading agent says, tells it what happens.

    python -m mlflow_pytorch_estimator.nodes.follower JOBDIR ADDRESS

It lives as long as its connection: when the leading agent has gone, nothing of the job stays on this node.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from mlflow_pytorch_estimator import keeper
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.jobenv import rank_environment
from mlflow_pytorch_estimator.launchers.base import RankCommand, outside_of_ranks
from mlflow_pytorch_estimator.nodes import wire
from mlflow_pytorch_estimator.nodes.here import HereNode, Scene
from mlflow_pytorch_estimator.nodes.sampling import Sampler
from mlflow_pytorch_estimator.relay import door
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.schedulers.base import ALLOCATION_VARIABLE, Allocation

_POLL_SECONDS = 0.05
_JOIN_SECONDS = 60.0
_LOOK_SECONDS = 2.0


class Follower:
    """This node's part of a job."""

    def __init__(self, directory: JobDir, place: Allocation, channel: wire.Channel) -> None:
        self._directory = directory
        self._place = place
        self._channel = channel
        self._node: HereNode | None = None
        self._sampler = Sampler(place)
        self._records = Path()
        self._over_told, self._order = True, 0
        self._state: dict[str, Any] = {}
        self._look_at = 0.0
        self._terminated = False
        keeper.become_subreaper()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def run(self) -> int:
        """Obey until the leading agent says that it is over, or has gone."""
        while not self._channel.closed:
            for order in self._channel.receive(_POLL_SECONDS):
                if order["do"] == "leave":
                    return 0
                self._obey(order)
            if self._terminated:
                break
            self._report()
        keeper.kill_descendants()
        return 1

    def _obey(self, order: dict[str, Any]) -> None:
        if order["do"] == "start":
            self._start([RankCommand(**{**raw, "argv": tuple(raw["argv"])}) for raw in order["commands"]], order)
        elif order["do"] == "end" and self._node:
            self._node.end(order["grace_seconds"], order["key"])
        elif order["do"] == "signal" and self._node:
            self._node.signal(order["number"])

    def _start(self, commands: list[RankCommand], order: dict[str, Any]) -> None:
        environ = {**os.environ, ALLOCATION_VARIABLE: self._place.to_json(), **order["environ"]}
        environ.pop(wire.SECRET_VARIABLE, None)
        records = Path(order["records"])
        if self._node is None or self._records != records:  # another try of the job
            self._records = records
            records.mkdir(parents=True, exist_ok=True)
            self._node = HereNode(Scene(self._place.node, self._directory.logs, records, self._directory.workdir))
        self._over_told, self._order = False, order["number"]
        self._node.start(commands, rank_environment(outside_of_ranks(environ), self._directory.job, self._directory))

    def _report(self) -> None:
        if self._node is None or self._over_told:
            return
        for event in self._node.poll():
            self._channel.send({"say": "ended", "event": event.to_message()})
        if self._node.over:
            self._over_told = True
            self._node.tidy()
            keeper.kill_descendants()
            self._channel.send({"say": "over", "number": self._order})
            return
        values = self._sampler.sample()
        if values:
            self._channel.send({"say": "sample", "time": time.time(), "values": values})
        if time.monotonic() > self._look_at:
            self._look_at = time.monotonic() + _LOOK_SECONDS
            state = {"stopped": self._node.stopped, "arrived": sorted(self._node.look_for_arrivals())}
            if state != self._state:
                self._state = state
                self._channel.send({"say": "state", **state})

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._terminated = True


def main(argv: list[str]) -> int:
    """Join the job and follow."""
    directory = JobDir(Path(argv[0]))
    place = load_scheduler(directory.job.scheduler).allocation(os.environ)
    if place.cpus:
        os.sched_setaffinity(0, place.cpus)
    door.serve(place.node)
    channel, _ = wire.join(argv[1], {"place": asdict(place)}, _JOIN_SECONDS)
    return Follower(directory, place, channel).run()


if __name__ == "__main__":
    exit_status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(exit_status)
