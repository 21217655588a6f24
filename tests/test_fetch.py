"""Projects from directories, zip files and Git repositories, with real ones of each."""

from __future__ import annotations

import functools
import http.server
import os
import stat
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.fetch import discard, fetch, locate


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Repository:
    """A repository with two commits, a branch and a tag; the working copy has edits of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "sub").mkdir(parents=True)
        git(path, "init", "--quiet", "--initial-branch=main")
        self.first = self.commit("one")
        git(path, "tag", "v1")
        git(path, "tag", "-a", "v1-annotated", "-m", "first")
        git(path, "branch", "side/line")
        self.second = self.commit("two")
        (path / "tracked").write_text("edited")
        (path / "new").write_text("new")

    def commit(self, text: str) -> str:
        (self.path / "tracked").write_text(text)
        (self.path / "sub" / "inner").write_text(text)
        git(self.path, "add", "tracked", "sub")
        git(self.path, "commit", "--quiet", "-m", text)
        return git(self.path, "rev-parse", "HEAD")

    def state(self) -> tuple[str, ...]:
        """All that must not change."""
        return (
            git(self.path, "status", "--porcelain", "--branch"),
            git(self.path, "for-each-ref"),
            git(self.path, "rev-parse", "--abbrev-ref", "HEAD"),
            git(self.path, "remote", "-v"),
            (self.path / "tracked").read_text(),
        )


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    made = Repository(tmp_path / "repository")
    before = made.state()
    yield made
    assert made.state() == before


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a fetch may write; it must leave nothing anywhere else."""
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setattr(tempfile, "tempdir", None)
    path = tmp_path / "scratch"
    path.mkdir()
    yield path
    assert list(elsewhere.iterdir()) == []


def refused(uri: str, version: str | None, scratch: Path) -> str:
    with pytest.raises(ProjectError) as caught:
        fetch(uri, version, scratch)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message


# Directories


