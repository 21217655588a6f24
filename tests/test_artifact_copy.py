"""Outputs in a store that is a folder: whole, independent of the originals, and never through links."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_pytorch_estimator.artifactcopy import copy_tree, folder_of


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("/data/0/run/artifacts", "/data/0/run/artifacts"),
        ("/data/what#is 100%?/artifacts", "/data/what#is 100%?/artifacts"),
        ("file:///data/a%20b/artifacts", "/data/a b/artifacts"),
        ("file://localhost/data/artifacts", "/data/artifacts"),
        ("file://elsewhere/data/artifacts", None),
        ("mlruns/0/run/artifacts", None),
        ("mlflow-artifacts:/0/run/artifacts", None),
        ("s3://bucket/run/artifacts", None),
    ],
)
def test_which_stores_are_folders(uri: str, folder: str | None) -> None:
    assert folder_of(uri) == (Path(folder) if folder else None)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    (made / "deep/er").mkdir(parents=True)
    (made / "empty").mkdir()
    for number in range(20):
        (made / "deep/er" / f"{number}.bin").write_bytes(os.urandom(number * 1000))
    (made / "run.sh").write_text("true\n", encoding="utf-8")
    (made / "run.sh").chmod(0o750)
    os.utime(made / "run.sh", ns=(10**18, 10**18 + 7))
    return made


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_copy_is_whole_and_independent(tree: Path, tmp_path: Path) -> None:
    before = content(tree)
    target = tmp_path / "store/outputs"
    copy_tree(tree, target)
    assert content(target) == before
    assert (target / "run.sh").stat().st_mode & 0o777 == 0o750
    assert (target / "run.sh").stat().st_mtime_ns == 10**18 + 7
    with (tree / "deep/er/19.bin").open("r+b") as handle:
        handle.write(b"changed")
    assert content(target) == before


def test_what_is_there_is_replaced_and_never_written_through(tree: Path, tmp_path: Path) -> None:
    before = content(tree)
    target = tmp_path / "store"
    (target / "deep/er").mkdir(parents=True)
    (tmp_path / "victim").write_text("untouched", encoding="utf-8")
    (target / "run.sh").symlink_to(tmp_path / "victim")
    os.link(tree / "deep/er/19.bin", target / "deep/er/19.bin")
    (target / "deep/er/18.bin").write_bytes(b"x" * 10**6)
    (target / "logged by the script").write_text("kept", encoding="utf-8")
    copy_tree(tree, target)
    assert content(tree) == before
    assert content(target) == {**before, "logged by the script": b"kept"}
    assert (tmp_path / "victim").read_text(encoding="utf-8") == "untouched"
    assert not (target / "deep/er/19.bin").samefile(tree / "deep/er/19.bin")


def test_what_cannot_be_stored_is_said_and_the_others_are_stored(tree: Path, tmp_path: Path) -> None:
    os.mkfifo(tree / "deep/pipe")
    (tmp_path / "store/run.sh").mkdir(parents=True)
    with pytest.raises(OSError, match=r"deep/pipe is no regular file|run\.sh"):
        copy_tree(tree, tmp_path / "store")
    stored = content(tmp_path / "store")
    assert {name for name in content(tree) if name not in stored} == {"deep/pipe"}
    assert stored["deep/er/19.bin"] == (tree / "deep/er/19.bin").read_bytes()


def test_folders_in_folders_as_deep_as_a_path_may_be(tmp_path: Path) -> None:
    deep = "/".join("d" * sys.getrecursionlimit())
    try:
        (tmp_path / "tree").mkdir()
        (tmp_path / "store").mkdir()
        subprocess.run(["mkdir", "-p", deep], cwd=tmp_path / "tree", check=True)
        (tmp_path / "tree" / deep / "file").write_text("found", encoding="utf-8")
        copy_tree(tmp_path / "tree", tmp_path / "store")
        assert (tmp_path / "store" / deep / "file").read_text(encoding="utf-8") == "found"
    finally:  # deeper than Python's own removal goes
        subprocess.run(["rm", "-rf", tmp_path / "tree", tmp_path / "store"], check=True)
