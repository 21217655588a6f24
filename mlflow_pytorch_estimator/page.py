"""The run's description: what a person sees first on the run page."""

from __future__ import annotations

import time
from urllib.parse import urlencode

from mlflow_pytorch_estimator import journal
from mlflow_pytorch_estimator.arrays import group
from mlflow_pytorch_estimator.jobdir import JobDir, Outcome
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase

MARK = "[//]: # (gpu-cluster: written anew, your text goes above)"
"""A comment of Markdown; what stands above it is left as it is."""
_MAX_TRACEBACK = 4000
_WIDTH = 100
_MOST_RUNS = 40


def own_text(note: str) -> str:
    """What somebody has written into the description, without ours."""
    return note.partition(MARK)[0].strip()


def describe(job: JobSpec, directory: JobDir, phase: Phase, outcome: Outcome | None) -> str:
    """The description in Markdown."""
    events = directory.events()
    parts = []
    if outcome is not None and outcome.phase is not Phase.COMPLETED:
        parts.append(_failure(outcome, directory))
    parts.append(_summary(job, directory, phase, events))
    parts.append(_runs(job, directory) if job.members else _parameters(job))
    parts.append(_phases(events))
    parts.append(_picture(job, outcome))
    parts.append(_follow(job, phase))
    return "\n\n".join(part for part in parts if part)


def _failure(outcome: Outcome, directory: JobDir) -> str:
    details = outcome.failure or {}
    text = f"**{outcome.phase}**: {cell(outcome.reason)}"
    others = details.get("ranks_ended_by_it")
    if others and details.get("rank") is not None:
        text += f"\n\nEnded because of it: {'rank' if len(others) == 1 else 'ranks'} {', '.join(map(str, others))}"
    for number, reason in enumerate(details.get("earlier_attempts", []), 1):
        text += f"\n\nAttempt {number}: {cell(reason)}"
    evidence = details.get("traceback") or "\n".join(details.get("last_lines", []))
    short = evidence.replace(f"{directory.source}/", "")[-_MAX_TRACEBACK:]  # as the files are called in the project
    return f"{text}\n\n{fenced(folded(short))}" if evidence else text


def _summary(job: JobSpec, directory: JobDir, phase: Phase, events: list[journal.Event]) -> str:
    places = [event.message for event in events if event.phase is Phase.RUNNING and event.message.startswith("on ")]
    compute = places[-1].removeprefix("on ") if places else _wanted(job)
    rows = [
        ("Status", _status(phase, events)),
        ("Project", f"{job.project}, entry point `{job.entry_point}`"),
        ("Compute", f"{compute} ({job.scheduler} scheduler)"),
        ("Environment", _environment(job)),
        *(("Data", f"{name}: {data['uri']}") for name, data in job.datasets.items()),
        ("Ranks", ranks(job)),
        *([("Attempt", f"{directory.attempt} of {job.max_retries + 1}")] if directory.attempt > 1 else []),
        ("Job directory", f"`{directory.path}`"),
        *(("Note", notice) for notice in job.notices),
    ]
    table = ["| | |", "|---|---|", *(f"| {name} | {cell(value)} |" for name, value in rows)]
    command = "\n\n**Command**\n\n" + fenced(folded(job.command)) if job.command else ""
    return "\n".join(table) + command


def _status(phase: Phase, events: list[journal.Event]) -> str:
    reason = waiting_reason(phase, events)
    return f"{phase}: {reason}" if reason else str(phase)


def waiting_reason(phase: Phase, events: list[journal.Event]) -> str:
    """Why a job waits in this phase, as its scheduler has said last; "" when it does not."""
    waits = phase in {Phase.QUEUED, Phase.SCALING} and bool(events) and events[-1].phase is phase
    return events[-1].message if waits else ""


def _environment(job: JobSpec) -> str:
    if job.container is not None:
        return f"image {job.container.image} ({job.container.runtime})"
    return f"{job.interpreter.key or job.interpreter.manager} ({job.interpreter.manager})"


