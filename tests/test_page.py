"""The run's description: values of any kind stay inside their cells and fences."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mlflow_pytorch_estimator.jobdir import JobDir, Outcome
from mlflow_pytorch_estimator.page import cell, describe, fenced, follow_commands, ranks
from mlflow_pytorch_estimator.spec import Distribution, InterpreterSpec, JobSpec, Resources
from mlflow_pytorch_estimator.status import Phase

NASTY = [
    "a|b",
    "a||b|",
    "\\|",
    "\\\\|",
    "line\nbreak",
    "\r\n\r\n# heading",
    "```",
    "````\n```",
    "`code`",
    "<script>alert(1)</script>",
    "</td></table>",
    "| x |\n|---|---|",
    "täglich ☃",
    "",
    " ",
]


def job(**changes: Any) -> JobSpec:
    settings: dict[str, Any] = {
        "run_id": "r1",
        "experiment_id": "0",
        "project": "toy",
        "entry_point": "main",
        "command": "echo hi",
        "parameters": {},
        "interpreter": InterpreterSpec("uv", {}, "/x/bin/python", "k3y"),
    }
    return JobSpec(**{**settings, **changes})


def cells(line: str) -> list[str]:
    """The cells of a table row as GitHub's Markdown takes them apart."""
    assert line.startswith("| ")
    assert line.endswith(" |")
    return [part.strip() for part in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]]


def outside_fences(text: str) -> str:
    """The text without its code blocks; fails if one is not closed."""
    kept: list[str] = []
    fence = ""
    for line in text.split("\n"):
        if fence:
            fence = "" if line.rstrip() == fence else fence
        elif found := re.match(r"(`{3,})", line):
            fence = found[1]
        else:
            kept.append(line)
    assert not fence, "an open code block"
    return "\n".join(kept)


@pytest.mark.parametrize("value", NASTY)
def test_a_value_is_one_cell(value: str) -> None:
    row = f"| name | {cell(value)} |"
    assert "\n" not in row
    assert "\r" not in row
    assert "<" not in row
    assert len(cells(row)) == 2


@pytest.mark.parametrize("value", [*NASTY, "text\n```\nend", "`" * 9, "```text"])
def test_a_fence_holds_anything(value: str) -> None:
    assert outside_fences(f"before\n{fenced(value)}\nafter") == "before\nafter"
    assert value in fenced(value)


@pytest.mark.parametrize("value", NASTY)
def test_a_page_holds_its_shape(tmp_path: Path, value: str) -> None:
    directory = JobDir(tmp_path)
    directory.enter(Phase.QUEUED, value)
    directory.enter(Phase.RUNNING, f"on {value}")
    failure = {"traceback": value, "last_lines": [value]}
    outcome = Outcome(Phase.FAILED, "rank 0 exited with status 1", 1, 1.0, failure)
    data = {value: {"uri": value, "path": value}}
    spec = job(project=value, command=f"echo {value}", parameters={"a": value, value or "b": "c"}, datasets=data)
    text = outside_fences(describe(spec, directory, Phase.FAILED, outcome))
    assert "<script" not in text
    assert "# heading" not in [line.strip() for line in text.split("\n")]
    rows = [line for line in text.split("\n") if line.startswith("|")]
    tables = [cells(line) for line in rows if not line.startswith(("|---", "| | |"))]
    assert [len(row) for row in tables] == [2] * (6 + 1 + 1 + len(spec.parameters)) + [3] * 3


@pytest.mark.parametrize(
    "reason", ["TypeError: <class 'int'> is wrong", "x <script>alert(1)</script>", "a\n\n# b\n| c |"]
)
def test_the_reason_of_a_failure_is_shown_as_it_is(tmp_path: Path, reason: str) -> None:
    directory = JobDir(tmp_path)
    directory.enter(Phase.RUNNING)
    text = outside_fences(describe(job(), directory, Phase.FAILED, Outcome(Phase.FAILED, reason, 1, 1.0)))
    assert "<" not in text
    assert "# b" not in text.split("\n")
    assert "| c |" not in text.split("\n")


def test_a_job_without_a_past_has_a_page(tmp_path: Path) -> None:
    assert "| Status | Failed |" in describe(job(), JobDir(tmp_path), Phase.FAILED, None)


def test_a_waiting_job_says_what_it_wants_and_how_to_go_on(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    directory.enter(Phase.QUEUED)
    text = describe(job(resources=Resources(1, 2, 0)), directory, Phase.QUEUED, None)
    assert "| Status | Queued |" in text
    assert "| Compute | 2 CPUs, 0 GPUs of one node (local scheduler) |" in text
    assert "| Environment | k3y (uv) |" in text
    assert follow_commands("r1") in text
    assert "all CPUs, all GPUs of one node" in describe(job(), directory, Phase.QUEUED, None)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("torch", "2 x 4: 2 nodes, 4 on each (torchrun)"), ("horovod", "2 x 4: 2 nodes, 4 on each (horovod)")],
)
def test_ranks_are_told_with_what_starts_them(kind: str, said: str) -> None:
    assert ranks(job(resources=Resources(2, 2, 0), distribution=Distribution(kind, 4))) == said


def test_a_finished_job_says_where_it_ran_and_nothing_to_cancel(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    directory.enter(Phase.RUNNING, "on gpu07, 2 CPUs, 1 GPU")
    text = describe(job(parameters={"lr": "0.1"}), directory, Phase.COMPLETED, Outcome(Phase.COMPLETED, "", 0, 1.0))
    assert "| Compute | gpu07, 2 CPUs, 1 GPU (local scheduler) |" in text
    assert "| lr | 0.1 |" in text
    assert "cancel" not in text
    assert text.startswith("| | |")


def test_a_failed_job_begins_with_its_reason_and_evidence(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    directory.enter(Phase.RUNNING)
    failure = {"traceback": "", "last_lines": ["one", "two"]}
    text = describe(job(), directory, Phase.FAILED, Outcome(Phase.FAILED, "rank 0 died", 1, 1.0, failure))
    assert text.startswith("**Failed**: rank 0 died\n\n```text\none\ntwo\n```")
    long = {"traceback": "x" * 100_000}
    text = describe(job(), directory, Phase.FAILED, Outcome(Phase.FAILED, "rank 0 died", 1, 1.0, long))
    assert len(text) < 8000  # MLflow's limit for a tag
