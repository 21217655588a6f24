"""Arrays on this machine: runs of one project that differ in their parameters, all or nothing, below one run."""

from __future__ import annotations

from pathlib import Path

import pytest
from array_jobs import Gates, job, script, settled, statuses
from conftest import wait_until
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import Experiment


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    return Gates(tmp_path / "gates")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of four cores, of which each job takes one."""


def test_an_array_of_six(experiment: Experiment, folder: Path, gates: Gates, store: MlflowClient) -> None:
    parameters = [{"--number": number, **({"--fails": ""} if number == 1 else {})} for number in range(6)]
    runs = experiment.submit_array(script(folder, gates), parameters, {"kind": "sweep"}, run_name="six")
    above = runs[0].parent
    assert above is not None
    gates.end(*range(6))
    assert settled(runs) == ["FINISHED", "FAILED", *["FINISHED"] * 4]
    assert above.wait_for_completion(raise_on_error=False)["status"] == "Failed"
    print(above.get_details(), above.tags)
    for run in [above, *runs]:
        print(run.name, run.tags, store.get_run(run.id).data.params)
    assert 0
