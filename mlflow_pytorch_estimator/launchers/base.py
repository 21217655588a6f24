"""What a launcher is: a pure function from a job and an allocation to the processes of one node."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RankCommand:
    """One process to start: its place, its argument list and what it needs in its environment."""

    rank: int
    local_rank: int
    argv: tuple[str, ...]
    environ: dict[str, str] = field(default_factory=dict)
