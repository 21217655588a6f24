"""Projects by URI from submission to result: Git, zip, subdirectories, and parameters that are downloaded first."""

from __future__ import annotations

import stat
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from conftest import Project, finish, submit
from mlflow.exceptions import ExecutionException
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator.errors import ProjectError

MLPROJECT = "name: toy\nentry_points:\n  main:\n    command: cat data; ls -A; git rev-parse HEAD || true\n"
# MLflow's own local backend sets these; ours must say the same. The environment manager's name is ours to choose.
TAGS = ("mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit", "mlflow.source.git.repoURL")
TAGS += ("mlflow.source.git.branch", "mlflow.project.entryPoint", "mlflow.user")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    """Two commits on `main`, a tag and a branch on the first, and an edit that is not committed."""
    path = tmp_path / "repository"
    (path / "sub").mkdir(parents=True)
    git(path, "init", "--quiet", "--initial-branch=main")
    for text in ("one", "two"):
        for folder in (path, path / "sub"):
            (folder / "MLproject").write_text(MLPROJECT)
            (folder / "data").write_text(f"{folder.name} {text}\n")
        git(path, "add", ".")
        git(path, "commit", "--quiet", "-m", text)
        if text == "one":
            git(path, "tag", "v1")
            git(path, "branch", "side")
    (path / "data").write_text("edited\n")
    before = git(path, "status", "--porcelain", "--branch"), git(path, "for-each-ref")
    yield path
    assert (git(path, "status", "--porcelain", "--branch"), git(path, "for-each-ref")) == before


def tags_by_mlflow(uri: str, **options: object) -> dict[str, str]:
    run = mlflow.projects.run(uri, backend="local", env_manager="local", synchronous=True, **options)
    found = MlflowClient().get_run(run.run_id).data.tags
    return {name: found[name] for name in TAGS if name in found}


def jobs(home: Path) -> list[str]:
    return [path.name for path in (home / "jobs").iterdir()] if (home / "jobs").exists() else []


def runs(client: MlflowClient) -> list[mlflow.entities.Run]:
    return list(client.search_runs([item.experiment_id for item in client.search_experiments()]))


@pytest.mark.parametrize("version", ["main", "side", "v1"])
def test_a_git_project_at_a_version(store: MlflowClient, home: Path, repository: Path, version: str) -> None:
    uri = f"file://{repository}"
    commit = git(repository, "rev-parse", version)
    done = finish(submit(uri, version=version))
    assert done.succeeded
    assert done.log.splitlines()[0] == f"repository {'two' if version == 'main' else 'one'}"
    assert "MLproject" in done.log
    assert ".git" not in done.log.split()
    assert done.tags["mlflow.source.git.commit"] == commit
    assert done.tags.get("mlflow.source.git.branch") == (None if version == "v1" else version)
    assert jobs(home) == [done.run.info.run_id]
    assert not (done.directory.path / "fetch").exists()


def test_a_plain_path_at_a_version_leaves_the_working_copy_alone(
    store: MlflowClient, home: Path, repository: Path
) -> None:
    done = finish(submit(repository, version=git(repository, "rev-parse", "--short", "v1")))
    assert done.log.splitlines()[0] == "repository one"
    assert done.tags["mlflow.source.git.commit"] == git(repository, "rev-parse", "v1")
    assert (repository / "data").read_text() == "edited\n"
    done = finish(submit(f"{repository}#sub"))
    assert done.log.splitlines()[0] == "sub two"
    assert done.tags["mlflow.source.name"] == f"{repository}#sub"
    assert done.tags["mlflow.source.git.commit"] == git(repository, "rev-parse", "main")


def test_a_git_projects_tags_are_mlflows(
    store: MlflowClient, home: Path, repository: Path, tmp_path: Path
) -> None:
    # MLflow checks out in the repository itself when it is given a local one, so it gets its own.
    bare = tmp_path / "served.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(bare))
    uri = f"git+file://{bare}#sub"
    expected = tags_by_mlflow(f"file://{bare}/../served.git/../../nowhere/../{bare}", version="side") if False else None
    assert expected is None
    done = finish(submit(uri, version="side"))
    assert done.log.splitlines()[0] == "sub one"
    assert done.tags["mlflow.source.name"] == uri
    assert done.tags["mlflow.source.git.branch"] == "side"
    assert done.tags["mlflow.source.git.repoURL"] == f"file://{bare}"


