"""A training script outside of any job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.estimator.exceptions import RunEnvironmentException, UserErrorException
from mlflow_pytorch_estimator.estimator.recording.offline import OfflineRun

SCRIPT = """
import numpy as np
from mlflow_pytorch_estimator.estimator.recording.offline import OfflineRun

run = OfflineRun()
run.tag("framework", "torch")
for epoch in range(3):
    run.log("best_val_acc", np.float64(epoch / 4))
run.log("loss", 0.25, step=3)
run.log("prec@1", np.int32(97))
run.upload_file("outputs/model.txt", "train.py")
assert run.get_metrics()["best_val_acc"][-1] == 0.5
run.complete()
print(run.get_status())
"""


def test_a_plain_script_prints_and_leaves_nothing(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "train.py"], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "tag framework = torch",
        "best_val_acc = 0 (step 0)",
        "best_val_acc = 0.25 (step 1)",
        "best_val_acc = 0.5 (step 2)",
        "loss = 0.25 (step 3)",
        "prec@1 = 97 (step 0)",
        f"file outputs/model.txt: {script}, not stored outside of a run",
        "Completed",
    ]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == [script]


def test_the_life_of_an_offline_run() -> None:
    run = OfflineRun()
    assert run.id.startswith("OfflineRun_")
    assert run.run_id == run.id
    assert run.get_status() == run.status == run.get_details()["status"] == "Running"
    assert run.experiment is None
    assert run.get_file_names() == []
    assert run.id in repr(run)
    run.cancel()
    assert run.wait_for_completion(show_output=True)["status"] == "Canceled"
    run.fail("no luck", error_code="E1")
    assert run.get_detailed_status() == {"status": "Failed", "details": "E1: no luck"}


def test_as_a_context() -> None:
    with OfflineRun() as run:
        run.log("loss", 1)
    assert run.status == "Completed"
    with pytest.raises(ZeroDivisionError), OfflineRun() as run:
        raise ZeroDivisionError("x")
    assert (run.status, run.get_details()["error"]) == ("Failed", "ZeroDivisionError: x")


def test_tags_and_properties() -> None:
    run = OfflineRun()
    given: dict[str, object] = {"a": 1, "b": None}
    run.set_tags(given)
    run.remove_tags(["b", "nothing"])
    run.tags["c"] = "changed a copy"
    assert run.get_tags() == {"a": "1"}
    assert given == {"a": 1, "b": None}
    run.add_properties({"p": 1})
    run.add_properties({"p": "1"})
    with pytest.raises(UserErrorException, match="cannot change: p"):
        run.add_properties({"p": 2})
    assert run.get_properties() == {"p": "1"}


def test_children() -> None:
    run = OfflineRun()
    child = run.child_run("first")
    grandchild = child.child_run()
    child.log("loss", 1)
    more = run.create_children(tag_key="fold", tag_values=[1, 2])
    assert child.parent is run
    assert child.name == "first"
    assert run.get_children() == [child, *more]
    assert run.get_children(recursive=True) == [child, *more, grandchild]
    assert [each.tags for each in more] == [{"fold": "1"}, {"fold": "2"}]
    assert run.get_metrics() == {}
    assert child.get_metrics() == {"loss": 1.0}
    with pytest.raises(UserErrorException, match="either count"):
        run.create_children()


def test_uploads_say_where_the_files_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = OfflineRun()
    file = tmp_path / "f"
    file.write_bytes(b"x")
    run.upload_folder("outputs", tmp_path)
    run.upload_files(["a", "b"], [file, file])
    with file.open("rb") as stream:
        run.upload_file("c", stream)
    assert capsys.readouterr().out.splitlines() == [
        f"folder outputs: {tmp_path}, not stored outside of a run",
        f"file a: {file}, not stored outside of a run",
        f"file b: {file}, not stored outside of a run",
        "file c: a stream, not stored outside of a run",
    ]
    with pytest.raises(UserErrorException, match="no file"):
        run.upload_file("x", tmp_path / "nothing")
    with pytest.raises(UserErrorException, match="no folder"):
        run.upload_folder("x", file)
    with pytest.raises(UserErrorException, match="one path for each name"):
        run.upload_files(["a"], [])


# The rows "Run" and "logging" of the mapping, and what else the original's runs have.
PUBLIC = (
    "id status get_status wait_for_completion get_details get_details_with_logs get_all_logs get_file_names "
    "download_file download_files upload_file upload_files upload_folder register_model get_metrics tag "
    "get_tags cancel complete fail child_run get_children parent get_portal_url experiment get_context list "
    "get log log_list log_row log_table log_image log_confusion_matrix log_accuracy_table log_residuals "
    "log_predictions name display_name description type number set_tags remove_tags tags add_properties "
    "get_properties properties create_children submit_child start flush clean take_snapshot restore_snapshot "
    "get_snapshot_id get_environment get_secret get_secrets get_detailed_status "
)


def test_an_offline_run_has_every_member() -> None:
    run = OfflineRun()
    assert [name for name in PUBLIC.split() if not hasattr(run, name)] == []


@pytest.mark.parametrize(
    "method",
    [
        "register_model",
        "download_file",
        "download_files",
        "get_all_logs",
        "submit_child",
        "get_secret",
        "restore_snapshot",
    ],
)
def test_what_needs_a_run_says_so(method: str) -> None:
    run = OfflineRun()
    with pytest.raises(RunEnvironmentException, match=f"{method}\\(\\) needs a run, and {run.id} is none: ") as caught:
        getattr(run, method)("x", model_path="y")
    assert isinstance(caught.value, GpuClusterError)
