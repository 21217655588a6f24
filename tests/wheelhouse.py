"""An index of hand-made packages in a folder, and environments that are built from it: no network, milliseconds."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlflow_pytorch_estimator.cli import main
from mlflow_pytorch_estimator.environments import (
    EnvironmentSpec,
    ReadyEnvironment,
    cache,
    find_ready,
    integrity,
    prepare,
)
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.status import Phase

DAY = 86_400
# One that waits until it is told to begin, so that the import of Python modules is over then.
BUILDER = """
import json, sys
from pathlib import Path
from mlflow_pytorch_estimator.environments import EnvironmentSpec, find_ready, prepare
from mlflow_pytorch_estimator.errors import EnvironmentBuildError
spec = EnvironmentSpec.from_json(json.loads(sys.argv[1]))
print("up", flush=True)
sys.stdin.readline()
told = {"log": sys.stderr, "cancelled": lambda: False, "say": lambda line: print(line, flush=True)}
try:
    ready = prepare(spec, Path(sys.argv[2]), Path(sys.argv[3]), base=(), **told)
except EnvironmentBuildError as error:
    sys.exit(f"refused: {error}")
print("reused" if ready.reused else "built", ready.python)
"""


class Wheelhouse:
    """A folder for ``--find-links``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def wheel(
        self, name: str, version: str = "1.0", tag: str = "py3-none-any", size: int = 0, requires: str = ""
    ) -> None:
        """Add a package with one module of its own name, and ``size`` random bytes that do not compress."""
        info = f"{name}-{version}.dist-info"
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        metadata = "\n".join([*lines, *([f"Requires-Dist: {requires}"] if requires else [])])
        files = {
            f"{name}/__init__.py": f"VERSION = {version!r}\n".encode(),
            f"{name}/data.bin": hashlib.shake_128(name.encode()).digest(size),
            f"{info}/METADATA": f"{metadata}\n".encode(),
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        }
        self._zip(f"{name}-{version}-{tag}.whl", files, info)

    def installed(self, name: str) -> None:
        """Add a package that is installed here, such as a build backend."""
        distribution = importlib.metadata.distribution(name)
        listed = [file for file in distribution.files or () if ".." not in file.parts and file.suffix != ".pyc"]
        files = {str(file): Path(str(file.locate())).read_bytes() for file in listed if file.name != "RECORD"}
        version = distribution.version
        self._zip(f"{name}-{version}-py3-none-any.whl", files, f"{name}-{version}.dist-info")

    def sdist(self, name: str, files: Mapping[str, str], version: str = "1.0") -> None:
        """Add a package that has to be built."""
        contents = {"PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", **files}
        with tarfile.open(self.folder / f"{name}-{version}.tar.gz", "w:gz") as archive:
            for path, text in contents.items():
                member = tarfile.TarInfo(f"{name}-{version}/{path}")
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))

    def _zip(self, file: str, files: Mapping[str, bytes], info: str) -> None:
        rows = [f"{path},sha256={_digest(content)},{len(content)}\n" for path, content in files.items()]
        record = "".join([*rows, f"{info}/RECORD,,\n"])
        with zipfile.ZipFile(self.folder / file, "w") as archive:
            for path, content in {**files, f"{info}/RECORD": record.encode()}.items():
                archive.writestr(path, content)


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


class LocalBench:
    """A project, an index, a cache of environments and one of uv, all of a test's own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project = folder / "bench"
        self.project.mkdir()
        self.cache = folder / "cache"
        self.uv_cache = folder / "uv"
        self.index = Wheelhouse(folder / "index")
        self.said: list[str] = []
        self.log = io.StringIO()
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_LINK_MODE"):
            monkeypatch.delenv(name, raising=False)
        settings = folder / "uv.toml"
        settings.write_text(f'no-index = true\nfind-links = ["{self.index.folder}"]\n')
        monkeypatch.setenv("UV_CONFIG_FILE", str(settings))
        monkeypatch.setenv("UV_CACHE_DIR", str(self.uv_cache))
        monkeypatch.setenv("GPU_CLUSTER_ENVIRONMENTS", str(self.cache))

    def prepare(self, *requirements: str, cancelled: Callable[[], bool] = lambda: False) -> ReadyEnvironment:
        self.said.clear()
        return prepare(
            spec(*requirements),
            self.project,
            self.cache,
            log=self.log,
            cancelled=cancelled,
            say=self.said.append,
            base=(),
        )

    def find(self, *requirements: str) -> ReadyEnvironment | None:
        return find_ready(spec(*requirements), self.project, self.cache, base=())

    def entries(self) -> list[str]:
        """Names of all folders in the cache besides that of the kept versions."""
        return sorted(path.name for path in self.cache.glob("*") if path.is_dir() and path.name != "locks")

    @contextmanager
    def builder(self, *requirements: str) -> Iterator[subprocess.Popen[str]]:
        """Another process that builds once it gets a line."""
        arguments = [json.dumps(spec(*requirements).to_json()), str(self.project), str(self.cache)]
        with subprocess.Popen(
            [sys.executable, "-c", BUILDER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "up\n"
                yield process
            finally:
                process.kill()


class Job:
    """A job directory that counts as alive until its end is written."""

    def __init__(self, folder: Path, name: str = "0123456789abcdef") -> None:
        self.path = folder / "jobs" / name
        self.path.mkdir(parents=True)

    def end(self) -> None:
        JobDir(self.path).conclude(Phase.COMPLETED, "")


def folder_of(ready: ReadyEnvironment) -> Path:
    return ready.python.parent.parent


def used(ready: ReadyEnvironment, days_ago: float) -> None:
    """Say when an environment was wanted last."""
    moment = time.time() - days_ago * DAY
    os.utime(cache.used_file(folder_of(ready)), (moment, moment))


def spec(*requirements: str) -> EnvironmentSpec:
    return EnvironmentSpec("uv", None, requirements, (), "requirements.txt")


def envs(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, ["envs", *arguments], prog_name="gpu-cluster")


def begin(process: subprocess.Popen[str]) -> None:
    """Let a builder begin."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def works(ready: ReadyEnvironment, *modules: str) -> None:
    """Check that an environment is whole and that its modules can be imported."""
    assert integrity.damaged(ready.python.parent.parent, content=True) == {}
    subprocess.run([ready.python, "-c", f"import {', '.join(modules)}"], check=True)


def module(ready: ReadyEnvironment, name: str) -> Path:
    """The file of a module in an environment."""
    [path] = ready.python.parent.parent.glob(f"lib/python3*/site-packages/{name}/__init__.py")
    return path
