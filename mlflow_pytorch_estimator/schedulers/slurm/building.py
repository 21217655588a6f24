"""Preparing a job on a node, by a small job of its own, for sites whose submit hosts may not build."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping

from mlflow_pytorch_estimator import failure
from mlflow_pytorch_estimator.environments import BuildCancelled
from mlflow_pytorch_estimator.errors import EnvironmentBuildError, SchedulerError
from mlflow_pytorch_estimator.files import read_json
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.slurm import builder, client, options, queries, script
from mlflow_pytorch_estimator.schedulers.slurm.queries import Said
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase

_OF_THE_JOB = frozenset({"begin", "contiguous", "deadline", "dependency", "hold", "kill-on-invalid-dep", "switches"})
"""The user's options that say when and where the job itself runs."""
_LOOK_SECONDS = 0.2
_SHORTEST_SECONDS, _LONGEST_SECONDS, _GROWTH = 1.0, 15.0, 1.5
_SETTLE_SECONDS = 5.0  # for the last word to cross a network file system


def prepare(
    job: JobSpec,
    directory: JobDir,
    environ: Mapping[str, str],
    say: Callable[[str], None],
    canceled: Callable[[], bool],
) -> None:
    """Submit the small job and wait for it; see ``Scheduler.prepare``."""
    job_id = _submit(job, directory, environ)
    try:
        _follow(job_id, directory, say, canceled)
    except BaseException:
        number, where = queries.address(job_id)
        client.run("scancel", *where, number, patient=True)  # does nothing to one that has ended
        raise


def batch_script(job: JobSpec, directory: JobDir) -> str:
    """The script of the small job: one node, with the cores and the memory that the job wants of one, and no GPU."""
    lines = {**script.basics(job, directory.path, script.literal(directory.agent_log), "-prepare"), "no-requeue": True}
    cpus, memory = job.resources.cpus_per_node, job.resources.memory_gb_per_node
    if cpus is not None:
        lines["cpus-per-task"] = cpus
    if memory is not None:
        lines["mem"] = script.memory(memory)
    chosen = {key: value for key, value in job.scheduler_options.items() if options.long_name(key) not in _OF_THE_JOB}
    return script.agent_script(lines, chosen, builder.__name__, shlex.quote(str(directory.path)))


def _submit(job: JobSpec, directory: JobDir, environ: Mapping[str, str]) -> str:
    argv = ("sbatch", "--parsable", "--export=ALL", *options.users_defaults(job.scheduler_options))
    answer = client.run(*argv, environ=environ, patient=True, text=batch_script(job, directory))
    job_id = answer.output.rstrip().rpartition("\n")[2].strip()  # some sites greet before it
    if answer.code != 0 or not queries.address(job_id)[0].isdigit():
        raise SchedulerError(f"Slurm has not taken the job that prepares this one: {answer.reason}")
    return job_id


def _follow(job_id: str, directory: JobDir, say: Callable[[str], None], canceled: Callable[[], bool]) -> None:
    """Until there is an answer, or there will be none."""
    told, interval, ask_at, over_since = "", _SHORTEST_SECONDS, 0.0, None
    while (answer := read_json(directory.prepared)) is None:
        if canceled():
            raise BuildCancelled("canceled by request")
        now = time.monotonic()
        if now >= ask_at:
            said = _ask(job_id)
            message = _message(said)
            interval = _SHORTEST_SECONDS if message != told else min(_LONGEST_SECONDS, interval * _GROWTH)
            ask_at = now + interval
            if message and message != told:
                say(message)
            told = message
            over_since = (over_since or now) if said is None or _is_over(said) else None
            if over_since is not None and now > over_since + _SETTLE_SECONDS:
                raise SchedulerError(_without_a_word(job_id, directory, said))
        time.sleep(_LOOK_SECONDS)
    reason = answer[builder.REASON]
    if reason:
        raise BuildCancelled(reason) if canceled() else EnvironmentBuildError(reason)


def _ask(job_id: str) -> Said | None:
    """What Slurm says; as if it still waited while nobody can be asked."""
    try:
        said = queries.active([job_id]).get(job_id)
        return said if said is not None and not _is_over(said) else queries.ended(job_id) or said
    except SchedulerError:
        return Said("PENDING", "None")


def _is_over(said: Said) -> bool:
    return said.meaning is not None and said.meaning.over


def _message(said: Said | None) -> str:
    meaning = said.meaning if said is not None else None
    if said is None or meaning is None:
        return ""
    if meaning.phase is Phase.QUEUED and said.reason not in {"", "None"}:
        return f"waits for a node to build on ({said.reason})"
    if meaning.phase is Phase.SCALING:
        return f"Slurm starts {said.nodes or 'a node'} to build on"
    return f"on {said.nodes}" if meaning.phase is Phase.RUNNING and said.nodes else ""


def _without_a_word(job_id: str, directory: JobDir, said: Said | None) -> str:
    words = said.meaning.words if said is not None and said.meaning is not None else ""
    last = failure.tail(directory.agent_log).strip().rpartition("\n")[2][:500]
    how = f" ({words})" if words else ""
    return f"the job {job_id} that prepared this one ended without a word{how}" + (f": {last}" if last else "")
