"""Real builds with uv of small environments, and the ways in which they go wrong."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_pytorch_estimator.environments import (
    BuildCancelled,
    EnvironmentSpec,
    ReadyEnvironment,
    cache,
    find_ready,
    interpreters,
    local_freeze,
    prepare,
    resolve,
)
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL = ("packaging",)
# A package whose build takes as long as nobody stops it; it names its process in $PID_FILE.
SLOW_SETUP = """
import os, pathlib, time
pathlib.Path({pid!r}).write_text(str(os.getpid()))
time.sleep(60)
"""


class Bench:
    """One project, one cache, and what a build said."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.project.mkdir()
        self.cache = folder / "cache"
        self.log = io.StringIO()
        self.said: list[str] = []
        self.cancelled: Callable[[], bool] = lambda: False

    def prepare(self, spec: EnvironmentSpec, base: tuple[str, ...] | None = SMALL) -> ReadyEnvironment:
        return prepare(
            spec,
            self.project,
            self.cache,
            log=self.log,
            cancelled=self.cancelled,
            say=self.said.append,
            base=base,
        )

    def find(self, spec: EnvironmentSpec) -> ReadyEnvironment | None:
        return find_ready(spec, self.project, self.cache, base=SMALL)

    def leftovers(self) -> list[str]:
        return [path.name for path in self.cache.iterdir() if path.is_dir() and path.name != "locks"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def spec(*requirements: str, python: str | None = None) -> EnvironmentSpec:
    return EnvironmentSpec("uv", python, requirements, (), "requirements.txt")


def output(python: Path, code: str) -> str:
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def slow_package(bench: Bench) -> tuple[EnvironmentSpec, Path]:
    pid_file = bench.project / "build.pid"
    (bench.project / "slow").mkdir()
    (bench.project / "slow/setup.py").write_text(SLOW_SETUP.format(pid=str(pid_file)))
    (bench.project / "slow/pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "setup"\nbackend-path = ["."]\n'
    )
    return spec("./slow"), pid_file


def write_package(folder: Path, value: int) -> None:
    (folder / "mine").mkdir(parents=True, exist_ok=True)
    (folder / "mine/__init__.py").write_text(f"VALUE = {value}\n")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "mine"\nversion = "1"\n[tool.setuptools]\npackages = ["mine"]\n'
    )


# --- building and finding again


def test_built_then_reused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = spec("six==1.16.0")
    assert bench.find(asked) is None
    built = bench.prepare(asked)
    assert not built.reused
    assert output(built.python, "import six, packaging; print(six.__version__)") == "1.16.0"
    assert re.search(r"# python 3\.\d+\.\d+\n# platform Linux.*\n# manager uv [\d.]+", built.freeze)
    assert [line.partition("==")[0] for line in built.freeze.splitlines()[3:]] == ["packaging", "six"]
    assert bench.said[0] == "resolving 2 requirements"
    assert f"building environment {built.key}: 2 packages" in bench.said
    assert any(line.startswith("Installed 2 packages") for line in bench.said)
    assert bench.said[-1].startswith(f"environment {built.key} ready in ")
    assert "$ uv pip install" in bench.log.getvalue()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    found = bench.find(asked)
    assert found is not None
    assert found.seconds < 0.5
    again = bench.prepare(asked)
    assert (again.reused, again.key, again.python, again.freeze) == (True, built.key, built.python, built.freeze)
    assert len(built.key) == 16


