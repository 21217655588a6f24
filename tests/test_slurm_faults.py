"""Faults that people meet, on a real Slurm: several at once on one cluster, because its jobs take their time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner
from conftest import Project, processes_with, submit, vanish, wait_until
from gateway import Gateway
from mlflow.tracking import MlflowClient
from rank_jobs import BEGUN, begin
from slurm_cluster import Slurm, watchers
from test_full_disk import ENDS, FILL

from mlflow_pytorch_estimator.cli import main
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

GATED = f"{BEGUN}while not os.path.exists({{go!r}}):\n    time.sleep(0.1)\nprint('down')\n"


def started(project: Project, go: Path, count: int) -> list[GpuClusterSubmittedRun]:
    """So many jobs that run until the file ``go`` is there."""
    project.script(GATED.format(go=str(go)))
    config = {"scheduler": "slurm", "cpus_per_node": 1, "grace_period_seconds": 2}
    submitted = [submit(project, config=config) for _ in range(count)]
    for item in submitted:
        begin(item, 1)
        wait_until(lambda item=item: MlflowClient().get_run(item.run_id).info.status == "RUNNING", 90, "the status")  # type: ignore[misc]
    return submitted


def canceled_by_three(submitted: GpuClusterSubmittedRun) -> list[str]:
    """What three who cancel it at once see afterwards."""
    seen: list[str] = []

    def cancel() -> None:
        handle = GpuClusterSubmittedRun.of_run(submitted.run_id)
        handle.cancel()
        seen.append(handle.get_status())

    threads = [threading.Thread(target=cancel) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return seen


def test_three_who_cancel_a_run_that_is_deleted_a_directory_that_vanishes(
    store: MlflowClient, project: Project, slurm: Slurm, tmp_path: Path, home: Path
) -> None:
    wanted, deleted, vanished = started(project, tmp_path / "go", 3)
    vanish(vanished.directory.path)
    store.delete_run(deleted.run_id)
    assert canceled_by_three(wanted) == ["KILLED"] * 3
    (tmp_path / "go").touch()
    assert deleted.wait()
    wait_until(lambda: not slurm.command("squeue", "--noheader").strip(), 120, "the end of all jobs")
    for item in (wanted, deleted, vanished):
        wait_until(lambda item=item: processes_with(item.run_id) == [], 30, "the end of its processes")  # type: ignore[misc]
    assert CliRunner().invoke(main, ["runs", "--repair"]).exit_code == 0
    assert store.get_run(wanted.run_id).info.status == "KILLED"
    store.restore_run(deleted.run_id)
    assert store.get_run(vanished.run_id).info.status == "FAILED"
    assert "job directory has gone" in store.get_run(vanished.run_id).data.tags["gpu_cluster.failure"]
    wait_until(lambda: watchers(home) == [], 30, "the end of the watcher")


def test_a_store_that_is_away_when_the_job_ends(
    through: Gateway, project: Project, slurm: Slurm, tmp_path: Path
) -> None:
    (submitted,) = started(project, tmp_path / "go", 1)
    through.away = True
    (tmp_path / "go").touch()
    wait_until(lambda: submitted.directory.outcome is not None, 60, "the end of the job")
    slurm.command("scancel", submitted.directory.job_id or "")  # its agent does not wait for the store any more
    wait_until(lambda: not slurm.command("squeue", "--noheader").strip(), 120, "the end in Slurm")
    assert not submitted.directory.delivered.exists()
    through.away = False
    wait_until(submitted.directory.delivered.exists, 90, "the delivery by the watcher")
    client = MlflowClient()
    run = client.get_run(submitted.run_id)
    assert (run.info.status, run.data.tags["gpu_cluster.status"]) == ("FINISHED", "Completed")
    assert Path(client.download_artifacts(submitted.run_id, "logs/rank_0.log")).read_text() == "begun\ndown\n"


def test_a_disk_that_the_job_fills(
    store: MlflowClient, project: Project, slurm: Slurm, mount: Callable[..., Path], home: Path
) -> None:
    disk = mount(home, "-t", "tmpfs", "-o", "size=24m", "none")
    script = f"DISK = {str(disk)!r}\nprint('up', flush=True)\n{FILL}{ENDS['badly']}"
    config = {"scheduler": "slurm", "cpus_per_node": 1}
    submitted = submit(project.script(script), config=config)
    wait_until(lambda: store.get_run(submitted.run_id).info.status == "FAILED", 90, "the end of the run")
    said = store.get_run(submitted.run_id).data.tags["gpu_cluster.failure"]
    assert said.startswith("rank 0 exited with status 1")
    assert said.endswith(f"; no space left in {submitted.directory.path}")
    assert Path(store.download_artifacts(submitted.run_id, "logs/rank_0.log")).read_text().startswith("up\n")
    (disk / "filler").unlink()
    assert submit(project.script("print('room again')\n"), config=config).wait()
    wait_until(lambda: not slurm.command("squeue", "--noheader").strip(), 60, "the end in Slurm")
    wait_until(lambda: watchers(home) == [], 30, "the end of the watcher")
