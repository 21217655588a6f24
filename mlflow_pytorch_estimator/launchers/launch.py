"""What a launch is: how the ranks of one try are started, and when they are done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.launchers.base import Layout, RankCommand
from mlflow_pytorch_estimator.nodes.events import Ended
from mlflow_pytorch_estimator.spec import JobSpec

Commands = Sequence[tuple[int, Sequence[RankCommand]]]
"""Number of a node, and what to start there."""


@dataclass(frozen=True)
class Ground:
    """What a launch stands on."""

    job: JobSpec
    directory: JobDir
    layout: Layout
    attempt: int
    environ: Mapping[str, str]
    """Of the ranks on this node."""
    inherited: Sequence[int]
    canceled: Callable[[], bool]

    def records(self, number: int) -> Path:
        """The folder for what keepers below a launcher note on a node."""
        return self.directory.rank_records(self.attempt, self.layout.nodes[number].node)


class Launch(ABC):
    """One start of a job's ranks. The default: all start at once, and one that fails fails them all."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    @abstractmethod
    def begin(self) -> Commands | None:
        """What to start first; None when the job was canceled while a server started. May raise ProjectError."""

    def more(self, fresh: Sequence[Ended], present: Sequence[str]) -> Commands:
        """What to start now that this has ended since the last time, and these nodes are there."""
        return ()

    def unwanted(self) -> Sequence[str]:
        """Keys of the processes that are to end now."""
        return ()

    def failed(self, ended: Sequence[Ended]) -> bool:
        """Whether what has ended so far means that the job has failed."""
        return any(event.exit_code for event in ended)

    def succeeded(self, ended: Sequence[Ended], over: bool) -> bool:
        """Whether the job has done its work; ``over`` when nothing of it runs on any node."""
        return over

    def arrived(self) -> set[int]:
        """Ranks that are known to have come to meet the others, besides those that the nodes see."""
        return set()

    def reason(self) -> dict[str, Any]:
        """Why it failed, when no process of the job has."""
        return {"reason": "the launcher failed", "rank": None}

    def close(self) -> None:
        """End what listened."""
        return
