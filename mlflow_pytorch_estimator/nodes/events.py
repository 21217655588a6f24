"""What a node tells the agent that leads the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Ended:
    """A process of a node has ended: a rank, the launcher of some, or the node's agent itself (``rank`` is None)."""

    node: str
    exit_code: int
    """Exit status, or the negative signal number."""
    time: float
    """Unix seconds, by the node's clock."""
    rank: int | None = None
    launcher: str = ""
    """Name of the program, if it was the launcher of some ranks."""
    key: str = ""
    """As in its ``RankCommand``."""
    started: float = 0.0
    """When it began, Unix seconds by the node's clock; 0 where nobody knows."""
    restart: int = 0
    """How often the launcher had started the ranks anew before this one began."""
    consequence: bool = False
    """Whether its last words say that another rank had gone before."""
    report: dict[str, Any] | None = None
    """What ``failure.report`` says of it."""

    def to_message(self) -> dict[str, Any]:
        """For the wire."""
        return asdict(self)

    @classmethod
    def from_message(cls, raw: Mapping[str, Any]) -> Ended:
        """From the wire; unknown keys of another version are ignored."""
        names = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in raw.items() if key in names})
