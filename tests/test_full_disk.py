"""A real file system without room: of the job, of who submits, of the artifacts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project, finish, processes_with, submit, wait_until
from mlflow.exceptions import ExecutionException
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

Mount = Callable[..., Path]
# Leaves nothing at all: what it could write last is smaller than a block.
FILL = """
import os
def fill(folder):
    fd = os.open(os.path.join(folder, "filler"), os.O_WRONLY | os.O_CREAT)
    for size in (1 << 20, 1 << 12, 1):
        try:
            while True:
                os.write(fd, b"x" * size)
        except OSError as error:
            assert error.errno == 28, error
    os.close(fd)
fill(DISK)
"""


def fill(folder: Path) -> None:
    exec(FILL, {"DISK": str(folder)})  # noqa: S102 - as the jobs do


@pytest.fixture
def disk(store: MlflowClient, mount: Mount, home: Path) -> Path:
    """The home on a disk of its own."""
    return mount(home, "-t", "tmpfs", "-o", "size=24m", "none")


def ended(running: GpuClusterSubmittedRun) -> None:
    """Wait for a job to end without anybody of this process who helps it."""
    wait_until(lambda: running.directory.outcome is not None, 60, "the end of the job")
    wait_until(lambda: not running.directory.alive, 60, "the end of its agent")
    assert processes_with(running.run_id) == []


ENDS = {
    "well": "",
    "quietly": "raise SystemExit(3)\n",
    "badly": "with open('outputs/more.txt', 'w') as file:\n    file.write('more')\n",
    "talkative": "import sys\nfor number in range(100_000):\n    print('line', number, flush=True)\n",
}


@pytest.mark.parametrize("ending", ENDS)
def test_a_disk_that_the_job_fills(store: MlflowClient, project: Project, disk: Path, ending: str) -> None:
    running = submit(project.script(f"DISK = {str(disk)!r}\nprint('up', flush=True)\n{FILL}{ENDS[ending]}"))
    ended(running)
    outcome = running.directory.outcome
    assert outcome is not None
    run = store.get_run(running.run_id)
    if ending == "well":
        assert (str(outcome.phase), run.info.status) == ("Completed", "FINISHED")
    else:
        assert (str(outcome.phase), run.info.status) == ("Failed", "FAILED")
        code = 3 if ending == "quietly" else 1
        assert outcome.reason.startswith(f"rank 0 exited with status {code}")
        assert outcome.reason.endswith(f"; no space left in {running.directory.path}")
        assert run.data.tags["gpu_cluster.failure"] == outcome.reason
    assert Path(store.download_artifacts(running.run_id, "logs/rank_0.log")).read_text().startswith("up\n")
    assert "timeline.json" in {Path(item.path).name for item in store.list_artifacts(running.run_id, "gpu_cluster")}
    (disk / "filler").unlink()
    done = finish(submit(project.script("print('room again')\n")))
    assert done.succeeded, done.log


def test_a_disk_that_is_full_while_a_job_waits_and_while_it_is_killed(
    store: MlflowClient, project: Project, disk: Path, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    script = f"import os, time\nprint('up', flush=True)\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.1)\n"
    first, second = submit(project.script(script)), submit(project.script("print('second')\n"))
    wait_until(lambda: "up" in first.directory.rank_log(0).read_text(), 60, "the first job")
    wait_until(lambda: "Queued" in str(second.directory.phase), 60, "the second")
    fill(disk)
    os.kill(json.loads(first.directory.agent.read_text())["pid"], 9)
    wait_until(lambda: not first.directory.alive, 30, "the end of the first")
    assert first.get_status() == "FAILED"
    assert store.get_run(first.run_id).info.status == "FAILED"
    words = store.get_run(first.run_id).data.tags["gpu_cluster.failure"]
    assert words.startswith("the agent was killed, or the machine went down; last known phase: Running")
    (disk / "filler").unlink()
    assert second.wait()


def test_a_disk_that_is_full_at_submission(store: MlflowClient, project: Project, disk: Path) -> None:
    project.script("print('never')\n")
    fill(disk)
    with pytest.raises(ExecutionException, match=r"(?i)no space left") as caught:
        submit(project)
    assert "\n" not in str(caught.value)
    assert str(disk) in str(caught.value)
    assert "set GPU_CLUSTER_HOME" in str(caught.value)
    assert store.search_runs(["0"]) == []
    assert list((disk / "jobs").iterdir()) == []
    (disk / "filler").unlink()
    assert finish(submit(project)).succeeded


def test_an_artifact_store_without_room(store: MlflowClient, project: Project, mount: Mount, tmp_path: Path) -> None:
    artifacts = mount(tmp_path / "artifacts", "-t", "tmpfs", "-o", "size=2m", "none")
    experiment = store.create_experiment("full", artifact_location=str(artifacts))
    script = "open('outputs/large.bin', 'wb').write(bytes(4 << 20))\nopen('outputs/small.txt', 'w').write('a')\n"
    done = finish(submit(project.script(script), experiment_id=experiment))
    assert done.succeeded
    assert done.run.info.status == "FINISHED"
    assert "No space left on device" in done.tags["gpu_cluster.undelivered"]
    assert (done.directory.outputs / "large.bin").stat().st_size == 4 << 20
