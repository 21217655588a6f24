"""Environments when things go wrong: killed builders, full and read-only disks, bad packages, damaged files."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import processes_with, wait_until
from wheelhouse import LocalBench, begin, envs, module, spec, works

from mlflow_pytorch_estimator.environments import BuildCancelled, cache, extras
from mlflow_pytorch_estimator.errors import EnvironmentBuildError
from mlflow_pytorch_estimator.keeper import descendants

TINY = ("tiny0", "tiny1", "tiny2")
# Writes a wheel by hand, after it was told to go on.
BACKEND = """
import pathlib, time, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    if {wait!r}:
        pathlib.Path({wait!r} + " waits").touch()
    while {wait!r} and not pathlib.Path({wait!r}).exists():
        time.sleep(0.01)
    with zipfile.ZipFile(folder + "/mine-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("mine/__init__.py", "VERSION = 1")
        wheel.writestr("mine-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: mine\\nVersion: 1.0\\n")
        wheel.writestr("mine-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("mine-1.0.dist-info/RECORD", "")
    return "mine-1.0-py3-none-any.whl"
"""
IN_TREE = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalBench:
    made = LocalBench(tmp_path, monkeypatch)
    for name in TINY:
        made.index.wheel(name)
    return made


def package(bench: LocalBench, wait: Path | None = None) -> str:
    """A package of the project, whose build goes on once the file ``wait`` is there."""
    folder = bench.project / "mine"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(IN_TREE + '[project]\nname = "mine"\nversion = "1.0"\n')
    (folder / "backend.py").write_text(BACKEND.format(wait=str(wait or "")))
    return "./mine"


def reason(bench: LocalBench, *requirements: str) -> str:
    """Why an environment is not built; nothing of it is left."""
    before = bench.entries()
    with pytest.raises(EnvironmentBuildError) as failure:
        bench.prepare(*requirements)
    assert bench.entries() == before
    assert "Traceback" not in str(failure.value)
    return str(failure.value)


# --- killed


# Has imported everything, and forks a builder for each line; so 50 cost as much as 50 builds.
FORKS = """
import json, os, sys, time
from pathlib import Path
from mlflow_pytorch_estimator.environments import EnvironmentSpec, find_ready, prepare
project = Path(sys.argv[1])
find_ready(EnvironmentSpec("uv", None, (), (), ""), project, Path("/nowhere"), base=())
for line in sys.stdin:
    description, folder = json.loads(line)
    pid = os.fork()
    if pid == 0:
        spec = EnvironmentSpec.from_json(description)
        prepare(spec, project, Path(folder), log=sys.stderr, cancelled=lambda: False, say=lambda line: None, base=())
        time.sleep(60)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


@pytest.fixture
def forks(bench: LocalBench, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """A function that starts a builder and kills it after some seconds."""
    with (
        (tmp_path / "builders.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", FORKS, str(bench.project)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):

        def build_and_die(seconds: float, *requirements: str) -> None:
            assert process.stdin is not None
            process.stdin.write(json.dumps([spec(*requirements).to_json(), str(bench.cache)]) + "\n")
            process.stdin.flush()
            pid = int(_line(process))
            time.sleep(seconds)
            os.kill(pid, signal.SIGKILL)
            assert int(_line(process)) == signal.SIGKILL

        yield build_and_die


def test_builder_killed_at_fifty_moments(bench: LocalBench, tmp_path: Path, forks: Callable[..., None]) -> None:
    builds = {TINY: 0.0, (*TINY, package(bench)): 0.0}
    for asked in builds:
        bench.prepare(*asked)  # so that downloads are in uv's cache
        bench.cache = tmp_path / f"cache of {len(asked)}"
        builds[asked] = bench.prepare(*asked).seconds
    chance = random.Random(4)
    left = set()
    for number in range(50):
        bench.cache = tmp_path / f"cache{number}"
        asked, seconds = [*builds.items()][number % 2]
        forks((number + chance.random()) / 50 * seconds * 1.1, *asked)
        wait_until(lambda: not processes_with(str(bench.cache)), 5, "the end of all that the builder had started")
        left.add(tuple(sorted({name.partition("-")[0] for name in bench.entries()})))
        before = bench.find(*asked)
        modules = [name.removeprefix("./") for name in asked]
        if before:
            works(before, *modules)
        ready = bench.prepare(*asked)
        assert ready.reused == bool(before)
        assert bench.entries() == [ready.key]
        if not before:
            works(ready, *modules)
    assert len(left) >= 3, left  # nothing, half a resolution, half an environment or a ready one


@pytest.mark.parametrize(
    ("victim", "said"),
    [
        ("keeper.py", "uv was killed by SIGKILL: was there too little memory?"),
        ("uv", "uv was killed by SIGKILL: was there too little memory?"),
        ("backend", "signal: 9 (SIGKILL)"),
    ],
)
def test_a_program_of_a_build_is_killed(bench: LocalBench, victim: str, said: str) -> None:
    """Whatever the kernel takes when memory is short, the builder says so, and nothing half is left."""
    asked = (*TINY, package(bench, bench.project / "never"))
    with bench.builder(*asked) as process:
        begin(process)
        wait_until((bench.project / "never waits").exists, 20, "the build")
        programs = _programs(process.pid)
        os.kill(programs[victim], signal.SIGKILL)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert said in err.rpartition("refused: ")[2], err
    assert bench.entries() == []
    assert processes_with(str(bench.uv_cache)) == []


def _programs(builder: int) -> dict[str, int]:
    """Keeper, uv and the build backend that waits, of those that a builder has started."""
    found = {}
    for pid in descendants(builder):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if any("build_wheel(" in word for word in words):
                found["backend"] = pid
            elif names := [Path(word).name for word in words if word.endswith(("keeper.py", "/uv"))]:
                found[names[0]] = pid
    return found


def test_a_tidier_killed_in_the_middle_leaves_a_whole_environment(bench: LocalBench) -> None:
    ready = bench.prepare(*TINY)
    marker = ready.python.parent.parent / cache.MARKER
    marker.rename(marker.with_name(f"{cache.MARKER}.withdrawn"))
    assert bench.find(*TINY) is None
    assert bench.prepare(*TINY).reused
    assert bench.find(*TINY) is not None


# --- several at once


@pytest.mark.parametrize("number", [2, 8])
def test_builders_at_once(bench: LocalBench, number: int) -> None:
    going_on = bench.project / "go"
    asked = (*TINY, package(bench, going_on))
    with ExitStack() as stack:
        processes = [stack.enter_context(bench.builder(*asked)) for _ in range(number)]
        for process in processes:
            begin(process)
        said: list[list[str]] = [[_line(process)] for process in processes]
        first = [lines[0] for lines in said]
        assert first.count("resolving 4 requirements\n") == 1
        assert first.count("waiting for another job that resolves the same requirements\n") == number - 1
        going_on.touch()
        for process, lines in zip(processes, said, strict=True):
            lines.extend(process.communicate(timeout=60)[0].splitlines())
    last = [lines[-1].split() for lines in said]
    assert sorted(words[0] for words in last) == ["built", *["reused"] * (number - 1)]
    assert len({words[1] for words in last}) == 1
    assert "".join(itertools.chain(*said)).count("building environment") == 1
    assert bench.entries() == [Path(last[0][1]).parent.parent.name]


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_whoever_waits_for_a_build_says_so_and_can_be_cancelled(bench: LocalBench) -> None:
    asked = (*TINY, package(bench))
    folder = bench.cache / bench.prepare(*asked).key
    (folder / cache.MARKER).unlink()
    with cache.trying(folder) as mine:
        assert mine
        with pytest.raises(BuildCancelled):
            bench.prepare(*asked, cancelled=lambda: len(bench.said) > 0)
    assert bench.said == [f"waiting for another job that builds environment {folder.name}"]


# --- disks


def test_read_only_cache(bench: LocalBench, mount: Callable[..., Path]) -> None:
    ready = bench.prepare(*TINY)
    mount(bench.cache, "--bind", str(bench.cache))
    mount(bench.cache, "-o", "remount,ro,bind")
    found = bench.prepare(*TINY)
    assert (found.reused, found.python) == (True, ready.python)
    assert found.claim(bench.project)
    words = reason(bench, "tiny0")
    assert words.startswith(f"the environment is not in {bench.cache} yet and cannot be built there (")
    assert "Read-only file system" in words
    assert "GPU_CLUSTER_ENVIRONMENTS" in words
    assert "\n" not in words
    module(ready, "tiny0").stat()
    listed = envs("list")
    assert (listed.exit_code, listed.stderr) == (0, "")
    assert ready.key in listed.stdout


@pytest.mark.parametrize("place", ["environments", "uv"])
def test_full_disk(bench: LocalBench, mount: Callable[..., Path], tmp_path: Path, place: str) -> None:
    bench.index.wheel("large", size=3 << 20)
    # One MB is left, and after the failure more than enough: uv may end before it has cleared its own half file.
    disk = mount(tmp_path / "disk", "-t", "tmpfs", "-o", "size=9m", "none")
    (disk / "filler").write_bytes(b"x" * (8 << 20))
    if place == "environments":
        bench.cache = disk / "cache"
    else:
        bench.uv_cache.symlink_to(disk)
    words = reason(bench, "tiny0", "large")
    assert words.startswith(f"no space left on device while building in {bench.cache}: free some, or move")
    (disk / "filler").unlink()
    works(bench.prepare("tiny0", "large"), "tiny0", "large")


def test_disk_without_room_for_a_file(bench: LocalBench, mount: Callable[..., Path], tmp_path: Path) -> None:
    disk = mount(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m,nr_inodes=4", "none")
    bench.cache = disk / "cache"
    assert reason(bench, *TINY).startswith(f"no space left on device while building in {bench.cache}: ")


# --- packages


def test_reasons_are_whole_lines_whatever_the_width_of_the_terminal(
    bench: LocalBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    words = reason(bench, "tiny0", "nothing-of-this-name")
    assert "nothing-of-this-name was not found in the provided package locations" in words


def test_package_that_does_not_exist(bench: LocalBench) -> None:
    words = reason(bench, "tiny0", "nothing-of-this-name")
    assert "nothing-of-this-name was not found in the provided package locations" in words


def test_requirement_of_a_package_that_does_not_exist(bench: LocalBench) -> None:
    bench.index.wheel("needy", requires="absent>=2")
    words = reason(bench, "needy")
    assert "absent was not found in the provided package locations" in words
    assert "needy depend on absent>=2" in words


def test_version_without_a_wheel_for_this_python(bench: LocalBench) -> None:
    bench.index.wheel("old", version="5.4.1", tag="cp35-cp35m-manylinux1_x86_64")
    words = reason(bench, "old==5.4.1")
    assert "old==5.4.1 has no wheels with a matching Python ABI tag" in words


def test_package_that_does_not_compile(bench: LocalBench) -> None:
    bench.index.installed("setuptools")
    bench.index.sdist(
        "broken",
        {
            "pyproject.toml": '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n',
            "setup.py": (
                "from setuptools import Extension, setup\n"
                "setup(name='broken', version='1.0', py_modules=[],"
                " ext_modules=[Extension('broken', ['broken.c'])])\n"
            ),
            "broken.c": '#include "the_moon.h"\nint nothing;\n',
        },
    )
    words = reason(bench, "broken")
    assert "broken" in words.splitlines()[0]
    assert "fatal error: the_moon.h: No such file or directory" in words


# --- damage


def test_deleted_list_of_files(bench: LocalBench) -> None:
    ready = bench.prepare(*TINY)
    next(ready.python.parent.parent.glob("lib/python3*/site-packages/tiny1-1.0.dist-info/RECORD")).unlink()
    assert bench.find(*TINY) is None
    again = bench.prepare(*TINY)
    assert (again.reused, again.key) == (False, ready.key)
    assert f"environment {ready.key} is damaged: building it again" in bench.said
    works(again, *TINY)


def test_deleted_interpreter(bench: LocalBench) -> None:
    ready = bench.prepare(*TINY)
    ready.python.unlink()
    checked = envs("check")
    assert checked.exit_code == 1
    assert f"no interpreter: {ready.python} cannot be run" in checked.stdout
    again = bench.prepare(*TINY)
    assert not again.reused
    works(again, *TINY)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "truncated": lambda path: path.write_bytes(b""),
    "changed": lambda path: path.write_bytes(path.read_bytes().replace(b"1.0", b"6.6")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_module_is_found_and_built_again(bench: LocalBench, damage: str) -> None:
    ready = bench.prepare(*TINY)
    DAMAGES[damage](module(ready, "tiny1"))
    assert bench.find(*TINY) is not None  # the quick look of a job does not see it
    quick = envs("check", "--quick")
    assert quick.exit_code == (0 if damage == "changed" else 1)
    checked = envs("check")
    assert (checked.exit_code, checked.stderr) == (1, "")
    assert f"{ready.key}  environment: damaged\n    tiny1-1.0: tiny1/__init__.py" in checked.stdout
    assert "the next job that wants it builds it again" in checked.stdout
    assert bench.find(*TINY) is None
    again = bench.prepare(*TINY)
    assert not again.reused
    works(again, *TINY)  # not with the damaged file from uv's cache
    assert envs("check").exit_code == 0


def test_damaged_lock_is_chosen_anew(bench: LocalBench) -> None:
    ready = bench.prepare(*TINY)
    bench.index.wheel("tiny0", version="2.0")
    assert bench.prepare(*TINY).key == ready.key  # what was chosen once stays
    [lock] = (bench.cache / "locks").glob("*.json")
    lock.write_text(lock.read_text()[:100])
    checked = envs("check")
    assert checked.exit_code == 1
    assert f"{lock} cannot be read" in checked.stdout
    again = bench.prepare(*TINY)
    assert "tiny0==2.0" in again.freeze
    assert json.loads(lock.read_text())["packages"][0] == "tiny0==2.0"
    assert bench.prepare(*TINY).reused


def test_a_build_that_fails_in_the_middle_can_be_repeated(bench: LocalBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise EnvironmentBuildError("in the middle")

    with monkeypatch.context() as patch:
        patch.setattr(extras, "add", fail)
        assert reason(bench, *TINY) == "in the middle"
    works(bench.prepare(*TINY), *TINY)