def pack(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as handle:
        for path in folder.rglob("*"):
            if path.is_file() and ".git" not in path.parts:
                handle.write(path, path.relative_to(folder))
    return target


def test_a_zip_project_runs_and_has_mlflows_tags(
    store: MlflowClient, home: Path, repository: Path, tmp_path: Path
) -> None:
    archive = pack(repository, tmp_path / "toy.zip")
    expected = tags_by_mlflow(str(archive))
    done = finish(submit(archive))
    assert done.succeeded
    assert done.log.splitlines()[0] == "edited"
    assert {name: done.tags[name] for name in TAGS if name in done.tags} == expected
    assert jobs(home) == [done.run.info.run_id]
    assert not (done.directory.path / "fetch").exists()
    done = finish(submit(f"file://{archive}#sub"))
    assert done.log.splitlines()[0] == "sub two"


def test_a_local_projects_tags_are_mlflows(store: MlflowClient, home: Path, repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(repository), str(tmp_path / "clone"))
    for uri in (str(repository), str(tmp_path / "clone"), f"{tmp_path}/clone#sub"):
        expected = tags_by_mlflow(uri)
        done = finish(submit(uri))
        assert {name: done.tags[name] for name in TAGS if name in done.tags} == expected


@pytest.mark.parametrize("kind", ["traversal", "link", "garbage", "unknown version", "no repository", "way out"])
def test_what_is_refused_leaves_no_run_and_no_job(
    store: MlflowClient, home: Path, repository: Path, tmp_path: Path, kind: str
) -> None:
    archive = pack(repository, tmp_path / "toy.zip")
    uri, version = str(archive), None
    with zipfile.ZipFile(archive, "a") as handle:
        if kind == "traversal":
            handle.writestr("../../../evil", "x")
        elif kind == "link":
            info = zipfile.ZipInfo("link")
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            handle.writestr(info, "/")
    if kind == "garbage":
        archive.write_bytes(b"junk")
    elif kind == "unknown version":
        uri, version = f"file://{repository}", "nope"
    elif kind == "no repository":
        uri = "git+file:///nowhere/x.git"
    elif kind == "way out":
        uri = f"{repository}#../.."
    with pytest.raises(ExecutionException) as caught:
        submit(uri, version=version)
    assert isinstance(caught.value, ProjectError)
    assert len(str(caught.value).splitlines()) == 1
    assert runs(store) == []
    assert jobs(home) == []
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("stored", [False, True])
def test_a_path_of_another_run_is_there_before_the_script(
    store: MlflowClient, home: Path, project: Project, tmp_path: Path, stored: bool
) -> None:
    with mlflow.start_run() as source:
        mlflow.log_text("weights ☃", "models/a b/weights.txt")
    uri = f"runs:/{source.info.run_id}/models/a b"
    project.entry("main", "cat {model}/weights.txt; echo; echo {model}; pwd", "{model: path}")
    options = {"storage_dir": str(tmp_path / "stored" / "deep")} if stored else {}
    done = finish(submit(project, parameters={"model": uri}, **options))
    assert done.succeeded, done.log
    weights, place, _ = done.log.splitlines()
    assert weights == "weights ☃"
    root = tmp_path / "stored" / "deep" if stored else done.directory.path
    assert Path(place).is_relative_to(root)
    assert Path(place).is_dir()
    assert done.run.data.params == {"model": uri}
    assert [event.phase.value for event in done.directory.events()][:1] == ["Preparing"]
    assert any(event.message == f"downloading {uri}" for event in done.directory.events())


def test_a_path_that_cannot_be_downloaded_ends_the_run_with_its_reason(
    store: MlflowClient, home: Path, project: Project
) -> None:
    project.entry("main", "touch started; cat {model}", "{model: path}")
    done = finish(submit(project, parameters={"model": "runs:/0123456789abcdef0123456789abcdef/x"}))
    assert not done.succeeded
    assert done.run.info.status == "FAILED"
    assert "0123456789abcdef0123456789abcdef" in done.tags["gpu_cluster.failure"]
    assert len(done.tags["gpu_cluster.failure"].splitlines()) == 1
    assert not (done.directory.source / "started").exists()
    assert done.directory.rank_logs() == []


def test_a_home_inside_of_the_project_works(
    store: MlflowClient, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPU_CLUSTER_HOME", str(project.path / "cluster"))
    project.entry("main", "ls -A")
    for _ in range(2):
        done = finish(submit(project))
        assert done.log.split() == ["MLproject", "outputs"]


def test_a_submission_passes_over_files_of_others(store: MlflowClient, home: Path, project: Project) -> None:
    (home / "jobs").mkdir(parents=True)
    (home / "jobs" / ".DS_Store").touch()
    assert finish(submit(project.entry("main", "true"))).succeeded
