"""Projects from a directory, a Git repository or a zip file, as MLflow names them: ``URI[#subdirectory]``.

MLflow's own function would check a version out in the user's working copy and leaves its temporary folders behind.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import subprocess
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.secretvalues import without_password

_GIT_URI = re.compile(r"^(git@|ssh://|git://|git\+|https?://|file://)")
_TIMEOUT_SECONDS = 60
# What zipfile raises for damaged, encrypted or exotic archives.
_BROKEN_ZIP = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
# Set for hooks and `rebase --exec`, they would lead git to the user's own repository.
_GIT_PLACES = frozenset(
    {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"}
    | {"GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE"}
)


@dataclass(frozen=True)
class Location:
    """A project URI taken apart."""

    base: str
    subdirectory: str

    @property
    def local(self) -> Path | None:
        """The path, when the URI is one on this machine."""
        if self.base.startswith("file://"):
            return Path(unquote(urlsplit(self.base).path))
        return None if _GIT_URI.match(self.base) else Path(os.path.expanduser(self.base)).absolute()  # noqa: PTH111 - pathlib raises for unknown users

    @property
    def is_zip(self) -> bool:
        """Whether it names a zip file."""
        return self.base.endswith(".zip")


def top_of(uri: str, directory: Path) -> Path:
    """The root of what was fetched, for the directory that ``fetch`` returned."""
    parts = Path(locate(uri).subdirectory).parts
    return directory.parents[len(parts) - 1] if parts else directory


def locate(uri: str) -> Location:
    """Take a project URI apart; the subdirectory may not lead out of the project."""
    base, _, subdirectory = uri.partition("#")
    if ".." in Path(subdirectory).parts or Path(subdirectory).is_absolute():
        raise ProjectError(f"the subdirectory in {without_password(uri)!r} leads out of the project")
    return Location(base, subdirectory)


def fetch(uri: str, version: str | None, scratch: Path) -> Path:
    """The project's directory: the user's own for a plain path, else a copy under ``scratch``."""
    location = locate(uri)
    if location.is_zip:
        if version is not None:
            raise ProjectError("a version can only be given for a Git project, and this is a zip file")
        root = _from_zip(location, scratch)
    elif location.local is not None and version is None and not _is_bare(location.local):
        root = location.local
    else:
        root = _from_git(location, version, scratch)
    directory = root / location.subdirectory
    if not directory.is_dir():
        raise ProjectError(f"there is no project directory {without_password(uri)}")
    return directory


def _is_bare(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir()


def _from_zip(location: Location, scratch: Path) -> Path:
    archive = location.local or _download(location.base, scratch / "project.zip")
    target = scratch / "unpacked"
    target.mkdir()
    try:
        with zipfile.ZipFile(archive) as handle:
            for member in handle.infolist():
                _check_member(member, target)
            handle.extractall(target)
    except _BROKEN_ZIP as error:
        raise ProjectError(f"cannot read the zip file {without_password(location.base)}: {error}") from error
    return target


def _check_member(member: zipfile.ZipInfo, target: Path) -> None:
    path = (target / member.filename).resolve()
    if not path.is_relative_to(target.resolve()) or stat.S_ISLNK(member.external_attr >> 16):
        raise ProjectError(f"the zip file is refused: its member {member.filename!r} leads out of the project")


def _download(url: str, target: Path) -> Path:
    import requests

    try:
        with (
            requests.get(url, stream=True, timeout=_TIMEOUT_SECONDS) as response,
            target.open("wb") as handle,
        ):
            response.raise_for_status()
            shutil.copyfileobj(response.raw, handle)
    except (requests.RequestException, OSError) as error:
        raise ProjectError(f"cannot download {without_password(url)}: {without_password(str(error))}") from error
    return target


def _from_git(location: Location, version: str | None, scratch: Path) -> Path:
    source = str(location.local) if location.local is not None else location.base.removeprefix("git+")
    if location.local is not None and not (_is_bare(location.local) or (location.local / ".git").exists()):
        raise ProjectError(f"a version can only be given for a Git project, and {location.local} is none")
    if version is not None and version.startswith("-"):
        raise ProjectError(f"{version!r} is no Git version")
    target = scratch / "repository"
    _git(source, "init", "--quiet", str(target))
    _git(source, "-C", str(target), "remote", "add", "origin", source)
    wanted = version or "HEAD"
    if not _fetched(target, wanted):
        # A short hash, or a server that hands out no single commits.
        _git(
            source,
            "-C",
            str(target),
            "fetch",
            "--quiet",
            "--tags",
            "origin",
            "+refs/heads/*:refs/remotes/origin/*",
        )
        wanted = _resolve(source, target, wanted)
    else:
        wanted = "FETCH_HEAD"
    _git(source, "-C", str(target), "checkout", "--quiet", "--detach", wanted)
    if version is not None and f"\tbranch '{version}' of " in (target / ".git" / "FETCH_HEAD").read_text("utf-8"):
        _git(source, "-C", str(target), "branch", "--force", version)  # where MLflow looks for the branch's name
    _git(source, "-C", str(target), "submodule", "--quiet", "update", "--init", "--recursive")
    return target


def _fetched(target: Path, wanted: str) -> bool:
    return _run("-C", str(target), "fetch", "--quiet", "--depth=1", "origin", wanted).returncode == 0


def _resolve(source: str, target: Path, wanted: str) -> str:
    for candidate in (wanted, f"refs/remotes/origin/{wanted}"):
        found = _run("-C", str(target), "rev-parse", "--quiet", "--verify", f"{candidate}^{{commit}}")
        if found.returncode == 0:
            return found.stdout.strip()
    raise ProjectError(f"{without_password(source)} has no version {wanted!r}; give a branch, a tag or a commit")


def _git(source: str, *arguments: str) -> None:
    result = _run(*arguments)
    if result.returncode != 0:
        reason = " ".join(result.stderr.split())[-500:]
        raise ProjectError(f"cannot fetch {without_password(source)}: {without_password(reason)}")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-c", "protocol.ext.allow=never", "-c", "advice.detachedHead=false", *arguments]
    environ = {name: value for name, value in os.environ.items() if name not in _GIT_PLACES}
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=environ)
    except FileNotFoundError as error:
        raise ProjectError("git is not installed, and the project comes from a Git repository") from error


def discard(scratch: Path) -> None:
    """Remove what ``fetch`` left."""
    shutil.rmtree(scratch, ignore_errors=True)
