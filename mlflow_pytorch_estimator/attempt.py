"""One try of a job: its ranks on all nodes, from their start until nothing of them is left."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlflow_pytorch_estimator import failure
from mlflow_pytorch_estimator.containers import starting
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.launchers import blame, launches
from mlflow_pytorch_estimator.launchers.base import Layout, RankCommand
from mlflow_pytorch_estimator.launchers.launch import Commands, Ground, Launch
from mlflow_pytorch_estimator.nodes.events import Ended
from mlflow_pytorch_estimator.nodes.here import HereNode, Scene
from mlflow_pytorch_estimator.nodes.samples import MetricsFile
from mlflow_pytorch_estimator.nodes.sampling import Sampler
from mlflow_pytorch_estimator.nodes.team import Followers, ThereNode
from mlflow_pytorch_estimator.schedulers.base import Allocation
from mlflow_pytorch_estimator.spec import JobSpec

_POLL_SECONDS = 0.05
_LOOK_SECONDS = 1.0
_RECENT_SECONDS = 60.0
_SETTLE_SECONDS = 5.0  # for the rank to blame to end: the interpreter's last steps take a second with torch
_LEAST_SETTLE_SECONDS = 0.2  # for the news of all nodes to arrive


@dataclass(frozen=True)
class Verdict:
    """How a try has ended: with success, or the reason why not."""

    completed: bool = False
    canceled: bool = False
    failure: dict[str, Any] | None = None
    """The content of ``failure.json``."""
    exit_code: int | None = None
    """Of the rank to blame."""
    retryable: bool = False

    def after(self, earlier: Sequence[str]) -> Verdict:
        """The verdict on the last of several tries; ``earlier`` are the reasons why the others failed."""
        if self.failure is None or not earlier:
            return self
        return replace(self, failure={**self.failure, "earlier_attempts": list(earlier)})


@dataclass(frozen=True)
class Limits:
    """When the job is over whatever its ranks do; ``time.monotonic`` seconds."""

    deadline: float = float("inf")
    checkpoint_at: float = float("inf")
    signal: int = 0

    @classmethod
    def of(cls, job: JobSpec) -> Limits:
        """The limits of a job whose first try begins now."""
        if not job.max_seconds:
            return cls()
        deadline = time.monotonic() + job.max_seconds
        if job.checkpoint_signal is None:
            return cls(deadline)
        return cls(deadline, deadline - job.checkpoint_lead_seconds, signal.Signals[f"SIG{job.checkpoint_signal}"])


@dataclass
class Attempt:
    """One try, on this node and those of the followers."""

    job: JobSpec
    directory: JobDir
    number: int
    place: Allocation
    followers: Followers | None
    inherited: Sequence[int]
    limits: Limits
    canceled: Callable[[], bool]
    on_start: Callable[[], None]
    """Called when all ranks have been started."""
    _ended: list[Ended] = field(default_factory=list)
    _begun: float = field(default_factory=time.time)
    _came: list[float] = field(default_factory=list)
    """When each of them was heard of; ``time.monotonic`` seconds."""
    _signaled: bool = False
    _environ: Mapping[str, str] = field(init=False)
    _added: Mapping[str, str] = field(init=False)
    _layout: Layout = field(init=False)
    _here: HereNode = field(init=False)
    _sampler: Sampler = field(init=False)

    def run(self, environ: Mapping[str, str], added: Mapping[str, str]) -> Verdict:
        """Start the ranks, see them end.

        ``environ`` is the environment of the ranks on this node, ``added`` what the agents of other nodes put into
        theirs.
        """
        self._environ, self._added = environ, added
        others = self.followers.nodes if self.followers else []
        per_node = self.job.distribution.processes_per_node
        self._layout = Layout((self.place, *(node.place for node in others)), per_node)
        self._here = HereNode(self._scene())
        self._sampler = Sampler(self.place)
        ground = Ground(*(self.job, self.directory, self._layout, self.number, environ, self.inherited, self.canceled))
        launch = launches.launch(ground)
        try:
            commands = launch.begin()
            if commands is None:
                return Verdict(canceled=True)
            self._start(commands)
            self.on_start()
            verdict = self._watch(launch)
            self._clear()
        finally:
            launch.close()
        self._here.tidy()
        return self._complete(verdict)

    @property
    def lives(self) -> list[dict[str, Any]]:
        """What has become of each rank, as ``Outcome.ranks`` has it."""
        return [
            {
                "rank": event.rank,
                "node": event.node,
                "attempt": self.number,
                "start": round(event.started or self._begun, 3),
                "end": round(event.time, 3),
                "exit_code": event.exit_code,
            }
            for event in self._ended
            if event.rank is not None and not event.launcher
        ]

    @property
    def _nodes(self) -> list[HereNode | ThereNode]:
        return [self._here, *(self.followers.nodes if self.followers else [])]

    def _scene(self) -> Scene:
        runtime = self.job.container.runtime if self.job.container else None
        records = self.directory.rank_records(self.number, self.place.node)
        workdir = self.directory.workdir
        return Scene(self.place.node, self.directory.logs, records, workdir, self.inherited, runtime)

    def _start(self, commands: Commands) -> None:
        for number, theirs in commands:
            node = self._nodes[number]
            if isinstance(node, HereNode):
                node.start([self._contained(command) for command in theirs], self._environ)
            else:
                node.start(theirs, self._added, self.directory.rank_records(self.number, node.name))

    def _contained(self, command: RankCommand) -> RankCommand:
        return starting.command(self.job, self.directory, command, self._environ, self.place)

    def _watch(self, launch: Launch) -> Verdict:
        begun = time.monotonic()
        arrivals = _Arrivals(self._layout.world_size, begun + self.job.start_seconds)
        for fresh in self._rounds():
            if self.canceled():
                return Verdict(canceled=True)
            if launch.failed(self._ended):
                return self._blame(launch)
            present = [node.name for node in self._nodes if isinstance(node, HereNode) or not node.lost]
            self._start(launch.more(fresh, present))
            for key in launch.unwanted():
                for node in self._nodes:
                    node.end(self.job.grace_seconds, key)
            if launch.succeeded(self._ended, all(node.over for node in self._nodes)):
                return Verdict(completed=True)
            reason = self._over_time(arrivals, launch)
            if reason is not None:
                return Verdict(failure=reason)
        raise AssertionError("rounds do not end")

    def _over_time(self, arrivals: _Arrivals, launch: Launch) -> dict[str, Any] | None:
        """Why the job ends now although no rank has failed; sends the signal that comes before that."""
        now = time.monotonic()
        if now > self.limits.checkpoint_at and not self._signaled:
            self._signaled = True
            for node in self._nodes:
                node.signal(self.limits.signal)
        if now > self.limits.deadline:
            return self._out_of_time()
        if arrivals.due and not self._ended:
            come = launch.arrived().union(*(node.look_for_arrivals() for node in self._nodes))
            late = arrivals.late(come)
            if late:
                return self._late(late)
        return None

    def _late(self, ranks: Sequence[int]) -> dict[str, Any]:
        text = failure.tail(self.directory.rank_log(ranks[0]))
        who = f"rank {ranks[0]} has" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))} have"
        reason = f"{who} not joined the others within {self.job.start_seconds:g} s (start_timeout_seconds)"
        found = {"traceback": failure.last_traceback(text), "last_lines": failure.last_lines(text)}
        return {"rank": ranks[0], "reason": reason, **found}

    def _rounds(self) -> Iterator[list[Ended]]:
        """What has ended since the last time, again and again."""
        metrics = MetricsFile(self.directory.system_metrics)
        while True:
            if self.followers and self.job.distribution.min_nodes is not None:
                self.followers.regain()
            fresh = [event for node in self._nodes for event in node.poll()]
            self._ended += fresh
            self._came += [time.monotonic()] * len(fresh)
            yield fresh
            values = self._sampler.sample()
            if values:
                metrics.append(self.place.node, time.time(), values)
            time.sleep(_POLL_SECONDS)

    def _blame(self, launch: Launch) -> Verdict:
        began = time.monotonic()
        several = self._layout.world_size > 1 or self.job.distribution.kind == "torch"
        for _ in self._rounds():
            waited = time.monotonic() - began
            guilty = blame.culprit(self._recent())
            sure = guilty is not None and not guilty.consequence and not guilty.launcher
            settled = waited > _LEAST_SETTLE_SECONDS or not several
            if (
                (sure and settled)
                or all(node.over for node in self._nodes)
                or waited > _SETTLE_SECONDS
                or self.canceled()
            ):
                break
        if self.canceled():
            return Verdict(canceled=True)
        if guilty is None or guilty.report is None:
            return Verdict(failure=launch.reason())
        stopped = [rank for node in self._nodes for rank in node.stopped]
        report = dict(guilty.report)
        if guilty.consequence and stopped:
            report |= _stopped(report, stopped[0])
        code = guilty.exit_code if guilty.rank is not None else None
        return Verdict(failure=report, exit_code=code, retryable=self._retryable(guilty.exit_code))

    def _recent(self) -> list[Ended]:
        """What an elastic job has survived is not to blame for its end."""
        if self.job.distribution.min_nodes is None:
            return self._ended
        oldest = time.monotonic() - _RECENT_SECONDS
        return [event for event, came in zip(self._ended, self._came, strict=True) if came > oldest]

    def _retryable(self, exit_code: int) -> bool:
        codes = self.job.retry_exit_codes
        return not codes or exit_code in codes

    def _out_of_time(self) -> dict[str, Any]:
        stopped = [rank for node in self._nodes for rank in node.stopped]
        reason = f"ran longer than max_run_duration_seconds ({self.job.max_seconds:g} s)"
        if stopped:
            reason += f"; rank {stopped[0]} was stopped (SIGSTOP)"
        said = failure.tail(self.directory.rank_log(stopped[0] if stopped else 0))
        return {"reason": reason, "rank": stopped[0] if stopped else None, "last_lines": failure.last_lines(said)}

    def _clear(self) -> None:
        for node in self._nodes:
            node.end(self.job.grace_seconds)
        for _ in self._rounds():
            if all(node.over for node in self._nodes):
                return

    def _complete(self, verdict: Verdict) -> Verdict:
        """The verdict with what became of the other ranks."""
        if verdict.failure is None:
            return verdict
        guilty = verdict.failure.get("rank")
        failed = {
            event.rank for event in self._ended if event.exit_code and not event.launcher and event.rank != guilty
        }
        others = sorted(rank for rank in failed if rank is not None)
        return replace(verdict, failure={**verdict.failure, "ranks_ended_by_it": others})


@dataclass
class _Arrivals:
    """Whether all ranks have gone to meet the others in time, if any does."""

    world_size: int
    deadline: float
    _look_at: float = 0.0
    _done: bool = False

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        now = time.monotonic()
        if self._done or self.world_size == 1 or now < self._look_at:
            return False
        self._look_at = now + _LOOK_SECONDS
        return True

    def late(self, come: Collection[int]) -> list[int]:
        """The ranks that should have come by now; none if none has, because such a script may not want to meet."""
        missing = [rank for rank in range(self.world_size) if rank not in come]
        over = time.monotonic() > self.deadline
        self._done = not missing or over
        return missing if come and over else []


def _stopped(report: Mapping[str, Any], rank: int) -> dict[str, Any]:
    reason = f"rank {rank} was stopped (SIGSTOP), and the others lost it: {report['reason']}"
    return {"rank": rank, "reason": reason}
