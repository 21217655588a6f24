"""Outputs on their way into the artifact store: all of them, in batches that are worth a call, with their progress."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Server
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import artifactcopy, progress, storing
from mlflow_pytorch_estimator.progress import Progress, ProgressFile


class Told(ProgressFile):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.all: list[Progress] = []

    def __call__(self, progress: Progress) -> None:
        super().__call__(progress)
        self.all.append(progress)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number in range(7):
        path = tmp_path / "outputs" / ("deep" if number % 2 else "") / f"{number} a.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * 10 * number)
    return tmp_path / "outputs"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("limit", [(64, 500), (1 << 30, 2), (1 << 30, 500)])
def test_a_server_gets_all_in_batches(
    server: Server, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: tuple[int, int]
) -> None:
    monkeypatch.setattr(storing, "_BATCH_BYTES", limit[0])
    monkeypatch.setattr(storing, "_BATCH_FILES", limit[1])
    client = MlflowClient(server.uri)
    run = client.create_run("0").info.run_id
    told = Told(tmp_path / "progress.json")
    storing.store(client, run, tree, tmp_path, told)
    stored = Path(client.download_artifacts(run, "outputs", str(tmp_path)))
    assert content(stored) == content(tree)
    steps = [item.done for item in told.all]
    assert steps == sorted(steps)
    if limit != (1 << 30, 500):
        assert len(steps) >= 4
        assert (steps[-1], told.all[-1].total) == (210, 210)
    assert progress.read(tmp_path / "progress.json") is None  # it is over
    assert not list(tmp_path.glob("tmp*"))


def test_a_folder_gets_all_and_says_how_far_it_is(store: MlflowClient, tree: Path, tmp_path: Path) -> None:
    run = store.create_run("0").info.run_id
    told = Told(tmp_path / "progress.json")
    storing.store(store, run, tree, tmp_path, told)
    assert content(Path(store.download_artifacts(run, "outputs"))) == content(tree)
    assert [item.done for item in told.all][-1] == 210
    assert len(told.all) == 7


def test_an_upload_that_fails_leaves_no_progress(
    store: MlflowClient, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.create_run("0").info.run_id
    (tmp_path / "progress.json").touch()

    def refuse(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(artifactcopy, "copy_tree", refuse)
    with pytest.raises(OSError, match="full"):
        storing.store(store, run, tree, tmp_path, ProgressFile(tmp_path / "progress.json"))
    assert not (tmp_path / "progress.json").exists()