def _wanted(job: JobSpec) -> str:
    gpus, cpus = job.resources.gpus_per_node, job.resources.cpus_per_node
    return f"{'all' if cpus is None else cpus} CPUs, {'all' if gpus is None else gpus} GPUs of {_nodes(job)}"


def _nodes(job: JobSpec) -> str:
    return "one node" if job.resources.node_count == 1 else f"each of {job.resources.node_count} nodes"


def _parameters(job: JobSpec) -> str:
    if not job.parameters:
        return ""
    rows = [f"| {cell(name)} | {cell(value)} |" for name, value in job.parameters.items()]
    return "\n".join(["**Parameters**\n", "| Name | Value |", "|---|---|", *rows])


def _runs(job: JobSpec, directory: JobDir) -> str:
    """The runs of an array; a long list is cut, the store shows them all below this run."""
    rows = []
    for member in group.members(directory)[:_MOST_RUNS]:
        given = ", ".join(f"{name}={value}" for name, value in member.job.parameters.items())
        rows.append(f"| {member.path.name} | {cell(given[:_WIDTH])} |")
    more = len(job.members) - len(rows)
    rows += [f"| ... and {more} more | |"] if more else []
    return "\n".join([f"**{len(job.members)} runs**\n", "| Run | Parameters |", "|---|---|", *rows])


def _phases(events: list[journal.Event]) -> str:
    rows = [
        f"| {entry['phase']} | {_clock(entry['start'])} | {float(str(entry['seconds'])):.1f} |"
        for entry in journal.timeline(events, time.time())
    ]
    return "\n".join(["**Phases**\n", "| Phase | Start (UTC) | Seconds |", "|---|---|---|", *rows]) if rows else ""


def _clock(start: object) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(float(str(start))))


def ranks(job: JobSpec) -> str:
    """How many, where, and what starts them."""
    nodes, per_node = job.resources.node_count, job.distribution.processes_per_node
    if job.distribution.kind == "single":
        return "one process"
    shape = f"{nodes} x {per_node}: {nodes} {'node' if nodes == 1 else 'nodes'}, {per_node} on each"
    return f"{shape} ({job.distribution.launcher})"


def _picture(job: JobSpec, outcome: Outcome | None) -> str:
    """The timeline, where the page is shown by an MLflow server: its address begins there."""
    if outcome is None or job.members or (job.tracking_uri or "").startswith("databricks"):
        return ""
    query = urlencode({"run_uuid": job.run_id, "path": "gpu_cluster/timeline.svg"})
    return f"![gpu_cluster/timeline.svg in the artifacts](get-artifact?{query})"


def _follow(job: JobSpec, phase: Phase) -> str:
    where = "Logs are under `logs/` and results under `outputs/` in the artifacts."
    if phase.terminal:
        return where if job.members else f"{where} Run it again:\n\n{fenced(f'gpu-cluster retry {job.run_id}')}"
    return f"{where} Follow and cancel:\n\n{fenced(follow_commands(job.run_id))}"


def follow_commands(run_id: str) -> str:
    """The two commands for a job that runs on its own."""
    return f"gpu-cluster logs --follow {run_id}\ngpu-cluster cancel {run_id}"


def folded(text: str) -> str:
    """Long lines broken, at options where there are some: MLflow's page does not wrap code, it grows sideways."""
    lines = []
    for line in text.splitlines():
        parts = line.replace(" --", "\n    --").split("\n") if len(line) > _WIDTH else [line]
        for part in parts:
            lines += [part[start : start + _WIDTH] for start in range(0, len(part), _WIDTH)] or [""]
    return "\n".join(lines)


def fenced(text: str) -> str:
    """A code block that no text inside it can end."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"


def cell(value: str) -> str:
    """Text for one table cell or paragraph."""
    return value.replace("\\", "\\\\").replace("|", "\\|").replace("\r", " ").replace("\n", " ").replace("<", "&lt;")
