"""Environments that need conda: from a specification to an interpreter, with a channel and an index of our own."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from conda_channel import PLACEHOLDER, SITE, Channel, private_caches, serving, without_programs
from wheelhouse import Wheelhouse

from mlflow_pytorch_estimator.environments import (
    BuildCancelled,
    EnvironmentSpec,
    ReadyEnvironment,
    cache,
    find_ready,
    integrity,
    prepare,
)
from mlflow_pytorch_estimator.environments.request import request
from mlflow_pytorch_estimator.environments.tending.checkup import check
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

PYTHON = f"python {sys.version_info[0]}.{sys.version_info[1]}.*"
TOOL = f"#!/bin/sh\necho tool {{}} of {PLACEHOLDER}\n"
BUILDER = """
import json, sys
from pathlib import Path
from mlflow_pytorch_estimator.environments import EnvironmentSpec, prepare
spec = EnvironmentSpec.from_json(json.loads(sys.argv[1]))
say = lambda line: print(line, flush=True)
ready = prepare(spec, Path(sys.argv[2]), Path(sys.argv[3]), log=sys.stderr, cancelled=lambda: False, say=say, base=())
print("reused" if ready.reused else "built")
"""


class Bench:
    """A project, a cache, a channel and an index of wheels, with nothing of them shared with other tests."""

    def __init__(self, folder: Path, channel: Channel) -> None:
        self.channel = channel
        self.index = Wheelhouse(folder / "index")
        self.project = folder / "project"
        self.project.mkdir()
        self.cache = folder / "cache"
        self.packages = folder / "rattler"
        self.log = io.StringIO()
        self.said: list[str] = []
        self.cancelled: Callable[[], bool] = lambda: False

    def spec(self, *conda: str, pip: tuple[str, ...] = ()) -> EnvironmentSpec:
        return EnvironmentSpec(
            "conda", None, pip, (), "conda.yaml", conda=(PYTHON, "pip", *conda), channels=(self.channel.url,)
        )

    def prepare(self, spec: EnvironmentSpec, *, upgrade: bool = False) -> ReadyEnvironment:
        self.said.clear()
        return prepare(
            spec,
            self.project,
            self.cache,
            log=self.log,
            cancelled=self.cancelled,
            say=self.said.append,
            base=(),
            upgrade=upgrade,
        )

    def find(self, spec: EnvironmentSpec) -> ReadyEnvironment | None:
        return find_ready(spec, self.project, self.cache, base=())

    def entries(self) -> list[str]:
        return sorted(path.name for path in self.cache.glob("*") if path.is_dir() and path.name != "locks")

    @contextmanager
    def builder(self, spec: EnvironmentSpec) -> Iterator[subprocess.Popen[str]]:
        arguments = [json.dumps(spec.to_json()), str(self.project), str(self.cache)]
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


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for name in ("MAMBA_EXE", "CONDA_EXE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    settings = {"UV_OFFLINE": "1", "UV_FIND_LINKS": str(tmp_path / "index"), "UV_CACHE_DIR": str(tmp_path / "uv")}
    settings |= {"PATH": without_programs(os.environ["PATH"]), "TMPDIR": str(tmp_path / "scratch")}
    (tmp_path / "scratch").mkdir()
    for name, value in {**settings, **private_caches(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with serving(tmp_path / "channel") as channel:
        channel.python()
        channel.add("pip", "24.0", ("python",), {"share/pip": "pip"})
        channel.add("a-library", "1.0", (), {"lib/a-library": "x"})
        for version in ("1.2", "2.0"):
            channel.add("tool", version, ("a-library >=1",), {"bin/tool": TOOL.format(version)})
        channel.module("arrays", "1.5")
        bench = Bench(tmp_path, channel)
        bench.index.wheel("alpha", "1.0", requires="arrays")
        bench.index.wheel("beta", "1.0")
        yield bench


def output(ready: ReadyEnvironment, program: str, *arguments: str) -> str:
    return subprocess.check_output([ready.python.parent / program, *arguments], text=True).strip()


def folder(ready: ReadyEnvironment) -> Path:
    return ready.python.parent.parent


def urls(ready: ReadyEnvironment) -> list[str]:
    return [line.removeprefix("# conda ") for line in ready.freeze.splitlines() if line.startswith("# conda ")]


def names(ready: ReadyEnvironment) -> list[str]:
    return sorted(
        url.rpartition("/")[2].removesuffix("-0.tar.bz2") for url in (u.partition("#")[0] for u in urls(ready))
    )


def until(true: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def processes(word: str) -> list[int]:
    """Processes with a word in their arguments."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word in (entry / "cmdline").read_text() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


