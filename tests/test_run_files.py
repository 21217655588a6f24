"""The files of a run: what is listed, saved and stored, and that nothing leaves its folder."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
from conftest import Server
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mlflow.entities import FileInfo
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from mlflow_pytorch_estimator.errors import GpuClusterError, UnknownRunError
from mlflow_pytorch_estimator.estimator.artifacts.names import clean
from mlflow_pytorch_estimator.estimator.artifacts.run_files import RunFiles
from mlflow_pytorch_estimator.estimator.artifacts.tree import fetch
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.tracking import Stores

# Each stands for one way out of a folder, or for a name that MLflow would store as another one.
REFUSED = [
    "",
    ".",
    "./",
    "..",
    "../x",
    "a/../../x",
    "a/..",
    "/etc/passwd",
    "//x",
    "a\\b",
    "..\\x",
    "C:x",
    "c:\\x",
    "file:x",
    "a\0b",
    "a\nb",
    "a#b",
    "a?b",
    "a;",
    "f/;",
    "..a/b",
    "http:x",
    "Ab:x",
    "http://[",
    "%2e%2e/x",
    "a%2Fb",
    " a",
    "a ",
    "x" * 256,
    "\ud800",
]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stores, str]]:
    """One store for all tests here; MLflow's current ones cannot be reached, so that using them shows."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri("http://127.0.0.1:1")
    mlflow.set_registry_uri("http://127.0.0.1:1")
    stores = Stores(uri, uri)
    yield stores, stores.client().create_experiment("files", (folder / "artifacts").as_uri())
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


@pytest.fixture
def files(experiment: tuple[Stores, str]) -> RunFiles:
    stores, experiment_id = experiment
    return RunFiles(stores, stores.client().create_run(experiment_id).info.run_id)


def put(files: RunFiles, **contents: str) -> None:
    for name, text in contents.items():
        files.upload_file(name.replace("__", "/"), io.StringIO(text))


def artifact_folder(files: RunFiles) -> Path:
    return Path(files._tree().run.info.artifact_uri.removeprefix("file://"))


def logged_model(files: RunFiles, tmp_path: Path, name: str, text: str, status: str = "READY") -> None:
    client = files._client
    model = client.create_logged_model(files._tree().run.info.experiment_id, name=name, source_run_id=files._run_id)
    folder = tmp_path / model.model_id
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text(text)
    (folder / "data" / "weights").write_text(text)
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, status)


def test_names_are_all_files_those_of_logged_models_included(files: RunFiles, tmp_path: Path) -> None:
    assert files.names() == []
    put(files, top="1", outputs__deep__er="2", outputs__b="3", net__MLmodel="the run's own")
    logged_model(files, tmp_path, "net", "old")
    logged_model(files, tmp_path, "net", "new")
    logged_model(files, tmp_path, "half", "not finished", status="FAILED")
    assert files.names() == ["net/MLmodel", "net/data/weights", "outputs/b", "outputs/deep/er", "top"]
    assert files.read_text("net/data/weights") == "new"
    assert files.read_text("net/MLmodel") == "the run's own"
    saved = files.download_many("net", tmp_path / "saved")
    assert [path.read_text() for path in saved] == ["the run's own", "new"]


def test_a_deleted_and_an_unknown_run_say_so(files: RunFiles) -> None:
    files._client.delete_run(files._run_id)
    with pytest.raises(UserErrorException, match=r"deleted.*mlflow runs restore"):
        files.names()
    with pytest.raises(UserErrorException, match="deleted"):
        files.upload_file("a", io.StringIO("x"))
    with pytest.raises(UnknownRunError, match="nowhere"):
        RunFiles(files._stores, "nowhere").names()


