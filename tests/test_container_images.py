"""Where the image of a job comes from: this machine, or a registry; a real podman and a registry of the test's own."""

from __future__ import annotations

from pathlib import Path

from conftest import Finished, Project, finish, processes_with, submit, wait_until
from images import Registry, containers_of
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun


def start(
    project: Project, image: str, command: str = "echo it runs", declared: str = "", **options: object
) -> GpuClusterSubmittedRun:
    project.entry("main", command, declared)
    path = project.path / "MLproject"
    path.write_text(f"docker_env: {{image: '{image}'}}\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
    return submit(project, env_manager=None, **options)


def said(done: Finished, phase: Phase) -> list[str]:
    return [event.message for event in done.directory.events() if event.phase is phase]


def test_an_image_that_is_here_needs_no_preparing(store: MlflowClient, project: Project, image: str) -> None:
    done = finish(start(project, image))
    assert done.log == "it runs\n"
    assert said(done, Phase.PREPARING) == []


def test_an_image_is_pulled_once(store: MlflowClient, project: Project, registry: Registry) -> None:
    done = finish(start(project, registry.image))
    assert (done.succeeded, done.log) == (True, "it runs\n")
    first, *layers, ready = said(done, Phase.PREPARING)
    assert first == ""
    assert layers == [f"pulling {registry.image} with podman", f"pulling layer 1 of {registry.image}"]
    assert ready.startswith(f"image {registry.image} ready in ")
    assert registry.image_id in done.artifact("gpu_cluster/environment.txt")
    assert "Copying blob" in done.artifact("logs/environment.log")
    requests = len(registry.requests)
    again = finish(start(project, registry.image))
    assert again.succeeded
    assert said(again, Phase.PREPARING) == []
    assert len(registry.requests) == requests
    newer = finish(start(project, registry.image, config={"upgrade_environment": True}))
    assert newer.succeeded
    assert len(registry.requests) > requests


def test_a_pull_can_be_canceled(store: MlflowClient, project: Project, registry: Registry) -> None:
    registry.released.clear()
    submitted = start(project, registry.image)
    wait_until(lambda: any("/blobs/" in path for path in registry.requests), 60, "the layer is asked for")
    assert processes_with(f"pull\0{registry.image}") != []
    submitted.cancel()
    done = finish(submitted)
    assert done.tags["gpu_cluster.status"] == "Canceled"
    assert processes_with(f"pull\0{registry.image}") == []
    assert "gpu_cluster/environment.txt" not in done.files()


def test_an_image_that_cannot_be_pulled_is_the_reason(store: MlflowClient, project: Project, image: str) -> None:
    submitted = start(project, "localhost/gpu-cluster-tests-none:1")
    wait_until(submitted.directory.delivered.exists, 60, "the preparer's last word")
    done = finish(submitted)
    assert done.run.info.status == "FAILED"
    assert "cannot pull the image localhost/gpu-cluster-tests-none:1 with podman: " in done.tags["gpu_cluster.failure"]
    assert "podman login" in done.tags["gpu_cluster.failure"]
    assert "gpu_cluster/environment.txt" not in done.files()  # not that of the interpreter that submits


def test_what_the_runtime_complains_of_is_the_reason(
    store: MlflowClient, project: Project, image: str, tmp_path: Path
) -> None:
    done = finish(start(project, image, docker_args={"volume": f"{tmp_path}/none:/x"}))
    assert done.tags["gpu_cluster.exit_code"] == "125"
    reason = done.tags["gpu_cluster.failure"]
    assert reason.startswith("rank 0 exited with status 125 (podman: ")
    assert f"{tmp_path}/none" in reason
    assert containers_of(done.run.info.run_id) == []


def test_downloads_to_a_folder_of_their_own_are_mounted(
    store: MlflowClient, project: Project, image: str, tmp_path: Path
) -> None:
    with_artifact = store.create_run("0").info.run_id
    store.log_text(with_artifact, "from the store\n", "data.txt")
    (tmp_path / "storage").mkdir()
    data = {"data": f"runs:/{with_artifact}/data.txt"}
    storage = str(tmp_path / "storage")
    command = "cat {data}; cat /proc/mounts"
    done = finish(start(project, image, command, "{data: path}", parameters=data, storage_dir=storage))
    text, *mounts = done.log.splitlines()
    assert text == "from the store"
    assert [line for line in mounts if f" {tmp_path}/storage/{done.run.info.run_id}/" in line] != []
