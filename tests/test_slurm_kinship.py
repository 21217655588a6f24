"""Who may report for a job: a process that conceals what the job's own agent would, and logs in as it does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.jobenv import CARRIED_VARIABLE
from mlflow_pytorch_estimator.schedulers.slurm import kinship

HERE = {"MLFLOW_TRACKING_URI": "http://10.0.0.7:5000", "MLFLOW_TRACKING_USERNAME": "me", "API_TOKEN": "long and secret"}


@pytest.mark.parametrize(
    "changed",
    [
        {"API_TOKEN": "another secret"},
        {"MLFLOW_TRACKING_USERNAME": "you"},
        {"OTHER_PASSWORD": "a second secret"},
        {CARRIED_VARIABLE: json.dumps({"RANKS_SECRET": "only for the ranks"})},
    ],
)
def test_another_secret_or_another_login_is_not_shared(tmp_path: Path, changed: dict[str, str]) -> None:
    directory = JobDir(tmp_path)
    kinship.note(directory, {**HERE, **changed})
    assert not kinship.shared(directory, HERE)
    assert kinship.shared(directory, {**HERE, **changed})
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not any(value.encode() in written for value in (*HERE.values(), *changed.values()) if len(value) > 3)


@pytest.mark.parametrize("changed", [{"PATH": "/elsewhere"}, {"MLFLOW_RUN_ID": "0" * 32}, {CARRIED_VARIABLE: "{}"}])
def test_what_says_nothing_of_reports_does_not_count(tmp_path: Path, changed: dict[str, str]) -> None:
    directory = JobDir(tmp_path)
    kinship.note(directory, {**HERE, **changed})
    assert kinship.shared(directory, HERE)


def test_two_jobs_with_the_same_secrets_do_not_show_that(tmp_path: Path) -> None:
    words = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        kinship.note(JobDir(tmp_path / name), HERE)
        words |= {path.read_text() for path in (tmp_path / name).iterdir()}
    assert len(words) == 2


def test_a_job_of_an_older_version_is_left_to_its_agent(tmp_path: Path) -> None:
    assert not kinship.shared(JobDir(tmp_path), HERE)
