"""The official source release, from the user's own package index, known by its hash."""

from __future__ import annotations

import hashlib
import tarfile
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.runner import CommandFailed
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mlflow_pytorch_estimator.horovod.programs import Programs
    from mlflow_pytorch_estimator.horovod.release import Change, Release

_MOST_LINES = 4


def fetch(release: Release, sources: Path, folder: Path, python: Path, programs: Programs) -> Path:
    """Return the release's file, downloaded once; ``python`` is one with pip.

    ``folder`` is for what comes between, on the same file system as ``sources``.
    """
    kept = sources / release.file
    if kept.is_file():
        if sha256(kept) == release.sha256:
            return kept
        programs.say(f"{kept} is not the official release: downloading it again")
    wanted = folder / "requirements.txt"
    wanted.write_text(f"horovod=={release.version} --hash=sha256:{release.sha256}\n", encoding="utf-8")
    # uv has no download command; pip checks the hash before it runs any of the file.
    options = ("--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--progress-bar", "off", "--no-cache-dir")
    command = [str(python), "-m", "pip", "download", *options, "-d", str(folder / "download"), "-r", str(wanted)]
    try:
        programs.runner.run(command, pip_environment(programs))
    except CommandFailed as error:
        raise EnvironmentBuildError(
            f"the source release {release.file} cannot be downloaded; where there is no index that has it, "
            f"place the file in {sources}\n  {_reason(error.output)}"
        ) from None
    sources.mkdir(parents=True, exist_ok=True)
    (folder / "download" / release.file).replace(kept)
    return kept


def unpack(file: Path, folder: Path, changes: Iterable[Change]) -> Path:
    """Unpack a release and change it; returns the folder with its setup.py."""
    with tarfile.open(file) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(folder)  # noqa: S202 - its hash is known; Python 3.10.11 has no filters
    source = next(path for path in folder.iterdir() if (path / "setup.py").is_file())
    for change in changes:
        target = source / change.file
        text = target.read_text(encoding="utf-8")
        if text.count(change.after) != 1:
            raise EnvironmentBuildError(f"{change.file} of {file.name} is not as expected: it cannot be changed")
        target.write_text(text.replace(change.after, change.after + change.insert), encoding="utf-8")
    return source


def sha256(path: Path) -> str:
    """Return the hash of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def pip_environment(programs: Programs) -> dict[str, str]:
    """Return the variables that pip runs with: the user's, with uv's indexes in pip's words."""
    environ = programs.environ
    result = programs.plain | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    default = environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL")
    extra = (environ.get("UV_INDEX") or environ.get("UV_EXTRA_INDEX_URL") or "").split()
    if default:
        result["PIP_INDEX_URL"] = _address(default, environ)
    if extra:
        result["PIP_EXTRA_INDEX_URL"] = " ".join(_address(item, environ) for item in extra)
    for ours, theirs in (("UV_FIND_LINKS", "PIP_FIND_LINKS"), ("UV_INSECURE_HOST", "PIP_TRUSTED_HOST")):
        if environ.get(ours):
            result[theirs] = environ[ours].replace(",", " ")
    if environ.get("UV_NO_INDEX"):
        result["PIP_NO_INDEX"] = "1"
    if environ.get("SSL_CERT_FILE"):
        result.setdefault("PIP_CERT", environ["SSL_CERT_FILE"])
    return result


def _address(item: str, environ: Mapping[str, str]) -> str:
    """Return the URL of an index of uv's, ``URL`` or ``name=URL``, with the name's user and password."""
    name, equals, url = item.partition("=")
    if not equals or "/" in name:
        return item
    variable = f"UV_INDEX_{name.upper().replace('-', '_')}"
    user, password = (environ.get(f"{variable}_{part}", "") for part in ("USERNAME", "PASSWORD"))
    scheme, separator, rest = url.partition("://")
    if not (user or password) or "@" in rest.partition("/")[0]:
        return url
    return f"{scheme}{separator}{user}{f':{password}' if password else ''}@{rest}"


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return "\n  ".join((errors or lines)[-_MOST_LINES:])
