"""Workspaces and experiments over real stores."""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import (
    ComputeTarget,
    Experiment,
    PyTorch,
    UserErrorException,
    Workspace,
    WorkspaceException,
)
from mlflow_pytorch_estimator.errors import GpuClusterError


def config(folder: Path, **keys: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(keys))
    return path


def test_without_a_file_mlflows_stores_are_meant_and_said(
    store: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        workspace = Workspace.from_config()
    assert workspace.get_mlflow_tracking_uri() == mlflow.get_tracking_uri()
    assert workspace.home == tmp_path / "home"
    assert "no config.json" in caplog.text


@pytest.mark.parametrize("place", [".", ".azureml", "aml_config"])
def test_the_nearest_file_upward_counts(
    store: MlflowClient, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config(tmp_path / "a" / place, workspace_name="near", tracking_uri="sqlite:///x/mine.db", home="cluster-home")
    config(tmp_path, workspace_name="far")
    (tmp_path / "a/b/c").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b/c")
    workspace = Workspace.from_config()
    assert workspace.name == "near"
    # Relative places are those of the folder with the file, wherever the script was started.
    assert workspace.get_mlflow_tracking_uri() == f"sqlite:///{tmp_path}/a/x/mine.db"
    assert workspace.stores.registry_uri == workspace.get_mlflow_tracking_uri()
    assert workspace.home == tmp_path / "a/cluster-home"


def test_a_config_json_of_another_tool_is_passed_over(
    store: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config(tmp_path, workspace_name="ours")
    config(tmp_path / "model", hidden_size=768)
    monkeypatch.chdir(tmp_path / "model")
    assert Workspace.from_config().name == "ours"


def test_an_old_file_of_the_original_means_mlflows_stores(
    store: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = config(tmp_path / ".azureml", subscription_id="s", resource_group="r", workspace_name="w")
    with caplog.at_level(logging.INFO):
        workspace = Workspace.from_config(path)
    assert workspace.name == "w"
    assert workspace.get_mlflow_tracking_uri() == mlflow.get_tracking_uri()
    assert "subscription_id" in caplog.text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ('{"tracking_url": "x"}', "did you mean 'tracking_uri'"),
        ('{"tracking_uri": 3}', "must be text"),
        ('{"workspace_name": "a/b"}', "cannot name a workspace"),
        ('{"scheduler": "pbs"}', "scheduler is 'pbs'; there is local, slurm"),
        ('{"scheduler": "slurm", "scheduler_options": "gpu"}', "must be an object such as"),
        ('{"scheduler": "slurm", "scheduler_options": {"partition": ["a"]}}', "'partition' is \\['a'\\]"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused(store: MlflowClient, tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(WorkspaceException, match=word):
        Workspace.from_config(path)


def test_a_path_that_was_given_and_is_missing_raises(store: MlflowClient, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceException, match="there is no config"):
        Workspace.from_config(tmp_path / "nowhere")


def test_written_and_read_again(store: MlflowClient, tmp_path: Path) -> None:
    first = Workspace(
        workspace_name="mine",
        tracking_uri=f"sqlite:///{tmp_path}/o.db",
        home=tmp_path / "h",
        scheduler="slurm",
        scheduler_options={"partition": "gpu"},
    )
    first.write_config(tmp_path / "p")
    second = Workspace.from_config(tmp_path / "p")
    assert second.get_details() == first.get_details()
    assert (second.scheduler, second.scheduler_options) == ("slurm", {"partition": "gpu"})


def test_no_password_is_written(store: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Workspace(tracking_uri="https://me:hunter22@mlflow.example/x").write_config(tmp_path)
    path = tmp_path / ".azureml/config.json"
    assert "hunter22" not in path.read_text()
    assert "https://mlflow.example/x" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "left out" in caplog.text


def test_named_workspaces(store: MlflowClient, tmp_path: Path) -> None:
    Workspace.create("team", tracking_uri=f"sqlite:///{tmp_path}/team.db")
    assert Workspace.get("team").get_mlflow_tracking_uri() == f"sqlite:///{tmp_path}/team.db"
    assert list(Workspace.list()) == ["team"]
    with pytest.raises(WorkspaceException, match="exist_ok"):
        Workspace.create("team")
    Workspace.create("team", exist_ok=True)
    Workspace.get("team").delete()
    with pytest.raises(WorkspaceException, match="known: none exists"):
        Workspace.get("team")
    with pytest.raises(WorkspaceException, match="cannot name"):
        Workspace.get("../x")


def test_two_workspaces_do_not_touch_mlflows_current_stores(store: MlflowClient, tmp_path: Path) -> None:
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    one = Workspace(tracking_uri=f"sqlite:///{tmp_path}/one.db")
    two = Workspace(tracking_uri=f"sqlite:///{tmp_path}/two.db")
    Experiment(one, "only-in-one")
    assert "only-in-one" in one.experiments
    assert "only-in-one" not in two.experiments
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == before


def test_default_compute_target_is_made_once(store: MlflowClient) -> None:
    workspace = Workspace()
    first = workspace.get_default_compute_target("cpu")
    assert first.name == "cpu-cluster"
    assert workspace.get_default_compute_target("CPU").serialize() == first.serialize()
    assert list(workspace.compute_targets) == ["cpu-cluster"]
    with pytest.raises(UserErrorException, match="'cpu' or 'gpu'"):
        workspace.get_default_compute_target("tpu")


def test_an_experiment_is_created_and_found_again(store: MlflowClient) -> None:
    workspace = Workspace()
    first = Experiment(workspace, "birds")
    assert Experiment(workspace, name="birds").id == first.id
    assert workspace.experiments["birds"].id == first.id
    assert store.get_experiment_by_name("birds").experiment_id == first.id


def test_a_deleted_experiment_is_restored(store: MlflowClient) -> None:
    workspace = Workspace()
    first = Experiment(workspace, "birds")
    first.archive()
    assert first.archived_time is not None
    assert "birds" not in workspace.experiments
    assert [item.name for item in Experiment.list(workspace, view_type="ArchivedOnly")] == ["birds"]
    assert Experiment(workspace, "birds").id == first.id
    assert "birds" in workspace.experiments


def test_archive_and_reactivate_under_another_name(store: MlflowClient) -> None:
    experiment = Experiment(Workspace(), "birds")
    experiment.archive()
    experiment.reactivate("poultry")
    assert (experiment.name, experiment.archived_time) == ("poultry", None)


def test_tags_of_an_experiment(store: MlflowClient) -> None:
    workspace = Workspace()
    experiment = Experiment(workspace, "birds")
    experiment.tag("team", "a")
    experiment.set_tags({"phase": 2})
    assert {"team": "a", "phase": "2"}.items() <= experiment.tags.items()
    assert [item.name for item in Experiment.list(workspace, tags={"team": "a"})] == ["birds"]
    assert Experiment.list(workspace, tags="other") == []
    experiment.remove_tags(["team"])
    assert "team" not in experiment.tags


@pytest.mark.parametrize("name", ["", "  ", None, 3, "a\0b"])
def test_names_that_cannot_be(store: MlflowClient, name: object) -> None:
    with pytest.raises(UserErrorException):
        Experiment(Workspace(), name)  # type: ignore[arg-type]  # that is the test


def test_interactive_runs(store: MlflowClient) -> None:
    experiment = Experiment(Workspace(), "birds")
    with experiment.start_logging(run_name="by hand") as run:
        run.log("loss", 0.5)
        child = run.child_run("fold 1")
        child.log("loss", 0.25)
        child.complete()
        assert run.status == "Running"
    assert (run.status, run.name) == ("Completed", "by hand")
    assert run.get_metrics() == {"loss": 0.5}
    assert [item.id for item in run.get_children()] == [child.id]
    assert child.parent is not None
    assert child.parent.id == run.id
    with pytest.raises(ZeroDivisionError), experiment.start_logging() as failed:
        _ = 1 / 0
    assert failed.status == "Failed"
    assert "ZeroDivisionError" in failed.get_detailed_status()["details"]
    canceled = experiment.start_logging()
    canceled.cancel()
    assert canceled.get_status() == "Canceled"
    assert [item.id for item in experiment.get_runs()] == [canceled.id, failed.id, run.id]
    assert len(list(experiment.get_runs(include_children=True))) == 4


def test_runs_by_tag_property_and_status(store: MlflowClient) -> None:
    experiment = Experiment(Workspace(), "birds")
    first, second = experiment.start_logging(tags={"a": 1}), experiment.start_logging()
    second.add_properties({"p": "q"})
    first.complete()
    assert [run.id for run in experiment.get_runs(tags="a")] == [first.id]
    assert [run.id for run in experiment.get_runs(tags={"a": "2"})] == []
    assert [run.id for run in experiment.get_runs(properties={"p": "q"})] == [second.id]
    assert [run.id for run in type(first).list(experiment, status="Completed")] == [first.id]
    assert second.get_properties() == {"p": "q"}
    with pytest.raises(UserErrorException, match="cannot change"):
        second.add_properties({"p": "r"})


def test_a_run_that_is_not_there(store: MlflowClient) -> None:
    with pytest.raises(UserErrorException, match="no run"):
        Workspace().get_run("0" * 32)


def test_a_description_stays_above_what_the_job_writes(store: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('x')")
    experiment = Experiment(Workspace(), "birds")
    note = {"mlflow.note.content": "my *words*"}
    run = experiment.submit(
        PyTorch(tmp_path, compute_target="local", entry_script="train.py", user_managed=True), tags=note
    )
    run.wait_for_completion()
    text = store.get_run(run.id).data.tags["mlflow.note.content"]
    assert text.startswith("my *words*")
    assert "Completed" in text
    assert run.description == "my *words*"
    run.description = "others"
    assert run.description == "others"
    assert "Completed" in store.get_run(run.id).data.tags["mlflow.note.content"]


def test_a_broken_target_is_named(store: MlflowClient, home: Path) -> None:
    (home / "compute").mkdir(parents=True)
    (home / "compute/odd.json").write_text('{"max_nodes": "x"}')
    with pytest.raises(GpuClusterError, match=r"odd\.json is no cluster definition \(max_nodes is 'x'\)"):
        ComputeTarget(Workspace(), "odd")


def test_the_store_keeps_its_password_on_this_side(store: MlflowClient, home: Path, tmp_path: Path) -> None:
    """A job that the client finishes is written with the workspace's own URI, not with the one in job.json."""
    (tmp_path / "train.py").write_text("print('x')")
    experiment = Experiment(Workspace(), "birds")
    run = experiment.submit(PyTorch(tmp_path, compute_target="local", entry_script="train.py", user_managed=True))
    run.wait_for_completion()
    assert run.job is not None
    assert run.job.stores == experiment.workspace.stores


def test_portal_url(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Experiment(Workspace(), "birds").start_logging()
    assert run.get_portal_url() is None
    monkeypatch.setenv("MLFLOW_TRACKING_UI_URL", "https://ui.example/")
    assert run.get_portal_url() == f"https://ui.example/#/experiments/{run.experiment.id}/runs/{run.id}"