# --- building and finding again


def test_both_kinds_of_packages(bench: Bench) -> None:
    ready = bench.prepare(bench.spec("tool=1", "arrays", pip=("alpha",)))
    assert not ready.reused
    assert output(ready, "tool") == f"tool 1.2 of {folder(ready)}"
    code = "import alpha, arrays, sys; print(alpha.VERSION, arrays.WHENCE, sys.prefix)"
    assert output(ready, "python", "-c", code) == f"1.0 conda {folder(ready)}"
    assert bench.entries() == [ready.key]
    assert integrity.damaged(folder(ready), content=True) == {}
    python = platform.python_version()
    assert names(ready) == ["a-library-1.0", "arrays-1.5", "pip-24.0", f"python-{python}", "tool-1.2"]
    assert all(url.startswith(bench.channel.url) and len(url.partition("#")[2]) == 32 for url in urls(ready))
    head, packages = ready.freeze.split("# conda ", 1)
    assert head.startswith(f"# python {python}\n# platform Linux")
    assert "\n# manager py-rattler, uv " in head
    assert [line for line in packages.splitlines()[1:] if not line.startswith("# conda ")] == ["alpha==1.0"]
    assert bench.said[:2] == ["resolving 5 requirements", "choosing conda packages with py-rattler"]
    assert "installing 5 conda packages with py-rattler" in bench.said
    assert f"building environment {ready.key}: 6 packages" in bench.said
    assert bench.said[-1].startswith(f"environment {ready.key} ready in ")