def test_the_submitters_surroundings_do_not_matter(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = spec("six")
    key = bench.prepare(asked).key
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON"):
        monkeypatch.setenv(name, "/nowhere")
    (bench.project / "uv.toml").write_text('index-url = "https://nowhere.invalid"\n')
    (bench.cache / "uv.toml").write_text('index-url = "https://nowhere.invalid"\n')
    monkeypatch.chdir(bench.project)
    assert bench.find(asked) is not None
    (bench.cache / key / "environment.json").unlink()
    assert not bench.prepare(asked).reused


def test_what_decides_makes_another_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    key = bench.prepare(spec("six")).key
    assert bench.prepare(EnvironmentSpec("uv", None, ("six",), (), "conda.yaml")).key == key
    monkeypatch.setenv("UV_TORCH_BACKEND", "cpu")
    assert bench.find(spec("six")) is None
    monkeypatch.delenv("UV_TORCH_BACKEND")
    assert bench.find(spec("six", "pip")) is None
    assert bench.find(EnvironmentSpec("uv", None, ("six",), ("six<2",), "requirements.txt")) is None
    assert bench.find(spec("six")) is not None


def test_constraints_and_hashes_reach_uv(bench: Bench) -> None:
    digest = "8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254"
    asked = EnvironmentSpec("uv", None, (f"six==1.16.0 --hash=sha256:{digest}",), ("packaging==24.0",), "x")
    assert {"packaging==24.0", "six==1.16.0"} <= set(bench.prepare(asked).freeze.splitlines())
    with pytest.raises(EnvironmentBuildError, match="Hash mismatch"):
        bench.prepare(spec(f"six==1.16.0 --hash=sha256:{digest[::-1]}"))


def test_the_real_base(bench: Bench) -> None:
    ready = bench.prepare(spec(), base=None)
    code = "import mlflow, psutil, yaml, requests, pip, mlflow_pytorch_estimator; print(mlflow.__version__)"
    ours = str(Path(__file__).parents[1])
    found = subprocess.run(
        [ready.python, "-c", code], env={"PYTHONPATH": ours}, capture_output=True, text=True, check=True
    )
    assert f"mlflow=={found.stdout.strip()}" in ready.freeze.splitlines()


def test_local(bench: Bench) -> None:
    asked = EnvironmentSpec("local", None, (), (), "local")
    ready = bench.prepare(asked)
    assert (ready.python, ready.key, ready.reused) == (Path(sys.executable), "local", True)
    assert ready.freeze == ""
    assert "# manager local" in local_freeze()
    assert any(line.startswith("pytest==") for line in local_freeze().splitlines())
    assert not bench.cache.exists()


def test_local_package_is_built_from_what_it_holds_now(bench: Bench) -> None:
    write_package(bench.project / "my pkg", 1)
    asked = spec("./my pkg")
    first = bench.prepare(asked)
    assert output(first.python, "import mine; print(mine.VALUE)") == "1"
    assert "mine @ ./my pkg" in first.freeze.splitlines()
    assert sorted(path.name for path in (bench.project / "my pkg").iterdir()) == ["mine", "pyproject.toml"]
    write_package(bench.project / "my pkg", 2)
    second = bench.prepare(asked)
    assert second.key != first.key
    assert output(second.python, "import mine; print(mine.VALUE)") == "2"


def test_damaged_environment_is_rebuilt(bench: Bench) -> None:
    first = bench.prepare(spec("six"))
    for path in first.python.parent.glob("python*"):
        path.unlink()
    assert bench.find(spec("six")) is None
    assert not bench.prepare(spec("six")).reused
    (bench.cache / first.key / "environment.json").write_text("{")
    assert not bench.prepare(spec("six")).reused
    assert bench.find(spec("six")) is not None


def test_marker_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "environment.json").write_text("{}")
    monkeypatch.setattr(shutil, "rmtree", lambda _: None)  # killed here
    cache.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- several at once, and ends in the middle

BUILDER = """
import json, sys
from pathlib import Path
from mlflow_pytorch_estimator.environments import EnvironmentSpec, prepare
spec = EnvironmentSpec.from_json(json.loads(sys.argv[1]))
say = lambda line: print(line, flush=True)
ready = prepare(spec, Path(sys.argv[2]), Path(sys.argv[3]), log=sys.stderr, cancelled=lambda: False, say=say,
                base=("packaging",))
print("reused" if ready.reused else "built")
"""


