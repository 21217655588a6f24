"""Elastic Horovod: its own driver decides which ranks there are, and asks for them one by one."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator import failure, ranks
from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.files import write_atomic
from mlflow_pytorch_estimator.launchers import horovod
from mlflow_pytorch_estimator.launchers.base import Address, RankCommand, entry_point, threads, visible_gpus
from mlflow_pytorch_estimator.launchers.launch import Commands, Ground, Launch
from mlflow_pytorch_estimator.nodes.events import Ended


class ElasticHorovod(Launch):
    """Horovod's elastic driver decides which ranks there are; it asks for them one by one."""

    _PROGRAM = str(Path(__file__).resolve().with_name("elastic_driver.py"))

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._folder = ground.directory.rank_records(ground.attempt, "elastic")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._numbers = {node.node: number for number, node in enumerate(ground.layout.nodes)}
        self._workers: dict[str, str] = {}
        """Key of each worker that has not ended -> its node."""
        self._unwanted: list[str] = []
        self._partial = b""
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._report = -1
        self._present: list[str] = []

    def begin(self) -> Commands | None:
        """Nothing yet: the driver asks for all."""
        ground, layout = self.ground, self.ground.layout
        self._tell_hosts([node.node for node in layout.nodes])
        least = (ground.job.distribution.min_nodes or 1) * layout.ranks_per_node
        log = ground.directory.logs / "rendezvous.log"
        argv = [ground.job.interpreter.python or "python", self._PROGRAM, layout.nodes[0].address, str(self._folder)]
        argv += [str(least), str(layout.world_size), str(ground.job.start_seconds)]
        self._report, writing = os.pipe()
        try:
            self._process = ranks.spawn(argv, log, log.parent, ground.environ, ground.inherited, stdout=writing)
        finally:
            os.close(writing)
        return ()

    def more(self, fresh: Sequence[Ended], present: Sequence[str]) -> Commands:
        """The workers that the driver wants."""
        self._tell_ends(fresh)
        if list(present) != self._present:
            self._tell_hosts(present)
        wanted = []
        for message in self._listen():
            if "port" in message:
                self._port = message["port"]
            elif "start" in message:
                wanted.append(self._worker(message))
            else:
                self._unwanted.append(message["stop"])
        return wanted

    def unwanted(self) -> Sequence[str]:
        """The workers that the driver wants to end."""
        found, self._unwanted = self._unwanted, []
        return found

    def failed(self, ended: Sequence[Ended]) -> bool:
        """The driver says it."""
        code = self._process.poll() if self._process else None
        if code and self._port is None:
            reason = (failure.last_traceback(failure.tail(self._log)) or "no reason").rpartition("\n")[2]
            raise ProjectError(f"Horovod's elastic driver {failure.describe_exit(code)} ({reason})")
        return bool(code)

    def succeeded(self, ended: Sequence[Ended], over: bool) -> bool:
        """The driver says it."""
        return over and self._process is not None and self._process.poll() == 0

    def reason(self) -> dict[str, Any]:
        """The driver's last words."""
        text = failure.tail(self._log)
        last = text.strip().rpartition("\n")[2]
        return {"reason": f"Horovod's elastic driver gave up ({last[:500]})", "rank": None, "traceback": ""}

    def close(self) -> None:
        """End the driver."""
        if self._process is not None:
            os.close(self._report)
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGHUP)

    @property
    def _log(self) -> Path:
        return self.ground.directory.logs / "rendezvous.log"

    def _tell_hosts(self, present: Sequence[str]) -> None:
        self._present = list(present)
        slots = dict.fromkeys(present, self.ground.layout.ranks_per_node)
        write_atomic(self._folder / "hosts.json", json.dumps(slots))

    def _tell_ends(self, fresh: Sequence[Ended]) -> None:
        """A lost node takes all its workers with it."""
        for event in fresh:
            lost = [key for key, node in self._workers.items() if event.rank is None and node == event.node]
            for key in lost or [event.key]:
                if self._workers.pop(key, None) is not None:
                    write_atomic(self._folder / f"{key}.ended", f"{event.exit_code} {event.time:.3f}")

    def _worker(self, message: Mapping[str, Any]) -> tuple[int, Sequence[RankCommand]]:
        layout, number = self.ground.layout, self._numbers[message["node"]]
        node, variables = layout.nodes[number], message["variables"]
        self._workers[message["start"]] = message["node"]
        address = Address(layout.nodes[0].address, self._port or 0)
        environ = {
            **visible_gpus(node),
            **variables,
            **horovod.meeting(node.interface, address),
            "HOROVOD_ELASTIC": "1",
        }
        defaults = {**threads(node, layout.ranks_per_node), "NCCL_SOCKET_IFNAME": node.interface}
        rank, local_rank = int(variables["HOROVOD_RANK"]), int(variables["HOROVOD_LOCAL_RANK"])
        argv = entry_point(self.ground.job)
        return number, [RankCommand(rank, local_rank, argv, environ, defaults, key=message["start"])]

    def _listen(self) -> list[dict[str, Any]]:
        while select.select([self._report], [], [], 0.0)[0]:
            piece = os.read(self._report, 65536)
            if not piece:
                break
            self._partial += piece
        *lines, self._partial = self._partial.split(b"\n")
        return [json.loads(line) for line in lines]
