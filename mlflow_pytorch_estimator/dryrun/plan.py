"""``Plan``: a job as it would be submitted, in words that a person checks and a script can search."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow_pytorch_estimator import jobdir, page
from mlflow_pytorch_estimator.dryrun import variables
from mlflow_pytorch_estimator.environments import BUILT
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.launchers.base import Layout
from mlflow_pytorch_estimator.schedulers.base import Allocation, Outlook, Scheduler, count
from mlflow_pytorch_estimator.spec import JobSpec

RUN_ID = "RUN_ID"
"""Stands for the id of the run, which there is none of yet."""
_WIDTH = 100
_INDENT = "    "


@dataclass(frozen=True)
class Plan:
    """What would be submitted; ``print`` it. Nothing of it exists."""

    job: JobSpec
    """Its description, with ``RUN_ID`` for the id of the run."""
    scheduler: str
    """What the scheduler would get: for Slurm the command and the batch script."""
    environment_variables: dict[str, tuple[str, ...]]
    """Who sets them -> names, and patterns of those that only the node knows."""

    @property
    def ranks(self) -> tuple[tuple[int, ...], ...]:
        """The ranks of each node, in the order of the nodes; a rank's place in its node is its local rank."""
        job = self.job
        if job.distribution.kind == "single":
            return ((0,),)
        nodes = (Allocation("", (), ()),) * job.resources.node_count
        layout = Layout(nodes, job.distribution.processes_per_node)
        return tuple(tuple(place.rank for place in layout.places(number)) for number in range(len(nodes)))

    def __str__(self) -> str:
        parts = {
            "Command": page.folded(self.job.command).splitlines(),
            _heading_of_ranks(self): _rank_lines(self.ranks),
            "Environment": _environment(self.job),
            "Environment variables, names only": _variables(self.environment_variables),
            "Starts when these runs have completed": list(self.job.after),
            "Downloaded before it is queued": list(self.job.inputs.values()),
            "Notes": list(self.job.notices),
        }
        shown = [f"{title}\n{textwrap.indent(chr(10).join(lines), _INDENT)}" for title, lines in parts.items() if lines]
        # Not indented: it can be pasted into a shell, or a file.
        return "\n\n".join([*shown, f"What the scheduler {self.job.scheduler} would get\n{self.scheduler}"])


def make(job: JobSpec, scheduler: Scheduler, environ: Mapping[str, str]) -> Plan:
    """The plan of a job that has been described and checked. ``environ`` is what the submission would hand over."""
    job = replace(job, run_id=RUN_ID)
    directory = JobDir(jobdir.home() / "jobs" / RUN_ID)
    outlook: Outlook = scheduler.outlook(job, directory, environ)
    return Plan(job, outlook.text, variables.names(job, directory, outlook))


def _heading_of_ranks(plan: Plan) -> str:
    distribution, nodes = plan.job.distribution, plan.job.resources.node_count
    total = sum(map(len, plan.ranks))
    if distribution.kind == "single":
        return "One process, on one node"
    least = distribution.min_nodes
    elastic = f", goes on with {least} of the nodes" if least is not None and least < nodes else ""
    where = f"{count(total, 'rank')} on {count(nodes, 'node')} (world size {total})"
    return f"{where}, started by {distribution.launcher}{elastic}"


def _rank_lines(ranks: Iterable[tuple[int, ...]]) -> list[str]:
    return [
        f"node {number}: {_span(found, 'rank')} ({_span(tuple(range(len(found))), 'local rank')})"
        for number, found in enumerate(ranks)
    ]


def _span(numbers: tuple[int, ...], noun: str) -> str:
    """``rank 3``, ``ranks 0-7``."""
    return f"{noun} {numbers[0]}" if len(numbers) == 1 else f"{noun}s {numbers[0]}-{numbers[-1]}"


def _environment(job: JobSpec) -> list[str]:
    interpreter, container = job.interpreter, job.container
    if container is not None:
        there = f"here, {container.image_id}" if container.image_id else "to be pulled before it is queued"
        return [f"image {container.image} ({container.runtime}): {there}"]
    if interpreter.manager not in BUILT:
        return [f"the interpreter that submits: {interpreter.python}"]
    if interpreter.python is not None:
        return [f"ready: {interpreter.key}", str(Path(interpreter.python))]
    return _to_be_built(job)


def _to_be_built(job: JobSpec) -> list[str]:
    description = job.interpreter.description
    how = "to be chosen anew and built" if job.upgrade_environment else "to be built"
    where = ", in a job of its own on a node" if job.prepare_on == "node" else ""
    python = f", Python {description['python']}" if description.get("python") else ""
    packages = [*description.get("conda", ()), *description.get("requirements", ())]
    with_horovod = ["Horovod"] if description.get("horovod") else []
    head = f"{how} by {job.interpreter.manager} before it is queued{where}, from {description.get('source')}{python}"
    return [head, *_wrapped(", ".join([*packages, *with_horovod]))]


def _variables(groups: Mapping[str, tuple[str, ...]]) -> list[str]:
    lines = []
    for who, names in groups.items():
        lines += [f"{who}:", *(_INDENT + line for line in _wrapped(" ".join(names)))]
    return lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
