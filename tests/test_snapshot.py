"""The snapshot of a project: what travels, what stays, and where links lead."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
from pathlib import Path

import pytest

from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.snapshot import take


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    return path


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


def snapshot(folder: Path) -> Path:
    target = folder.parent / "snapshot"
    take(folder, target)
    return target


def test_sources_travel_and_caches_do_not(folder: Path) -> None:
    kept = ["train.py", "a/b/c.txt", ".env", "a/outputs/x", "a/mlruns/x", "conda.yaml", "täglich ☃", ".github/x"]
    left = [".git/HEAD", "a/.git/HEAD", "a/__pycache__/x.pyc", ".ipynb_checkpoints/x", ".mypy_cache/x", ".tox/x"]
    left += ["node_modules/x", "mlruns/0/x", "mlartifacts/x", "outputs/x", "mlflow.db", "mlflow.db-wal", ".hg/x"]
    left += [".gpu-cluster/jobs/x", ".pytest_cache/x", ".ruff_cache/x", ".svn/x", ".nox/x", "mlflow.db-shm"]
    fill(folder, *kept, *left)
    assert names(snapshot(folder)) == set(kept)


def test_contents_modes_and_empty_folders_travel(folder: Path) -> None:
    data = bytes(range(256)) * 1000
    (folder / "data").write_bytes(data)
    (folder / "run.sh").touch(0o755)
    (folder / "empty").mkdir()
    target = snapshot(folder)
    assert (target / "data").read_bytes() == data
    assert os.access(target / "run.sh", os.X_OK)
    assert (target / "empty").is_dir()


def test_a_snapshot_shares_nothing_with_its_project(folder: Path) -> None:
    fill(folder, "train.py")
    target = snapshot(folder)
    with (folder / "train.py").open("a") as handle:
        handle.write("edited")
    assert (target / "train.py").read_text() == "train.py"
    (target / "train.py").write_text("scribbled")
    assert (folder / "train.py").read_text() == "train.pyedited"


@pytest.mark.parametrize("name", ["venv", ".venv", "deep/env", "whatever"])
def test_virtual_environments_stay_by_any_name(folder: Path, name: str) -> None:
    fill(folder, "train.py", f"{name}/pyvenv.cfg", f"{name}/lib/x.py")
    assert names(snapshot(folder)) == {"train.py"}


def test_a_folder_called_like_an_environment_travels(folder: Path) -> None:
    fill(folder, "venv/notes.txt", "env/x.py")
    assert names(snapshot(folder)) == {"venv/notes.txt", "env/x.py"}


def test_sockets_pipes_and_devices_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, "train.py")
    os.mkfifo(folder / "pipe")
    monkeypatch.chdir(folder)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert names(snapshot(folder)) == {"train.py"}


def test_links_inside_stay_links_inside(folder: Path) -> None:
    fill(folder, "a/real", "b/other")
    (folder / "b/link").symlink_to("../a/real")
    (folder / "folder").symlink_to("a")
    (folder / "broken").symlink_to("missing")
    target = snapshot(folder)
    assert os.readlink(target / "b/link") == "../a/real"  # noqa: PTH115 - the text
    assert (target / "b/link").resolve() == target / "a/real"
    assert (target / "folder").resolve() == target / "a"
    assert (target / "broken").is_symlink()
    assert not (target / "broken").exists()


def test_links_that_lead_out_go_on_leading_where_they_led(folder: Path) -> None:
    fill(folder.parent, "data/x", "data/sub/y")
    fill(folder, "a/b/c")
    (folder / "up").symlink_to("../data")
    (folder / "a/b/up").symlink_to("../../../data/sub")
    (folder / "absolute").symlink_to(folder.parent / "data")
    (folder / "file").symlink_to("../data/x")
    target = snapshot(folder)
    assert (target / "up/x").read_text() == "data/x"
    assert (target / "a/b/up/y").read_text() == "data/sub/y"
    assert (target / "absolute/x").read_text() == "data/x"
    assert (target / "file").read_text() == "data/x"
    assert (target / "up").is_symlink()


def test_links_of_a_project_that_is_reached_through_a_link(tmp_path: Path) -> None:
    fill(tmp_path, "real/data/x", "real/project/train.py")
    (tmp_path / "real/project/up").symlink_to("../data")
    (tmp_path / "shortcut").symlink_to("real/project")
    assert (tmp_path / "shortcut/up/x").read_text() == "real/data/x"
    take(tmp_path / "shortcut", tmp_path / "snapshot")
    assert not (tmp_path / "snapshot").is_symlink()
    assert (tmp_path / "snapshot/up/x").read_text() == "real/data/x"


def test_a_relative_project_path_is_fine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder.parent, "data/x")
    fill(folder, "train.py", "outputs/old")
    (folder / "up").symlink_to("../data")
    monkeypatch.chdir(folder)
    take(Path(), folder.parent / "snapshot")
    monkeypatch.chdir("/")
    assert (folder.parent / "snapshot/up/x").read_text() == "data/x"
    assert names(folder.parent / "snapshot") == {"train.py", "up"}


def test_a_ring_of_links_is_no_trap(folder: Path) -> None:
    fill(folder, "a/x")
    (folder / "a/self").symlink_to(".")
    (folder / "a/top").symlink_to("..")
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    assert names(snapshot(folder)) == {"a/x", "a/self", "a/top", "one", "two"}


def test_read_only_files_travel_and_can_be_removed(folder: Path) -> None:
    fill(folder, "a/x")
    (folder / "a/x").chmod(0o400)
    target = snapshot(folder)
    assert stat.S_IMODE((target / "a/x").stat().st_mode) == 0o400
    shutil.rmtree(target)


def test_a_full_target_is_one_line(folder: Path) -> None:
    fill(folder, "train.py")
    fill(folder.parent, "snapshot/x")
    with pytest.raises(ProjectError, match=r"cannot copy the project") as caught:
        snapshot(folder)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("home", [".gpu-cluster", "cluster", "deep/cluster", ".", "link"])
def test_a_home_inside_of_the_project_is_not_copied_into_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    fill(folder, "train.py", "deep/x.py")
    if home == "link":
        fill(folder, "behind/y")
        (folder / "link").symlink_to("behind")
    monkeypatch.setenv("GPU_CLUSTER_HOME", str(folder / home))
    fill(folder / home, "jobs/old/source/train.py", "jobs/old/logs/rank_0.log", "envs/k/lib/x.py", "queue/tickets/1")
    staged, lock = JobDir.stage()
    lock.close()
    limit = sys.getrecursionlimit()
    take(folder, staged.source)
    assert sys.getrecursionlimit() == limit
    assert {name for name in names(staged.source) if name.endswith((".py", ".log"))} == {"train.py", "deep/x.py"}