def test_found_again_without_a_process(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = bench.spec("tool=1", pip=("alpha", "arrays"))
    bench.index.wheel("arrays", "1.5")
    assert bench.find(asked) is None
    built = bench.prepare(asked)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    found = bench.find(asked)
    assert found is not None
    assert found.seconds < 0.2
    again = bench.prepare(asked)
    assert (again.reused, again.key, again.python, again.freeze) == (True, built.key, built.python, built.freeze)


def test_two_ways_to_say_the_same_share_an_environment(bench: Bench) -> None:
    first = bench.prepare(bench.spec("tool=1", pip=("beta",)))
    second = bench.prepare(bench.spec("tool ==1.2", pip=("beta>=1",)))
    assert (second.reused, second.key) == (True, first.key)
    assert bench.prepare(bench.spec("tool=1")).key != first.key
    assert bench.prepare(bench.spec("tool", pip=("beta",))).key != first.key


def test_what_decides_makes_another_request(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = bench.spec("tool=1")
    bench.prepare(asked)
    for name, value in (("CONDA_OVERRIDE_CUDA", "12.4"), ("CONDA_CHANNEL_PRIORITY", "disabled")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert bench.find(asked) is None
    assert bench.find(replace(asked, channels=(bench.channel.url, "conda-forge"))) is None
    # Python comes from conda, so it does not matter which one submits.
    monkeypatch.setattr(sys, "_base_executable", "/elsewhere/python")
    assert bench.find(asked) is not None


def test_driver_decides_what_conda_chooses(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.channel.add("gpu-tool", "1.0", (), {"share/for": "cpu"})
    bench.channel.add("gpu-tool", "2.0", ("__cuda >=12",), {"share/for": "cuda"})
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "")
    assert (folder(bench.prepare(bench.spec("gpu-tool"))) / "share/for").read_text() == "cpu"
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "12.4")
    assert (folder(bench.prepare(bench.spec("gpu-tool"))) / "share/for").read_text() == "cuda"


# --- the same versions until they are to be newer ones


def test_same_versions_until_an_upgrade(bench: Bench) -> None:
    asked = bench.spec("tool<2", "arrays", pip=("alpha",))
    first = bench.prepare(asked)
    bench.channel.add("tool", "1.9", (), {"bin/tool": TOOL.format("1.9")})
    bench.channel.module("arrays", "1.6")
    bench.index.wheel("alpha", "2.0")
    shutil.rmtree(folder(first))
    second = bench.prepare(asked)
    assert (second.reused, second.key, urls(second)) == (False, first.key, urls(first))
    assert output(second, "tool") == f"tool 1.2 of {folder(second)}"
    assert second.freeze == first.freeze
    third = bench.prepare(asked, upgrade=True)
    assert {"tool-1.9", "arrays-1.6"} <= {*names(third)}
    assert output(third, "python", "-c", "import alpha; print(alpha.VERSION)") == "2.0"
    assert third.key != first.key
    found = bench.find(asked)
    assert found is not None
    assert found.key == third.key
    assert bench.entries() == sorted([first.key, third.key])


def test_a_machine_that_shares_the_locks(bench: Bench, tmp_path: Path) -> None:
    asked = bench.spec("tool<2", "arrays", pip=("alpha",))
    first = bench.prepare(asked)
    locks = bench.cache / "locks"
    bench.channel.add("tool", "1.9", (), {"bin/tool": TOOL.format("1.9")})
    bench.cache = tmp_path / "other"
    shutil.copytree(locks, bench.cache / "locks")
    shutil.rmtree(bench.packages)  # nothing is at hand there
    second = bench.prepare(asked)
    assert (second.reused, second.key, second.freeze) == (False, first.key, first.freeze)
    assert not any("resolving" in line for line in bench.said)
    assert integrity.damaged(folder(second), content=True) == {}
    files = {path.relative_to(folder(first)) for path in folder(first).rglob("*")}
    assert {path.relative_to(folder(second)) for path in folder(second).rglob("*")} == files


def test_a_package_that_has_changed_is_not_taken(bench: Bench) -> None:
    asked = bench.spec("tool=1")
    first = bench.prepare(asked)
    bench.channel.add("tool", "1.2", (), {"bin/tool": TOOL.format("of somebody else")})
    shutil.rmtree(folder(first))
    shutil.rmtree(bench.packages)
    with pytest.raises(EnvironmentBuildError, match=r"failed to fetch tool-1\.2-0(.|\n)*hash mismatch"):
        bench.prepare(asked)
    assert bench.entries() == []


# --- pip beside conda


def test_pip_keeps_what_conda_has(bench: Bench) -> None:
    bench.index.wheel("arrays", "3.0")
    ready = bench.prepare(bench.spec("arrays", pip=("alpha", "arrays>=1")))
    assert output(ready, "python", "-c", "import arrays; print(arrays.WHENCE)") == "conda"


def test_pip_replaces_what_nobody_has_fixed_and_says_so(bench: Bench) -> None:
    bench.index.wheel("arrays", "3.0")
    bench.index.wheel("gamma", "1.0", requires="arrays>=2")
    ready = bench.prepare(bench.spec("arrays", pip=("gamma",)))
    assert output(ready, "python", "-c", "import arrays; print(arrays.VERSION)") == "3.0"
    said = "pip replaces conda's arrays==1.5 by arrays==3.0: name a version in the conda packages to prevent it"
    assert said in bench.said
    assert {"arrays==3.0", "gamma==1.0"} <= {*ready.freeze.splitlines()}
    assert integrity.damaged(folder(ready), content=True) == {}
    shutil.rmtree(folder(ready))
    assert bench.prepare(bench.spec("arrays", pip=("gamma",))).freeze == ready.freeze


def test_pip_cannot_replace_what_the_user_has_fixed(bench: Bench) -> None:
    bench.index.wheel("arrays", "3.0")
    bench.index.wheel("gamma", "1.0", requires="arrays>=2")
    with pytest.raises(EnvironmentBuildError) as failure:
        bench.prepare(bench.spec("arrays=1.5", pip=("gamma",)))
    assert "gamma depend on arrays>=2" in str(failure.value)
    assert "(arrays==1.5: as conda has installed it, because conda.yaml says so)" in str(failure.value)
    assert bench.entries() == []


def test_project_folder_and_options(bench: Bench) -> None:
    (bench.project / "mine").mkdir()
    (bench.project / "mine/mine.py").write_text("VALUE = 1\n")
    (bench.project / "mine/pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (bench.project / "mine/backend.py").write_text(
        "import shutil\nNAME = 'mine-1-py3-none-any.whl'\n"
        "def build_wheel(folder, *_):\n    shutil.copy('ready.whl', f'{folder}/{NAME}')\n    return NAME\n"
    )
    bench.index.wheel("mine", "1")
    (bench.index.folder / "mine-1-py3-none-any.whl").rename(bench.project / "mine/ready.whl")
    asked = bench.spec("tool", pip=("./mine", "--pre", "beta --hash=sha256:" + "0" * 64))
    with pytest.raises(EnvironmentBuildError, match="Hash mismatch"):
        bench.prepare(asked)
    assert bench.entries() == []
    ready = bench.prepare(bench.spec("tool", pip=("./mine", "--pre")))
    assert "mine @ ./mine" in ready.freeze.splitlines()
    assert output(ready, "python", "-c", "import mine; print(mine.VERSION)") == "1"


def test_password_of_an_address(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.setenv("TOKEN", "hunter2")
    bench.index.wheel("delta", "1.0")
    shutil.copy(bench.index.folder / "delta-1.0-py3-none-any.whl", bench.channel.folder)
    address = f"{bench.channel.url.replace('://', '://user:${TOKEN}@')}/delta-1.0-py3-none-any.whl"
    ready = bench.prepare(bench.spec("tool", pip=(f"delta @ {address}",)))
    assert output(ready, "python", "-c", "import delta; print(delta.VERSION)") == "1.0"
    [lock] = (bench.cache / "locks").glob("*.json")
    assert json.loads(lock.read_bytes())["packages"] == [f"delta @ {address}"]
    written = [lock.read_text(), (folder(ready) / "environment.json").read_text(), bench.log.getvalue(), *bench.said]
    assert "hunter2" not in "".join(written)


def test_what_conda_is_asked_for_is_not_asked_of_pip(bench: Bench) -> None:
    base = ("mlflow==3.17", "psutil>=5", "pip")
    asked = bench.spec("mlflow=2.9")
    assert request(asked, bench.project, bench.cache, base).requirements == ("psutil>=5",)
    asked = bench.spec("mlflow-skinny")
    assert request(asked, bench.project, bench.cache, base).requirements == ("psutil>=5",)


# --- refusals


def test_conda_package_that_does_not_exist(bench: Bench) -> None:
    with pytest.raises(EnvironmentBuildError) as failure:
        bench.prepare(bench.spec("nosuch >=3"))
    reason = "py-rattler: Cannot solve the request because of: No candidates were found for nosuch >=3."
    assert str(failure.value) == reason
    assert "No candidates were found for nosuch" in bench.log.getvalue()
    assert bench.entries() == []


def test_conda_packages_that_exclude_each_other(bench: Bench) -> None:
    bench.channel.add("old-tool", "1.0", ("tool <1.5",))
    with pytest.raises(EnvironmentBuildError) as failure:
        bench.prepare(bench.spec("tool=2", "old-tool"))
    assert "old-tool" in str(failure.value)
    assert "tool <1.5" in str(failure.value)
    assert "Traceback" not in str(failure.value)


def test_pip_package_that_does_not_exist(bench: Bench) -> None:
    with pytest.raises(EnvironmentBuildError, match="this-does-not-exist was not found"):
        bench.prepare(bench.spec("tool", pip=("this-does-not-exist",)))
    assert bench.entries() == []


def test_channel_that_is_not_there(bench: Bench) -> None:
    with pytest.raises(
        EnvironmentBuildError, match=f"could not find subdir '[a-z0-9-]+' in channel '{bench.channel.url}/no"
    ):
        bench.prepare(replace(bench.spec("tool"), channels=(f"{bench.channel.url}/no",)))


def test_no_conda_here(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = bench.spec("tool")
    built = bench.prepare(asked)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "rattler", None)  # as if it were not installed
    assert bench.prepare(asked).key == built.key  # none is needed for what is there
    with pytest.raises(EnvironmentBuildError) as failure:
        bench.prepare(asked, upgrade=True)
    assert str(failure.value).startswith("no conda is here to build the environment with (mamba, micromamba, conda, ")
    assert "pip install mlflow-pytorch-estimator[conda]" in str(failure.value)
    assert bench.entries() == [built.key]


# --- several at once, and ends in the middle


def test_two_processes_build_once(bench: Bench) -> None:
    asked = bench.spec("tool", "arrays", pip=("alpha",))
    with bench.builder(asked) as one, bench.builder(asked) as two:
        outputs = [one.communicate(timeout=60)[0], two.communicate(timeout=60)[0]]
    assert sorted(text.split()[-1] for text in outputs) == ["built", "reused"]
    assert "".join(outputs).count("building environment") == 1


def kill_while_it_waits(bench: Bench, asked: EnvironmentSpec) -> None:
    """Kill a builder whose engine waits for a package; nothing that it has started lives on."""
    bench.channel.held, before = "tool-", len(bench.channel.asked)
    with bench.builder(asked) as process:
        until(lambda: any("tool-" in path for path in bench.channel.asked[before:]))
        assert processes(str(bench.cache))
        process.send_signal(signal.SIGKILL)
        process.wait()
        until(lambda: not processes(str(bench.cache)), 5)
    bench.channel.held = ""
    assert [*Path(os.environ["TMPDIR"]).iterdir()] == []


def test_killed_while_it_solves(bench: Bench) -> None:
    asked = bench.spec("tool", pip=("alpha", "arrays"))
    bench.index.wheel("arrays", "1.5")
    kill_while_it_waits(bench, asked)
    [scratch] = bench.entries()
    assert scratch.startswith(".resolving-")
    assert bench.find(asked) is None
    ready = bench.prepare(asked)
    assert not ready.reused
    assert bench.entries() == [ready.key]
    assert integrity.damaged(folder(ready), content=True) == {}


def test_killed_while_it_builds(bench: Bench) -> None:
    asked = bench.spec("tool", "arrays", pip=("alpha",))
    ready = bench.prepare(asked)
    shutil.rmtree(folder(ready))
    shutil.rmtree(bench.packages)
    kill_while_it_waits(bench, asked)
    assert bench.entries() == [ready.key]
    assert bench.find(asked) is None
    (folder(ready) / "garbage").mkdir()
    again = bench.prepare(asked)
    assert (again.reused, again.key, again.freeze) == (False, ready.key, ready.freeze)
    assert not (folder(again) / "garbage").exists()
    assert integrity.damaged(folder(again), content=True) == {}


def test_killed_at_any_moment(bench: Bench) -> None:
    asked = bench.spec("tool", "arrays", pip=("alpha",))
    moments = random.Random(4)
    for _ in range(6):
        with bench.builder(asked) as process:
            time.sleep(moments.uniform(0.2, 1.6))
            process.send_signal(signal.SIGKILL)
            process.wait()
            until(lambda: not processes(str(bench.cache)), 5)
        found = bench.find(asked)
        if found:
            assert integrity.damaged(folder(found), content=True) == {}
            cache.remove(folder(found))
            for lock in (bench.cache / "locks").glob("*.json"):
                lock.unlink()
    ready = bench.prepare(asked)
    assert output(ready, "tool") == f"tool 2.0 of {folder(ready)}"
    assert integrity.damaged(folder(ready), content=True) == {}
    assert bench.entries() == [ready.key]


def test_cancelled_in_mid_build(bench: Bench) -> None:
    bench.channel.held = "tool-"
    bench.cancelled = lambda: any("tool-" in path for path in bench.channel.asked)
    with pytest.raises(BuildCancelled):
        bench.prepare(bench.spec("tool"))
    until(lambda: not processes(str(bench.cache)), 5)
    assert bench.entries() == []


# --- damage


def test_damage_that_each_use_sees(bench: Bench) -> None:
    asked = bench.spec("tool", "arrays", pip=("alpha",))
    ready = bench.prepare(asked)
    for path in ("bin/python", "conda-meta/tool-2.0-0.json", f"{SITE}/alpha-1.0.dist-info/RECORD"):
        (folder(ready) / path).unlink()
        assert bench.find(asked) is None, path
        again = bench.prepare(asked)
        assert (again.reused, again.key) == (False, ready.key)
        assert f"environment {ready.key} is damaged: building it again" in bench.said
        assert (folder(again) / path).exists()


@pytest.mark.parametrize(
    ("path", "package"),
    [
        ("lib/a-library", "a-library-1.0-0"),
        (f"{SITE}/arrays.py", "arrays-1.5-0"),
        (f"{SITE}/alpha/__init__.py", "alpha-1.0"),
    ],
)
def test_damage_that_a_check_sees(bench: Bench, path: str, package: str) -> None:
    asked = bench.spec("tool", "arrays", pip=("alpha",))
    ready = bench.prepare(asked)
    bad = folder(ready) / path
    text = bad.read_text()
    bad.write_text("y" * len(text))  # its other names in conda's or uv's cache are as bad now
    assert integrity.damaged(folder(ready)) == {}
    assert [*integrity.damaged(folder(ready), content=True)] == [package]
    [found] = check(bench.cache, (ready.key,))
    assert package in found.problems[0]
    again = bench.prepare(asked)
    assert (again.reused, bad.read_text()) == (False, text)
    assert integrity.damaged(folder(again), content=True) == {}


def test_what_a_quick_check_sees(bench: Bench) -> None:
    ready = bench.prepare(bench.spec("tool", "arrays"))
    (folder(ready) / "lib/a-library").write_text("longer")
    (folder(ready) / "bin/tool").unlink()
    (folder(ready) / "conda-meta/pip-24.0-0.json").write_text("{")
    assert integrity.damaged(folder(ready)) == {
        "a-library-1.0-0": "lib/a-library has 6 bytes, not 1",
        "pip-24.0-0": "conda-meta/pip-24.0-0.json is no list of files",
        "tool-2.0-0": "bin/tool: No such file or directory",
    }


def test_records_of_other_programs(tmp_path: Path) -> None:
    """conda tells the size before it writes the prefix into a file, and what the file holds afterwards."""
    content = b"in /here"
    digest = hashlib.sha256(content).hexdigest()
    text = {"path_type": "hardlink", "prefix_placeholder": "/opt/placeholder", "sha256": "0", "size_in_bytes": 99}
    paths = [
        {"_path": "told", **text, "sha256_in_prefix": digest},
        {"_path": "not-told", **text},
        {"_path": "lib/module.pyc", "path_type": "hardlink", "sha256": "0", "size_in_bytes": 99},
        {"_path": "script", "path_type": "unix_python_entry_point"},
    ]
    (tmp_path / "conda-meta").mkdir()
    (tmp_path / "conda-meta/a-1-0.json").write_text(json.dumps({"paths_data": {"paths": paths}}))
    for name in ("told", "not-told", "script"):
        (tmp_path / name).write_bytes(content)
    assert integrity.damaged(tmp_path, content=True) == {}
    (tmp_path / "told").write_bytes(b"in /else")
    assert integrity.damaged(tmp_path) == {}
    assert integrity.damaged(tmp_path, content=True) == {"a-1-0": "told has other content than was installed"}


def test_files_that_pip_has_written_over(bench: Bench) -> None:
    bench.channel.add("early", "1.0", ("python",), {f"{SITE}/beta/__init__.py": "VERSION = 'early'\n"})
    ready = bench.prepare(bench.spec("early", pip=("beta",)))
    assert output(ready, "python", "-c", "import beta; print(beta.VERSION)") == "1.0"
    assert integrity.damaged(folder(ready), content=True) == {}


def test_a_package_without_files_is_whole(bench: Bench) -> None:
    bench.channel.add("meta", "1.0", ("tool",))
    assert integrity.damaged(folder(bench.prepare(bench.spec("meta"))), content=True) == {}