@contextmanager
def builder(bench: Bench, asked: EnvironmentSpec) -> Iterator[subprocess.Popen[str]]:
    arguments = [json.dumps(asked.to_json()), str(bench.project), str(bench.cache)]
    with subprocess.Popen(
        [sys.executable, "-c", BUILDER, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_two_processes_build_once(bench: Bench) -> None:
    asked = spec("six", "iniconfig")
    with builder(bench, asked) as one, builder(bench, asked) as two:
        outputs = [one.communicate(timeout=30)[0], two.communicate(timeout=30)[0]]
    assert sorted(text.split()[-1] for text in outputs) == ["built", "reused"]
    assert "".join(outputs).count("building environment") == 1


def test_killed_builder_leaves_nothing_that_hurts(bench: Bench) -> None:
    asked, pid_file = slow_package(bench)
    with builder(bench, asked) as process:
        until(lambda: pid_file.exists() and pid_file.read_text() != "")
        backend = int(pid_file.read_text())
        uv = int(re.findall(r"PPid:\s*(\d+)", Path(f"/proc/{backend}/status").read_text())[0])
        assert "uv" in Path(f"/proc/{uv}/cmdline").read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
        until(lambda: not alive(uv) and not alive(backend), 5)  # what uv has started as well
    [garbage] = bench.leftovers()
    assert garbage.startswith(".resolving-")
    pid_file.unlink()
    # The next one clears up and starts anew.
    bench.cancelled = pid_file.exists
    with pytest.raises(BuildCancelled):
        bench.prepare(asked)
    assert "resolving 2 requirements" in bench.said
    assert bench.leftovers() == []


def test_garbage_without_a_marker_is_replaced(bench: Bench) -> None:
    key = bench.prepare(spec("six")).key
    folder = bench.cache / key
    (folder / "environment.json").rename(folder / "environment.json.tmp")
    (folder / "garbage").mkdir()
    assert not bench.prepare(spec("six")).reused
    assert not (folder / "garbage").exists()


def test_cancelled_in_mid_build(bench: Bench) -> None:
    asked, pid_file = slow_package(bench)
    seen: list[float] = []

    def cancelled() -> bool:
        if pid_file.exists() and pid_file.read_text():
            seen.append(time.monotonic())
        return bool(seen)

    bench.cancelled = cancelled
    with pytest.raises(BuildCancelled):
        bench.prepare(asked)
    assert time.monotonic() - seen[0] < 2
    until(lambda: not alive(int(pid_file.read_text())), 5)
    assert bench.leftovers() == []


# --- what uv refuses


def test_package_that_does_not_exist(bench: Bench) -> None:
    with pytest.raises(EnvironmentBuildError) as failure:
        bench.prepare(spec("this-package-does-not-exist-4711"))
    assert "this-package-does-not-exist-4711 was not found in the package registry" in str(failure.value)
    assert "was not found in the package registry" in bench.log.getvalue()
    assert bench.leftovers() == []


def test_conflict_names_both(bench: Bench) -> None:
    with pytest.raises(EnvironmentBuildError) as failure:
        bench.prepare(spec("botocore==1.34.0", "urllib3==2.5.0"))
    assert "botocore==1.34.0" in str(failure.value)
    assert "urllib3==2.5.0" in str(failure.value)
    assert "Traceback" not in str(failure.value)


def test_failing_build_shows_the_cause(bench: Bench) -> None:
    (bench.project / "bad").mkdir()
    (bench.project / "bad/setup.py").write_text("raise RuntimeError('needs the moon')\n")
    with pytest.raises(EnvironmentBuildError) as failure:
        bench.prepare(spec("./bad"))
    assert "RuntimeError: needs the moon" in str(failure.value)
    assert "Traceback" not in str(failure.value)
    assert "Traceback" in bench.log.getvalue()


def test_local_package_that_has_gone(bench: Bench) -> None:
    with pytest.raises(EnvironmentBuildError, match=r"cannot read .*/gone: No such file"):
        bench.find(spec("./gone"))


def test_secrets_stay_out_of_words_and_files(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:hunter2@127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with pytest.raises(EnvironmentBuildError) as failure:
        bench.prepare(spec("six"))
    assert "127.0.0.1:9" in str(failure.value)
    assert "hunter2" not in str(failure.value) + bench.log.getvalue() + "".join(bench.said)


def test_python_that_is_not_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    with pytest.raises(EnvironmentBuildError) as failure:
        bench.prepare(spec("six", python="==3.12.99"))
    assert "no Python ==3.12.99,>=3.10 here" in str(failure.value).replace(">=3.10,==3.12.99", "==3.12.99,>=3.10")
    assert re.search(r"installed: .*3\.\d+\.\d+ \(/", str(failure.value))


def test_search_for_python_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_PYTHON_SECONDS", 0.001)
    with pytest.raises(EnvironmentBuildError, match="uv took too long and was stopped"):
        bench.prepare(spec("six", python="==3.12.99"))


def test_interpreter_of_pyenv(tmp_path: Path) -> None:
    for version in ("3.98.2", "3.98.10", "3.99-dev", "2.7.18"):
        python = tmp_path / "versions" / version / "bin/python3"
        python.parent.mkdir(parents=True)
        python.touch(mode=0o755)
    environ = {"PYENV_ROOT": str(tmp_path)}
    chosen = interpreters.choose("==3.98.*", environ)
    assert chosen.request == str(tmp_path / "versions/3.98.10/bin/python3")
    assert interpreters.choose("==3.99.*", environ).request.count("3.99") == 1
    assert interpreters.choose(None, environ).request == os.path.realpath(getattr(sys, "_base_executable", ""))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_full_disk(bench: Bench, tiny_disk: Path) -> None:
    bench.cache = tiny_disk / "cache"
    with pytest.raises(EnvironmentBuildError) as failure:
        bench.prepare(spec("pip"))
    assert str(failure.value).startswith(f"no space left on device while building in {bench.cache}:")
    assert "UV_CACHE_DIR" in str(failure.value)
    assert bench.leftovers() == []
    (tiny_disk / "filler").write_bytes(b"x" * (900 << 10))
    with pytest.raises(EnvironmentBuildError, match="no space left on device"):
        bench.prepare(spec("six", "pip"))
    assert bench.leftovers() == []


def test_cache_that_cannot_be_made(bench: Bench) -> None:
    bench.cache.write_text("a file")
    with pytest.raises(EnvironmentBuildError, match=str(bench.cache)):
        bench.prepare(spec("six"))
