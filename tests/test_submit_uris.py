"""Projects by URI from submission to result: Git, zip, subdirectories, and parameters that are downloaded first."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from conftest import Project, finish, submit, wait_until
from mlflow.exceptions import ExecutionException
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.status import Phase

MLPROJECT = "name: toy\nentry_points:\n  main:\n    command: cat data; ls -A\n"
# MLflow's own local backend sets these; ours must say the same. The environment manager's name is ours to choose.
TAGS = ["mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit", "mlflow.source.git.repoURL"]
TAGS += ["mlflow.source.git.branch", "mlflow.project.entryPoint", "mlflow.user"]
FILES = ["MLproject", "data", "outputs"]


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


def test_a_git_project_at_its_versions(store: MlflowClient, home: Path, repository: Path) -> None:
    kept = []
    for version, branch in (("main", "main"), ("side", "side"), ("v1", None)):
        commit = git(repository, "rev-parse", version)
        done = finish(submit(f"file://{repository}", version=version))
        kept.append(done.run.info.run_id)
        assert done.succeeded
        assert done.log.split() == ["repository", "two" if version == "main" else "one", *FILES, "sub"]
        assert done.tags["mlflow.source.git.commit"] == commit
        assert done.tags.get("mlflow.source.git.branch") == branch
        assert not (done.directory.path / "fetch").exists()
    assert set(jobs(home)) == set(kept)


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


@pytest.fixture
def served(repository: Path, tmp_path: Path) -> Iterator[str]:
    """The repository as a server hands it out: MLflow checks out in the repository itself when that is local."""
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(tmp_path / "served" / "toy.git"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = (f"--base-path={tmp_path}/served", "--export-all", "--listen=127.0.0.1", f"--port={port}")
    # Without `--reuseaddr` and a group of its own, its workers outlive it.
    daemon = subprocess.Popen(["git", "daemon", "--reuseaddr", *options], start_new_session=True)
    uri = f"git://127.0.0.1:{port}/toy.git"
    wait_until(lambda: subprocess.run(["git", "ls-remote", uri], capture_output=True, check=False).returncode == 0, 20)
    yield uri
    os.killpg(daemon.pid, signal.SIGTERM)
    daemon.wait()


def test_a_git_projects_tags_are_mlflows(store: MlflowClient, home: Path, repository: Path, served: str) -> None:
    commit = git(repository, "rev-parse", "v1")
    for uri, version in ((f"{served}#sub", "side"), (served, commit), (served, None)):
        expected = tags_by_mlflow(uri, version=version)
        done = finish(submit(uri, version=version))
        assert done.succeeded
        assert {name: done.tags[name] for name in TAGS if name in done.tags} == expected
        assert done.tags["mlflow.source.git.repoURL"] == served


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


def test_what_is_refused_leaves_no_run_and_no_job(
    store: MlflowClient, home: Path, repository: Path, tmp_path: Path
) -> None:
    traversal, link, garbage = (pack(repository, tmp_path / f"{name}.zip") for name in ("traversal", "link", "garbage"))
    with zipfile.ZipFile(traversal, "a") as handle:
        handle.writestr("../../../evil", "x")
    with zipfile.ZipFile(link, "a") as handle:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        handle.writestr(info, "/")
    garbage.write_bytes(b"junk")
    refused = [(str(traversal), None), (f"file://{link}", None), (str(garbage), None), (str(traversal), "main")]
    refused += [(f"file://{repository}", "nope"), (str(repository), "--upload-pack=touch pwned")]
    refused += [("git+file:///nowhere/x.git", None), (f"{repository}#../..", None), (f"{repository}#missing", None)]
    for uri, version in refused:
        with pytest.raises(ExecutionException) as caught:
            submit(uri, version=version)
        assert isinstance(caught.value, ProjectError), uri
        assert len(str(caught.value).splitlines()) == 1
        assert jobs(home) == []
    assert store.search_runs([item.experiment_id for item in store.search_experiments()]) == []
    assert not [path for path in tmp_path.rglob("*") if path.name in {"evil", "pwned"}]


def test_a_path_of_another_run_is_there_before_the_script(
    store: MlflowClient, home: Path, project: Project, tmp_path: Path
) -> None:
    with mlflow.start_run() as source:
        mlflow.log_text("weights ☃", "models/a b/weights.txt")
    uri = f"runs:/{source.info.run_id}/models/a b"
    project.entry("main", "cat {model}/weights.txt; echo; echo {model}; pwd", "{model: path}")
    for storage in (None, tmp_path / "stored" / "deep"):
        done = finish(submit(project, parameters={"model": uri}, **({"storage_dir": str(storage)} if storage else {})))
        assert done.succeeded, done.log
        weights, place, _ = done.log.splitlines()
        assert weights == "weights ☃"
        assert Path(place).is_relative_to(storage or done.directory.path)
        assert done.run.data.params == {"model": uri}
        events = done.directory.events()
        assert events[0].phase is Phase.PREPARING
        assert any(event.message == f"downloading {uri}" for event in events)


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
