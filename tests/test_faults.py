"""Faults that people meet: a server that goes, a run that is deleted, a folder that vanishes, two who cancel."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
import pytest
from click.testing import CliRunner
from conftest import Project, finish, processes_with, submit, vanish, wait_until
from gateway import Gateway
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import Experiment, PyTorch, Workspace
from mlflow_pytorch_estimator.cli import main
from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.schedulers import load_scheduler
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

GATED = "print('up', flush=True)\nimport os, time\nwhile not os.path.exists({go!r}):\n    time.sleep(0.1)\n"


def started(project: Project, go: Path, more: str = "") -> GpuClusterSubmittedRun:
    """A job that runs until the file ``go`` is there."""
    running = submit(project.script(GATED.format(go=str(go)) + more))
    wait_until(lambda: running.directory.rank_log(0).exists(), 60, "the rank")
    wait_until(lambda: "up" in running.directory.rank_log(0).read_text(), 60, "its first line")
    return running


def test_a_server_that_is_away_at_submission_leaves_nothing(through: Gateway, folder: Path, home: Path) -> None:
    (folder / "train.py").write_text("print('never')\n")
    estimator = PyTorch(str(folder), entry_script="train.py", compute_target="local", user_managed=True)
    experiment = Experiment(Workspace(), "birds")
    through.away = True
    with pytest.raises(GpuClusterError, match="cannot submit to experiment 'birds'") as caught:
        experiment.submit(estimator)
    assert "\n" not in str(caught.value)
    assert list((home / "jobs").iterdir()) == []
    through.away = False
    assert list(experiment.get_runs()) == []


@pytest.mark.parametrize("fault", ["away", "500"])
def test_a_server_that_fails_in_the_middle_gets_everything_later(
    through: Gateway, project: Project, tmp_path: Path, fault: str
) -> None:
    running = started(project, tmp_path / "go", "print('down')\n")
    client = MlflowClient()
    wait_until(lambda: client.get_run(running.run_id).info.status == "RUNNING", 30, "the status")
    refused = {"log-batch": 500, "set-tag": 500, "update": 500}
    through.away, through.status = fault == "away", refused if fault == "500" else {}
    (tmp_path / "go").touch()
    wait_until(lambda: running.directory.outcome is not None, 30, "the end of the job")
    time.sleep(1)
    through.away, through.status = False, {}
    wait_until(running.directory.delivered.exists, 90, "the delivery")
    run = client.get_run(running.run_id)
    assert (run.info.status, run.data.tags["gpu_cluster.status"]) == ("FINISHED", "Completed")
    assert Path(client.download_artifacts(running.run_id, "logs/rank_0.log")).read_text() == "up\ndown\n"


def test_the_final_word_is_kept_and_delivered_by_the_next_command(
    through: Gateway, project: Project, tmp_path: Path
) -> None:
    running = started(project, tmp_path / "go", "raise ValueError('no luck')\n")
    through.away = True
    (tmp_path / "go").touch()
    wait_until(lambda: running.directory.outcome is not None, 30, "the end of the job")
    load_scheduler("local").kill(running.directory)  # nobody of the job is left to try again
    wait_until(lambda: not running.directory.alive, 30, "the end of its agent")
    through.away = False
    assert MlflowClient().get_run(running.run_id).info.status in {"RUNNING", "SCHEDULED"}
    said = CliRunner().invoke(main, ["status", running.run_id])
    assert said.stdout == "Failed: rank 0 exited with status 1 (ValueError: no luck)\n"
    assert MlflowClient().get_run(running.run_id).info.status == "FAILED"


@pytest.mark.parametrize("what", ["run", "experiment"])
def test_a_run_that_is_deleted_while_it_trains_ends_all_the_same(
    store: MlflowClient, project: Project, tmp_path: Path, what: str
) -> None:
    mlflow.set_experiment("birds")
    running = started(project, tmp_path / "go")
    wait_until(lambda: store.get_run(running.run_id).info.status == "RUNNING", 30, "the status")
    experiment = store.get_run(running.run_id).info.experiment_id
    if what == "run":
        store.delete_run(running.run_id)
    else:
        store.delete_experiment(experiment)
    (tmp_path / "go").touch()
    assert running.wait()
    wait_until(lambda: processes_with(running.run_id) == [], 30, "the end of the job's processes")
    assert running.directory.delivered.exists()
    if what == "run":
        store.restore_run(running.run_id)
    else:
        store.restore_experiment(experiment)
    assert store.get_run(running.run_id).info.lifecycle_stage == "active"


def test_a_job_directory_that_vanishes_takes_the_job_along(
    store: MlflowClient, project: Project, tmp_path: Path
) -> None:
    running = started(project, tmp_path / "go")
    wait_until(lambda: store.get_run(running.run_id).info.status == "RUNNING", 30, "the status")
    vanish(running.directory.path)
    (tmp_path / "go").touch()
    wait_until(lambda: processes_with(running.run_id) == [], 60, "the end of the job's processes")
    experiment = store.get_experiment(store.get_run(running.run_id).info.experiment_id).name
    CliRunner().invoke(main, ["runs", "--repair", "--experiment", experiment])
    run = store.get_run(running.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["gpu_cluster.failure"]


def test_two_who_cancel_at_once_both_see_the_end(store: MlflowClient, project: Project, tmp_path: Path) -> None:
    running = started(project, tmp_path / "never")
    others = [GpuClusterSubmittedRun.of_run(running.run_id) for _ in range(3)]
    failed: list[BaseException] = []

    def cancel(handle: GpuClusterSubmittedRun) -> None:
        try:
            handle.cancel()
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    threads = [threading.Thread(target=cancel, args=(handle,)) for handle in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert [handle.get_status() for handle in others] == ["KILLED"] * 3
    assert store.get_run(running.run_id).info.status == "KILLED"
    assert processes_with(running.run_id) == []


def test_outputs_of_any_name_arrive(store: MlflowClient, project: Project) -> None:
    names = [
        "a b.txt",
        "täglich ☃ 🦃.txt",
        "-o",
        "100 %.txt",
        "a#b?c&d=e.txt",
        "quo'te\".txt",
        "deep/er/x.txt",
        ".hidden",
    ]
    done = finish(
        submit(
            project.script(
                "import pathlib\n"
                f"for number, name in enumerate({names!r}):\n"
                "    path = pathlib.Path('outputs', name)\n"
                "    path.parent.mkdir(parents=True, exist_ok=True)\n"
                "    path.write_text(str(number))\n"
            )
        )
    )
    assert done.succeeded, done.log
    assert done.files("outputs") == {f"outputs/{name}" for name in names}
    stored = Path(
        url2pathname(urlsplit(done.run.info.artifact_uri).path), "outputs"
    )  # MLflow's download reads "#" itself
    assert [(stored / name).read_text() for name in names] == [str(number) for number in range(len(names))]
    assert "gpu_cluster.undelivered" not in done.tags


def test_an_artifact_store_that_refuses_does_not_change_how_the_job_ended(
    store: MlflowClient, project: Project, tmp_path: Path
) -> None:
    (tmp_path / "full").touch()  # no folder can be made here
    experiment = store.create_experiment("refused", artifact_location=str(tmp_path / "full/artifacts"))
    done = finish(
        submit(
            project.script("open('outputs/a.txt', 'w').write('a')\nprint('well')\n"),
            experiment_id=experiment,
        )
    )
    assert done.succeeded
    assert done.run.info.status == "FINISHED"
    assert "outputs" in done.tags["gpu_cluster.undelivered"]
    described = CliRunner().invoke(main, ["describe", done.run.info.run_id]).stdout
    assert "Not stored    " in described
    assert done.tags["gpu_cluster.undelivered"].partition(":")[0] in described
    assert (done.directory.outputs / "a.txt").read_text() == "a"
