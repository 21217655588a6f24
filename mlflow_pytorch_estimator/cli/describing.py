"""``describe``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mlflow_pytorch_estimator.cli import completing, output

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.cli.facts import Facts
    from mlflow_pytorch_estimator.jobdir import JobDir


@click.command(short_help="Print all that is known of a run.")
@click.argument("run", shell_complete=completing.runs)
@output.json_option
def describe(run: str, *, as_json: bool) -> None:
    """Print all that is known of a run: command, compute, environment, phases, and the traceback if it failed.

    \b
    gpu-cluster describe last
    """
    from mlflow_pytorch_estimator.cli import facts

    found = facts.of(run)
    described = {
        **found.summary(),
        **(_of_job(found.directory) if found.directory else {}),
        **facts.of_store(found.run_id),
    }
    if as_json:
        output.print_json(described)
        return
    for line in _lines(found, described):
        click.echo(line)


def _of_job(directory: JobDir) -> dict[str, Any]:
    from mlflow_pytorch_estimator.cli import facts

    job, outcome = directory.job, directory.outcome
    return {
        "project": job.project,
        "entry_point": job.entry_point,
        "command": job.command,
        "parameters": dict(job.parameters),
        "scheduler": job.scheduler,
        "nodes": job.resources.node_count,
        "ranks_per_node": job.distribution.processes_per_node,
        "launcher": job.distribution.launcher,
        "cpus_per_node": job.resources.cpus_per_node,
        "gpus_per_node": job.resources.gpus_per_node,
        "job_id": directory.job_id,
        "environment": job.container.image if job.container else job.interpreter.key or job.interpreter.manager,
        "attempt": directory.attempt,
        "notices": list(job.notices),
        "phases": facts.timeline(directory),
        "exit_code": outcome.exit_code if outcome else None,
        "failure": outcome.failure if outcome else None,
    }


def _lines(found: Facts, described: dict[str, Any]) -> list[str]:
    from mlflow_pytorch_estimator.journal import duration

    rows = [
        ("Run", found.run_id),
        ("Name", found.name),
        ("State", output.coloured(found.phase) + (f": {found.reason}" if found.reason else "")),
        ("Submitted", output.clock(found.submitted)),
        ("Ended", output.clock(found.ended_at)),
        ("Compute", f"{found.where}" + (f", job {described['job_id']}" if described.get("job_id") else "")),
        ("Ranks", _ranks(found.directory)),
        ("Environment", str(described.get("environment") or "")),
        ("Attempt", str(described["attempt"]) if described.get("attempt", 0) > 1 else ""),
        ("Retry of", described.get("retry_of") or ""),
        ("Experiment", described.get("experiment") or ""),
        ("Metrics", ", ".join(f"{name}={value:.6g}" for name, value in described.get("metrics", {}).items())),
        ("Artifacts", described.get("artifacts") or ""),
        ("Page", described.get("url") or ""),
        *(("Note", notice) for notice in described.get("notices", ())),
        ("Not stored", found.undelivered),
        ("Job directory", str(found.directory.path) if found.directory else ""),
        ("Command", described.get("command", "")),
    ]
    lines = [f"{title:<14}{value}" for title, value in rows if value]
    lines += [
        f"  {output.clock(float(str(entry['start'])))}  {entry['phase']:<11}"
        + (duration(float(str(entry["seconds"]))) if entry["seconds"] else "")
        for entry in described.get("phases", ())
    ]
    return [*lines, *_failure(described.get("failure") or {}, found.directory)]


def _ranks(directory: JobDir | None) -> str:
    from mlflow_pytorch_estimator import page

    return page.ranks(directory.job) if directory else ""


def _failure(failure: dict[str, Any], directory: JobDir | None) -> list[str]:
    """Whom it ended, the traceback or the last lines, and where the rest is."""
    others = [str(rank) for rank in failure.get("ranks_ended_by_it") or ()]
    ended = f"rank{'' if len(others) == 1 else 's'} {', '.join(others)}"
    guilty = failure.get("rank")
    said = [f"{ended} ended because of rank {guilty}"] if others and guilty is not None else []
    evidence = failure.get("traceback") or "\n".join(failure.get("last_lines", []))
    log = directory.rank_log(guilty or 0) if directory else None
    more = [f"log: {log}"] if failure and log and log.exists() else []
    return ["", *said, *more, *([evidence.rstrip()] if evidence else [])] if said or more or evidence else []
