"""The last word on a job of Slurm whose agent has none: it was killed, or never began."""

from __future__ import annotations

from mlflow_pytorch_estimator import failure
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.slurm import far, memory, states
from mlflow_pytorch_estimator.schedulers.slurm.queries import Said
from mlflow_pytorch_estimator.status import Phase


def conclude(directory: JobDir, job_id: str, said: Said | None) -> None:
    """Write the outcome from the state of the job in Slurm; None when Slurm has forgotten it."""
    if directory.cancel_requested:
        directory.conclude(Phase.CANCELED, "canceled by request")
    elif said is None or said.meaning is None:
        directory.conclude(Phase.FAILED, f"Slurm knows job {job_id} no more, and its agent has not said how it ended")
    else:
        meaning = said.meaning
        where = f" ({said.nodes})" if said.nodes and not said.nodes.startswith("(") else ""
        if meaning.phase is Phase.CANCELED:
            directory.conclude(Phase.CANCELED, meaning.words)
        elif said.state.startswith(("FAILED", "COMPLETED")):
            reason = f"{_never_began(directory, said)}{where}"
            reason = far.last_word(directory, said.exit_code, said.nodes, reason)
            directory.conclude(Phase.FAILED, reason, said.exit_code)
        else:
            directory.conclude(Phase.FAILED, f"{meaning.words}{where}")


def _never_began(directory: JobDir, said: Said) -> str:
    if memory.exceeded(directory.agent_log):  # of all states it may have then
        return states.STATES["OUT_OF_MEMORY"].words
    ended = failure.describe_exit(said.exit_code or 0)
    last = failure.tail(directory.agent_log).strip().rpartition("\n")[2][:500]
    return f"the agent {ended} without a word about the ranks" + (f": {last}" if last else "")