def test_a_directory_is_taken_as_it_is(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for uri in ("a b", "./a b", str(tmp_path / "a b"), f"file://{tmp_path}/a%20b", "~/a b"):
        assert fetch(uri, None, scratch).resolve() == tmp_path / "a b"
        assert fetch(f"{uri}#sub", None, scratch).resolve() == tmp_path / "a b" / "sub"
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("subdirectory", ["../x", "..", "a/../../x", "/etc", "a/../.."])
def test_a_subdirectory_may_not_lead_out(tmp_path: Path, scratch: Path, subdirectory: str) -> None:
    for uri in (tmp_path, f"file://{tmp_path}", "https://example.org/x.git", "x.zip"):
        assert "leads out of the project" in refused(f"{uri}#{subdirectory}", None, scratch)


@pytest.mark.parametrize("uri", ["missing", "file:///missing/x", "--upload-pack=touch pwned", "~nobody-here/x"])
def test_a_missing_directory_is_named(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(uri, None, scratch) == f"there is no project directory {uri}"


def test_a_file_is_no_project(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "file").touch()
    assert "there is no project directory" in refused(str(tmp_path / "file"), None, scratch)
    assert "there is no project directory" in refused(f"{tmp_path}#missing", None, scratch)


def test_a_version_needs_a_repository(tmp_path: Path, scratch: Path) -> None:
    assert "a version can only be given for a Git project" in refused(str(scratch), "main", scratch)
    assert "a version can only be given for a Git project" in refused(str(tmp_path / "missing"), "main", scratch)


def test_uris_are_taken_apart() -> None:
    location = locate("git@example.org:me/x.git#a/b")
    assert (location.base, location.subdirectory, location.local) == ("git@example.org:me/x.git", "a/b", None)
    assert locate("https://example.org/x.zip#a").is_zip
    assert not locate("https://example.org/x.git").is_zip


# Zip files


def make_zip(path: Path, members: dict[str, str], links: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as handle:
        for name, text in members.items():
            handle.writestr(name, text)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            handle.writestr(info, target)
    return path


def test_a_zip_file_is_unpacked_below_the_scratch_folder(tmp_path: Path, scratch: Path) -> None:
    archive = make_zip(tmp_path / "a b.zip", {"MLproject": "name: x", "sub/inner": "i"})
    for number, uri in enumerate((str(archive), f"file://{tmp_path}/a%20b.zip")):
        for part, file in (("", "MLproject"), ("#sub", "inner")):
            folder = scratch / f"{number}{part}"
            folder.mkdir()
            directory = fetch(uri + part, None, folder)
            assert directory.is_relative_to(folder)
            assert (directory / file).is_file()
    discard(scratch)
    assert not scratch.exists()
    scratch.mkdir()


def test_a_zip_file_has_no_versions(tmp_path: Path, scratch: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"x": "y"})
    assert "this is a zip file" in refused(str(archive), "main", scratch)


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil-of-ours", "sub/../../../evil"])
def test_members_that_lead_out_are_refused(tmp_path: Path, scratch: Path, name: str) -> None:
    archive = make_zip(tmp_path / "a.zip", {"fine": "x", name: "evil"})
    message = refused(str(archive), None, scratch)
    assert message == f"the zip file is refused: its member {name!r} leads out of the project"
    assert not list(tmp_path.rglob("*evil*"))
    assert not Path("/evil-of-ours").exists()
    assert list((scratch / "unpacked").iterdir()) == []


def test_links_in_zip_files_are_refused(tmp_path: Path, scratch: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"fine": "x"}, {"link": str(tmp_path)})
    assert "its member 'link' leads out of the project" in refused(str(archive), None, scratch)


def broken(kind: str, path: Path) -> Path:
    make_zip(path, {"MLproject": "name: x\n" * 1000})
    data = bytearray(path.read_bytes())
    if kind == "garbage":
        data = bytearray(b"no zip at all")
    elif kind == "empty":
        data.clear()
    elif kind == "truncated":
        del data[len(data) // 2 :]
    elif kind == "flipped":
        begin = 30 + len("MLproject")
        data[begin : begin + 12] = b"\xff" * 12
    elif kind == "encrypted":
        directory = data.index(b"PK\x01\x02")
        data[6] |= 1
        data[directory + 8] |= 1
    elif kind == "unknown compression":
        directory = data.index(b"PK\x01\x02")
        data[8] = data[directory + 10] = 77
    path.write_bytes(data)
    return path


KINDS = ["garbage", "empty", "truncated", "flipped", "encrypted", "unknown compression"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_zip_file_is_named(tmp_path: Path, scratch: Path, kind: str) -> None:
    path = broken(kind, tmp_path / "a.zip")
    assert refused(str(path), None, scratch).startswith(f"cannot read the zip file {path}: ")


def test_a_missing_zip_file_is_named(tmp_path: Path, scratch: Path) -> None:
    assert "No such file or directory" in refused(str(tmp_path / "a.zip"), None, scratch)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A folder served over HTTP."""
    (tmp_path / "web").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_zip_file_is_downloaded(tmp_path: Path, scratch: Path, web: str) -> None:
    make_zip(tmp_path / "web" / "a.zip", {"MLproject": "name: x", "sub/inner": "i"})
    assert (fetch(f"{web}/a.zip#sub", None, scratch) / "inner").read_text() == "i"


def test_a_download_that_fails_is_one_line_without_the_password(scratch: Path, web: str) -> None:
    with_password = web.replace("http://", "http://me:hunter22@")
    message = refused(f"{with_password}/missing.zip", None, scratch)
    assert message.startswith(f"cannot download {web}/missing.zip: 404")
    assert "hunter22" not in message
    message = refused("http://me:hunter22@127.0.0.1:9/a.zip", None, scratch)
    assert message.startswith("cannot download http://127.0.0.1:9/a.zip: ")
    assert "hunter22" not in message


# Git


def versions(repository: Repository) -> dict[str | None, str]:
    """What may be asked for, and the commit it means."""
    first, second = repository.first, repository.second
    return {
        "main": second,
        "side/line": first,
        "v1": first,
        "v1-annotated": first,
        first: first,
        second: second,
        first[:8]: first,
        second[:7]: second,
        "refs/heads/main": second,
    }


def test_every_kind_of_version_from_a_plain_path_and_a_file_uri(repository: Repository, scratch: Path) -> None:
    sources = {str(repository.path): "plain", f"file://{repository.path}": "uri", f"git+file://{repository.path}": "g"}
    for source, name in sources.items():
        for number, (version, commit) in enumerate(versions(repository).items()):
            folder = scratch / f"{name}{number}"
            folder.mkdir()
            directory = fetch(f"{source}#sub", version, folder)
            assert directory.is_relative_to(folder)
            assert git(directory, "rev-parse", "HEAD") == commit, (source, version)
            assert (directory / "inner").read_text() == ("one" if commit == repository.first else "two")
            assert not (directory.parent / "new").exists()


def test_without_a_version_the_working_copy_is_taken_with_its_edits(repository: Repository, scratch: Path) -> None:
    assert fetch(str(repository.path), None, scratch) == repository.path
    assert list(scratch.iterdir()) == []


def test_a_bare_repository_is_cloned_at_its_head(repository: Repository, scratch: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(repository.path), str(tmp_path / "bare.git"))
    for number, uri in enumerate((str(tmp_path / "bare.git"), f"file://{tmp_path}/bare.git")):
        folder = scratch / str(number)
        folder.mkdir()
        directory = fetch(uri, None, folder)
        assert git(directory, "rev-parse", "HEAD") == repository.second


def test_an_old_commit_of_a_branch_is_found(repository: Repository, scratch: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(repository.path), str(copy))
    directory = fetch(f"file://{copy}", repository.first[:10], scratch)
    assert git(directory, "rev-parse", "HEAD") == repository.first


@pytest.mark.parametrize("version", ["nope", "v2", "0" * 40, "deadbeef", "HEAD~99", "a b", "main..v1", "täglich"])
def test_an_unknown_version_is_one_clear_line(repository: Repository, scratch: Path, version: str) -> None:
    message = refused(f"file://{repository.path}", version, scratch)
    assert message == f"file://{repository.path} has no version {version!r}; give a branch, a tag or a commit".replace(
        f"file://{repository.path}", str(repository.path), 1
    )


@pytest.mark.parametrize("version", ["--upload-pack=touch pwned", "-f", "--help", "-"])
def test_a_version_is_no_option(repository: Repository, scratch: Path, version: str) -> None:
    assert refused(str(repository.path), version, scratch) == f"{version!r} is no Git version"


@pytest.mark.parametrize(
    "uri",
    [
        "git+--upload-pack=touch pwned",
        "git+ext::sh -c touch% pwned",
        "git+-x",
        "ssh://-oProxyCommand=touch%20pwned/x",
        "git@-oProxyCommand=touch pwned:x",
        "git+file:///missing",
        "git+https://127.0.0.1:9/x.git",
        "https://me:hunter22@127.0.0.1:9/x.git",
    ],
)
def test_a_uri_is_no_option_and_a_missing_repository_is_one_line(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(uri, None, scratch)
    assert message.startswith("cannot fetch ")
    assert "hunter22" not in message
    assert not list(tmp_path.rglob("pwned*"))


def test_a_repository_without_commits_is_one_line(tmp_path: Path, scratch: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", str(tmp_path / "empty.git"))
    assert str(tmp_path / "empty.git") in refused(f"file://{tmp_path}/empty.git", None, scratch)


def test_a_git_hook_may_submit(repository: Repository, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git sets these variables for hooks and for ``rebase --exec``; they must not lead us to the user's repository."""
    monkeypatch.setenv("GIT_DIR", str(repository.path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(repository.path))
    monkeypatch.setenv("GIT_INDEX_FILE", str(repository.path / ".git" / "index"))
    try:
        directory = fetch(str(repository.path), "v1", scratch)
    finally:
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
            monkeypatch.delenv(name)
    assert (directory / "tracked").read_text() == "one"


def test_without_git_the_reason_is_named(
    repository: Repository, scratch: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in refused(str(repository.path), "v1", scratch)
    monkeypatch.setenv("PATH", path)