def test_download_goes_where_it_is_told(files: RunFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(files, outputs__model="content")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert files.download("./outputs//model") == here / "model"
    assert files.download("outputs/model", "new/") == here / "new" / "model"
    assert files.download("outputs/model", here / "new") == here / "new" / "model"
    assert files.download("outputs/model", "deep/er/name.txt") == here / "deep" / "er" / "name.txt"
    (here / "old").write_text("old")
    files.download("outputs/model", "old")
    assert {path.read_text() for path in here.rglob("*") if path.is_file()} == {"content"}


def test_download_refuses_what_is_not_one_file(files: RunFiles, tmp_path: Path) -> None:
    put(files, outputs__model="content")
    with pytest.raises(UserErrorException, match=r"no file 'outputs/other'; it has 'outputs/model'"):
        files.download("outputs/other")
    with pytest.raises(UserErrorException, match="download_files"):
        files.download("outputs")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserErrorException, match="is a file"):
        files.download("outputs/model", tmp_path / "file" / "below")


def test_a_failed_download_leaves_the_old_file(
    files: RunFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(files, model="new")
    target = tmp_path / "target"
    target.mkdir()
    (target / "model").write_text("old")

    def half(self: Any, name: str, path: str) -> None:
        Path(path).write_text("ne")
        raise OSError("the line broke")

    monkeypatch.setattr(LocalArtifactRepository, "_download_file", half)
    with pytest.raises(GpuClusterError, match="the line broke"):
        files.download("model", target)
    assert [(path.name, path.read_text()) for path in target.iterdir()] == [("model", "old")]


def test_download_many_keeps_or_cuts_the_prefix(files: RunFiles, tmp_path: Path) -> None:
    put(files, outputs__a="1", outputs__b__c="2", outputs2__a="3", logs__a="4")

    def saved(folder: str, **options: Any) -> set[str]:
        paths = files.download_many(output_directory=tmp_path / folder, **options)
        assert all(path.is_file() for path in paths)
        return {str(path.relative_to(tmp_path / folder)) for path in paths}

    assert saved("1") == {"outputs/a", "outputs/b/c", "outputs2/a", "logs/a"}
    assert saved("2", prefix="outputs/") == {"outputs/a", "outputs/b/c"}
    assert saved("3", prefix="outputs", append_prefix=False) == {"a", "b/c"}
    assert saved("4", prefix="outp", append_prefix=False) == {"outputs/a", "outputs/b/c", "outputs2/a"}
    assert saved("5", prefix="outputs/b", output_paths=["given"]) == {"given"}
    assert (tmp_path / "5" / "given").read_text() == "2"


def test_download_many_refuses_what_cannot_be_right(files: RunFiles, tmp_path: Path) -> None:
    put(files, outputs__a="1", outputs__b="2")
    target = tmp_path / "target"
    for options, message in (
        ({"prefix": "nothing"}, "has no files below 'nothing'; it has 'outputs/a'"),
        ({"output_paths": ["one"]}, "list of 2 paths"),
        ({"output_paths": ["same", "same"]}, "under one name"),
        ({"output_paths": ["../out", "b"]}, "could lead out"),
        ({"prefix": "../outputs"}, "could lead out"),
    ):
        with pytest.raises(UserErrorException, match=message):
            files.download_many(output_directory=target, **options)
    assert not target.exists()


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    before = sorted(folder.rglob("*"))
    yield
    assert sorted(folder.rglob("*")) == before


def test_a_link_in_the_target_leads_nowhere_else(files: RunFiles, tmp_path: Path) -> None:
    put(files, outputs__a="1")
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (target / "outputs").symlink_to(outside)
    (target / "a").symlink_to(outside / "a")
    with untouched(outside):
        with pytest.raises(UserErrorException, match="through a link"):
            files.download_many(output_directory=target)
        with pytest.raises(UserErrorException, match="through a link"):
            files.download("outputs/a", target / "a")
        with pytest.raises(UserErrorException, match="through a link"):
            files.download("outputs/a", target)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "a\\evil"])
