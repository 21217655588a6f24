"""The ranks of this node: started, watched and ended. Nothing here blocks, so that one loop can look after all."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlflow_pytorch_estimator import failure, keeper, ranks
from mlflow_pytorch_estimator.launchers import blame
from mlflow_pytorch_estimator.launchers.base import RankCommand
from mlflow_pytorch_estimator.nodes import arrival, oom, records
from mlflow_pytorch_estimator.nodes.events import Ended

_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
_DEAF_SECONDS = 1.0  # for a keeper to obey; it may be stopped


@dataclass(frozen=True)
class Scene:
    """Where the ranks of a node run."""

    node: str
    logs: Path
    records: Path
    """Folder for what keepers below a launcher note; of this attempt, of this node."""
    workdir: Path
    inherited: Sequence[int] = ()
    """Lock descriptors for the keepers."""
    runtime: str | None = None
    """What runs the ranks in containers."""


class HereNode:
    """The processes of this node in one attempt of the job."""

    def __init__(self, scene: Scene) -> None:
        self.name = scene.node
        self._scene = scene
        self._processes: list[Process] = []
        self._told: set[str] = set()
        self._arrived: set[int] = set()
        self._killed_for_memory = oom.kills()

    def start(self, commands: Sequence[RankCommand], environ: Mapping[str, str]) -> None:
        """Start these processes."""
        for command in commands:
            log = self._scene.logs / log_name(command.rank, command.launcher, self.name)
            begin = log.stat().st_size if log.exists() else 0
            started = ranks.start(command, log, self._scene.workdir, environ, self._scene.inherited)
            self._processes.append(Process(command, started, begin))

    def poll(self) -> list[Ended]:
        """What has ended since the last time; ends what is overdue."""
        self._hurry()
        # Before the records: what the ranks of a launcher that has ended have noted is there then.
        codes = [process.rank.exit_code for process in self._processes]
        ended = [event for key, record in records.read(self._scene.records).items() if (event := self._of(key, record))]
        for process, code in zip(self._processes, codes, strict=True):
            if code is not None and not process.told:
                process.told = True
                life = self._life(code, process.command, process.started, time.time())
                ended.append(self._explained(life, process.begin))
        return ended

    def look_for_arrivals(self) -> set[int]:
        """The ranks below a launcher that have gone to meet the others so far."""
        lives = records.read(self._scene.records).values()
        waiting = {life.pid: life.rank for life in lives if life.exit_code is None and life.rank not in self._arrived}
        if waiting:
            self._arrived |= {waiting[pid] for pid in arrival.arrived(list(waiting))}
        return self._arrived

    @property
    def stopped(self) -> list[int]:
        """The ranks that somebody has stopped (SIGSTOP), by number."""
        lives = {life.pid: life.rank for life in records.read(self._scene.records).values() if life.exit_code is None}
        for process in self._processes:
            if not process.command.launcher and process.rank.exit_code is None:
                lives[process.rank.process.pid] = process.command.rank
        return sorted({lives[pid] for pid in keeper.stopped(list(lives))})

    def signal(self, number: int) -> None:
        """Send SIGUSR1 or SIGUSR2 to the ranks that handle it."""
        for process in self._processes:
            process.send(number)

    def end(self, grace_seconds: float, key: str | None = None) -> None:
        """Ask all to end, or one; ``poll`` ends by force what is left after so long. A second call changes nothing."""
        for process in self._processes:
            if key is None or process.command.key == key:
                process.end(grace_seconds)

    @property
    def over(self) -> bool:
        """Whether none of the processes is left, and ``poll`` has told how each has ended."""
        return all(process.told for process in self._processes)

    def tidy(self) -> None:
        """Remove what keepers that were killed could not."""
        for process in self._processes:
            process.tidy()

    def _hurry(self) -> None:
        for process in self._processes:
            process.hurry()

    def _of(self, key: str, record: records.Record) -> Ended | None:
        if key in self._told or (record.exit_code is None and _is_alive(record.pid)):
            return None
        if record.exit_code is None:
            record = records.read(self._scene.records)[key]  # it may have come since the last look
        code = (
            -signal.SIGKILL if record.exit_code is None else record.exit_code
        )  # nothing else ends a keeper so silently
        self._told.add(key)
        life = self._life(code, RankCommand(record.rank, 0, ()), record.started, record.time)
        return self._explained(replace(life, restart=record.restart), record.begin)

    def _life(self, code: int, command: RankCommand, started: float, when: float) -> Ended:
        return Ended(self.name, code, when, command.rank, command.launcher, command.key, started)

    def _explained(self, life: Ended, begin: int) -> Ended:
        """The same with what its log says, from ``begin`` on, of why it failed."""
        code, launcher = life.exit_code, life.launcher
        if code == 0:
            return life
        text = failure.tail(self._scene.logs / log_name(life.rank or 0, launcher, self.name), since=begin)
        report = failure.report(
            None if launcher else life.rank,
            self.name,
            code,
            text,
            who=f"{launcher} on {self.name}" if launcher else "",
            runtime=self._scene.runtime,
            out_of_memory=code in _KILLED and oom.kills() > self._killed_for_memory,
        )
        return replace(life, consequence=blame.is_consequence(text), report=report)


@dataclass
class Process:
    """One process of a node, on its way to the end."""

    command: RankCommand
    rank: ranks.Rank
    begin: int
    """Where its log begins."""
    started: float = field(default_factory=time.time)
    told: bool = False
    _kill_at: float = float("inf")
    _deaf_at: float = float("inf")

    def send(self, number: int) -> None:
        """Send its keeper a signal, if that still runs."""
        if self.rank.exit_code is None:
            self.rank.process.send_signal(number)

    def end(self, grace_seconds: float) -> None:
        """Ask it to end; a second call changes nothing."""
        if self._kill_at == float("inf"):
            self._kill_at = time.monotonic() + grace_seconds
            self.send(signal.SIGTERM)

    def tidy(self) -> None:
        """Remove what its keeper could not, if that was killed."""
        if self.rank.exit_code == -signal.SIGKILL:  # it may have been the keeper that was killed
            keeper.tidy_up(list(self.rank.afterwards))

    def hurry(self) -> None:
        """End it by force if its time is over."""
        now = time.monotonic()
        if now > self._kill_at and self._deaf_at == float("inf"):
            self._deaf_at = now + _DEAF_SECONDS
            self.send(signal.SIGHUP)
        elif now > self._deaf_at:
            self.send(signal.SIGKILL)  # its rank dies with it, and what that leaves is adopted by this process


def log_name(rank: int, launcher: str, node: str) -> str:
    """What the log of a process is called."""
    return f"{launcher}_{node}.log" if launcher else f"rank_{rank}.log"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
