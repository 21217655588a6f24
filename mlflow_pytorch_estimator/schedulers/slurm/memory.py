"""Whether Slurm has killed an agent, with all that it had started, for the memory of its node.

The kernel kills one process, which the node's agent sees (``nodes.oom``). A site that counts memory itself
(``OverMemoryKill``), and a kernel that picks the agent, leave nobody to say it: then what slurmstepd has written does.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from mlflow_pytorch_estimator import failure
from mlflow_pytorch_estimator.attempt import Verdict

_LAST_BYTES = 4096
_SAID = re.compile(r"^slurmstepd\S*: error: .*(exceeded (job |step )?memory limit|oom[-_]kill)", re.I | re.M)
_WORDS = "out of memory: Slurm ended it"


def exceeded(log: Path) -> bool:
    """Whether the end of an agent's log says so."""
    return bool(_SAID.search(failure.tail(log, _LAST_BYTES)))


def explained(verdict: Verdict, logs: Path) -> Verdict:
    """A verdict that says so of a node that was lost by it."""
    found = verdict.failure
    lost = found is not None and found["rank"] is None and "node" in found
    if found is None or not lost or not any(map(exceeded, logs.glob("agent_*.log"))):
        return verdict
    said = {**found, "reason": f"{found['reason']} ({_WORDS})", "out_of_memory": True}
    return replace(verdict, failure=said)