def test_names_of_the_server_are_not_trusted(
    files: RunFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    put(files, good="1")
    monkeypatch.setattr(LocalArtifactRepository, "list_artifacts", lambda *_: [FileInfo(name, False, 1)])
    monkeypatch.setattr(LocalArtifactRepository, "_download_file", lambda _, name, path: Path(path).write_text(name))
    target = tmp_path / "in" / "target"
    with pytest.raises(UserErrorException):
        files.download_many(output_directory=target)
    assert not list(tmp_path.rglob("*evil*"))
    assert not target.exists()


def test_one_bad_name_of_a_logged_model_stops_the_whole_download(files: RunFiles, tmp_path: Path) -> None:
    put(files, good="1")
    logged_model(files, tmp_path, "net", "text")
    (model,) = files._tree().models
    Path(model.uri.removeprefix("file://"), "a;").write_text("x")
    with pytest.raises(UserErrorException, match="'net/a;'"):
        files.download_many(output_directory=tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_the_last_step_checks_names_by_itself(files: RunFiles, tmp_path: Path) -> None:
    put(files, good="1")
    with pytest.raises(UserErrorException, match="could lead out"):
        fetch(files._tree().own.repository, {"good": tmp_path / "good", "../good": tmp_path / "bad"})
    assert not (tmp_path / "good").exists()


def test_a_listing_that_never_ends_ends(files: RunFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {None: ["", "a"], "a": ["a", "b", "a/x"], "a/x": ["a", "a/x"]}
    monkeypatch.setattr(
        LocalArtifactRepository,
        "list_artifacts",
        lambda _, path=None: [FileInfo(name, True, None) for name in entries[path]],
    )
    assert files.names() == []


@pytest.mark.parametrize("name", REFUSED)
def test_refused_names_change_nothing(files: RunFiles, tmp_path: Path, name: str) -> None:
    put(files, a="1")
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserErrorException):
        files.download(name, tmp_path / "target" / "x")
    with pytest.raises(UserErrorException):
        files.upload_file(name, source / "f")
    with pytest.raises(UserErrorException):
        files.upload_files(["good", name], [source / "f", source / "f"])
    if name not in {"", ".", "./"}:  # the top folder of the run
        with pytest.raises(UserErrorException):
            files.upload_folder(name, source)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_that_mlflow_reads_as_another_is_not_downloaded_as_that(files: RunFiles, tmp_path: Path) -> None:
    put(files, a="the other file")
    (artifact_folder(files) / "a;").write_text("this file")
    for attempt in (files.download_many, lambda **_: files.download("a;", tmp_path / "target" / "x")):
        with pytest.raises(UserErrorException, match="read it as 'a'"):
            attempt(output_directory=tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_upload_takes_files_and_streams(files: RunFiles, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_text("file")
    (tmp_path / "link").symlink_to(local)
    text = io.StringIO("read before, täxt")
    text.read(len("read before, "))
    files.upload_file("a/renamed.txt", local)
    files.upload_file("b", io.BytesIO(b"bytes" * 500_000))
    files.upload_file("c", text)
    files.upload_file("d", str(tmp_path / "link"))
    files.upload_file("a/renamed.txt", io.StringIO("replaced"))
    assert files.names() == ["a/renamed.txt", "b", "c", "d"]
    assert [files.read_text(name) for name in "bcd"] == ["bytes" * 500_000, "täxt", "file"]
    assert files.read_text("a/renamed.txt") == "replaced"
    assert not (artifact_folder(files) / "d").is_symlink()
    for path, message in ((tmp_path / "none", "does not exist"), (tmp_path, "upload_folder"), (b"x", "must be")):
        with pytest.raises(UserErrorException, match=message):
            files.upload_file("e", path)  # type: ignore[arg-type]
    with pytest.raises(UserErrorException, match="one length"):
        files.upload_files(["x"], [])
    with pytest.raises(GpuClusterError, match="cannot store 'b/below'"):
        files.upload_file("b/below", local)


def test_upload_folder_follows_links_inside_only(files: RunFiles, tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (folder / "sub" / "real").write_text("real")
    files.upload_folder("plain", folder)
    (folder / "zagain").symlink_to(folder / "sub")
    (folder / "file").symlink_to("sub/real")
    files.upload_folder("linked", folder)
    assert files.names() == ["linked/file", "linked/sub/real", "linked/zagain/real", "plain/sub/real"]
    assert not any(path.is_symlink() for path in artifact_folder(files).rglob("*"))
    for name, target, message in (
        ("out", outside, "leads out of the folder"),
        ("secret", outside / "secret", "leads out of the folder"),
        ("gone", folder / "none", "leads nowhere"),
        ("self", folder / "self", "leads nowhere"),
        ("loop", folder, "that it lies in"),
    ):
        link = folder / "sub" / name
        link.symlink_to(target)
        with pytest.raises(UserErrorException, match=f"sub/{name}.*{message}"):
            files.upload_folder("bad", folder)
        link.unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(UserErrorException, match="'pipe' is neither"):
        files.upload_folder("bad", folder)
    with pytest.raises(UserErrorException, match="does not exist"):
        files.upload_folder("bad", tmp_path / "none")
    assert not any(name.startswith("bad") for name in files.names())


PARTS = (
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
    | st.text(st.sampled_from(";:%#?~[]@&=+,.$!*'()<>|^`{} aZ09-_"), min_size=1, max_size=5)
    | st.sampled_from(["..", ".", "C:", "%2e", "http:", "file:", "a;"])
)
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES)
@example(name=";")
def test_an_accepted_name_round_trips_and_stays_inside(files: RunFiles, name: str) -> None:
    try:
        wanted = clean(name, "file")
    except UserErrorException:
        with pytest.raises(UserErrorException):
            files.upload_file(name, io.StringIO(name))
        return
    with tempfile.TemporaryDirectory() as scratch:
        alone = RunFiles(files._stores, files._client.create_run(files._tree().run.info.experiment_id).info.run_id)
        alone.upload_file(name, io.StringIO(name))
        assert alone.names() == [wanted]
        (path,) = alone.download_many(output_directory=scratch)
        assert path == Path(scratch).resolve() / wanted
        assert path.read_bytes().decode() == name


def test_the_same_through_a_server(server: Server, tmp_path: Path) -> None:
    files = RunFiles(Stores(server.uri, server.uri), server.client.create_run("0").info.run_id)
    names = [
        *("plain", "a b/c d", "a%b", "a;b", "a+b", "a&b=c", "'q'", '"d"', "x:y", ".hidden", "-x", "a..b", "..."),
        *("~x", "<>|*", "[x]", "@", "a,b", "x" * 200, "ep:och:1"),
    ]
    if not mlflow.__version__.startswith("3.8."):  # its server answers 500 for what is not ASCII
        names += ["ä/ü", "\U0001f600", "\u2028"]
    accepted = []
    for index, name in enumerate(names):
        try:
            clean(f"f{index}/{name}", "file")
        except UserErrorException:
            continue
        accepted.append(f"f{index}/{name}")
    assert len(accepted) > 15
    source = tmp_path / "source"
    for name in accepted:
        (source / name).parent.mkdir(parents=True)
        (source / name).write_text(name)
    files.upload_folder("outputs", source)
    logged_model(files, tmp_path, "net", "model")
    expected = sorted([*(f"outputs/{name}" for name in accepted), "net/MLmodel", "net/data/weights"])
    assert files.names() == expected
    saved = files.download_many(prefix="outputs", output_directory=tmp_path / "target", append_prefix=False)
    assert {str(path.relative_to(tmp_path / "target")): path.read_text() for path in saved} == {
        name: name for name in accepted
    }
    assert files.download("net/data/weights", tmp_path / "weights").read_text() == "model"
    with pytest.raises(UserErrorException, match="no file 'net/none'"):
        files.download("net/none")
    with pytest.raises(UserErrorException, match="download_files"):
        files.download("net/data")
