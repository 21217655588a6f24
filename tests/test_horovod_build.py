"""Building Horovod, the ways in which it goes wrong, and what is left then: real processes, a toy of a release."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import horovod_toys as toys
import pytest
from conftest import companion, processes_with, wait_until

from mlflow_pytorch_estimator.environments.runner import BuildCancelled, Runner
from mlflow_pytorch_estimator.errors import EnvironmentBuildError
from mlflow_pytorch_estimator.horovod import Options, Plan, obtain, wheels
from mlflow_pytorch_estimator.horovod.environment import described
from mlflow_pytorch_estimator.horovod.install import loads
from mlflow_pytorch_estimator.horovod.obtain import Obtained
from mlflow_pytorch_estimator.horovod.programs import Programs
from mlflow_pytorch_estimator.horovod.release import WITHOUT_CUDA, Release
from mlflow_pytorch_estimator.horovod.source import pip_environment, sha256, unpack

PLAIN = Options(gpu="none", mpi=False)


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with a torch without CUDA."""
    return toys.environment(tmp_path_factory.mktemp("plain") / "env")


@pytest.fixture(scope="session")
def cuda_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with a CUDA torch."""
    return toys.environment(tmp_path_factory.mktemp("cuda") / "env", cuda="13.2")


@pytest.fixture(scope="session")
def links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links, in place of an index that has the release."""
    return tmp_path_factory.mktemp("links")


@pytest.fixture(scope="session")
def toy(links: Path) -> Release:
    return toys.release(links)


@dataclass
class Bench:
    """One cache of wheels, and what was said."""

    wheels: Path
    python: Path
    environ: dict[str, str]
    release: Release
    log: io.StringIO = field(default_factory=io.StringIO)
    said: list[str] = field(default_factory=list)
    cancelled: Callable[[], bool] = lambda: False

    @property
    def programs(self) -> Programs:
        return Programs(Runner(self.log, self.cancelled, self.said.append, 2), self.environ)

    def plan(self, options: Options = PLAIN) -> Plan:
        return described(self.python, options, self.programs)

    def obtained(self, options: Options = PLAIN, **environ: str) -> Obtained:
        given = self.environ | environ
        return obtain(self.plan(options), self.python, self.wheels, self.programs.runner, given, release=self.release)

    def obtain(self, options: Options = PLAIN, **environ: str) -> Path:
        return self.obtained(options, **environ).wheel

    def entry(self, options: Options = PLAIN) -> Path:
        return self.wheels / self.plan(options).key

    def supply(self, links: Path) -> None:
        """Place the release where it is kept: pip takes as long as all else of a toy."""
        (self.wheels / "sources").mkdir(parents=True)
        shutil.copy(links / self.release.file, self.wheels / "sources")

    def leftovers(self) -> list[str]:
        return sorted(path.name for path in self.wheels.iterdir() if path.name.endswith(".build"))


@pytest.fixture
def bench(tmp_path: Path, python: Path, links: Path, toy: Release) -> Bench:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HOROVOD_")}
    environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links), "PIP_CONFIG_FILE": os.devnull}
    made = Bench(tmp_path / "wheels", python, environ, toy)
    made.supply(links)
    return made


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory, python: Path, links: Path, toy: Release) -> Path:
    """A cache with one wheel, for those who only read; ``stocked`` has a copy of its own."""
    made = Bench(tmp_path_factory.mktemp("stock") / "wheels", python, dict(os.environ), toy)
    made.supply(links)
    made.obtain()
    return made.wheels


@pytest.fixture
def stocked(bench: Bench, stock: Path) -> Bench:
    """Has its wheel."""
    shutil.rmtree(bench.wheels)
    shutil.copytree(stock, bench.wheels)
    return bench


@pytest.fixture
def unsupplied(bench: Bench) -> Bench:
    """Has to download the release."""
    shutil.rmtree(bench.wheels)
    return bench


def given(wheel: Path) -> dict[str, str]:
    """The variables that the build of a wheel saw."""
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("horovod/torch/given.txt").decode()
    return dict(re.findall(r"'(\w+)': '([^']*)'", text))


# --- building and finding again


def test_built_then_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = bench.obtain(HOROVOD_RANK="1", MAKEFLAGS="-j99")
    assert wheel.parent == bench.entry()
    assert [line for line in bench.said if line.startswith("Horovod")] == [
        "Horovod: the headers of torch 9.1.0 want C++17",
        "Horovod: 50 % compiled",
        "Horovod: 100 % compiled",
        bench.said[-1],
    ]
    assert bench.said[0] == f"building {bench.plan().describe()}"
    assert re.fullmatch(r"Horovod 0\.28\.1 built in \d+ s", bench.said[-1])
    assert bench.leftovers() == []
    seen = given(wheel)
    assert "HOROVOD_RANK" not in seen
    assert re.fullmatch(r"-j[1-9]\d?", seen["MAKEFLAGS"])
    assert seen["MAKEFLAGS"] != "-j99"
    wanted = ("HOROVOD_WITH_PYTORCH", "HOROVOD_WITH_GLOO", "HOROVOD_WITHOUT_MPI", "HOROVOD_WITHOUT_TENSORFLOW")
    assert [seen[name] for name in wanted] == ["1"] * 4
    record = json.loads((wheel.parent / "wheel.json").read_text())
    assert (record["standard"], record["changes"], record["target"]["torch"]) == ("C++17", [], toys.TORCH)
    plan, runner = bench.plan(), bench.programs.runner

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    started = time.monotonic()
    assert obtain(plan, bench.python, bench.wheels, runner, {}, release=bench.release) == Obtained(wheel, plan)
    assert time.monotonic() - started < 0.5


def test_how_many_compilers_run_at_once(bench: Bench) -> None:
    assert given(bench.obtain(CMAKE_BUILD_PARALLEL_LEVEL="3"))["MAKEFLAGS"] == "-j3"


def test_another_environment_with_the_same_torch_gets_the_same_wheel(stocked: Bench, tmp_path: Path) -> None:
    wheel = wheels.find(stocked.entry())
    assert replace(stocked, python=toys.environment(tmp_path / "other")).obtain() == wheel
    assert stocked.said == []


def test_another_torch_than_planned(bench: Bench, tmp_path: Path) -> None:
    plan = bench.plan()
    bench.python = toys.bare(tmp_path / "env")
    with pytest.raises(EnvironmentBuildError) as failure:
        obtain(plan, bench.python, bench.wheels, bench.programs.runner, bench.environ, release=bench.release)
    assert f"{bench.python} has Python 3." in str(failure.value)
    assert str(failure.value).endswith(f" with torch (none), not what was planned: {plan.describe()}")


def test_a_cuda_torch_for_the_cpu_is_the_recorded_change(bench: Bench, cuda_python: Path) -> None:
    bench.python = cuda_python
    options = Options(cuda_home="/nowhere", mpi=False)
    wheel = bench.obtain(options)
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("horovod/torch/FindPytorch.cmake").decode()
    assert text.splitlines() == [
        'string(TOUPPER "${Pytorch_CUDA}" Pytorch_CUDA)',
        "set(Pytorch_CUDA FALSE)",
        'string(TOUPPER "${Pytorch_ROCM}" Pytorch_ROCM)',
        "set(Pytorch_ROCM FALSE)",
    ]
    changes = json.loads((wheel.parent / "wheel.json").read_text())["changes"]
    assert [item["insert"] for item in changes] == ["set(Pytorch_CUDA FALSE)\n", "set(Pytorch_ROCM FALSE)\n"]


@pytest.fixture
def broken_toolkit(tmp_path: Path) -> Path:
    """A CUDA toolkit that looks whole."""
    home = tmp_path / "toolkit"
    for name in ("bin/nvcc", "include/cuda_runtime.h", "include/crt/host_config.h", "lib64/libcudart_static.a"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch(0o755)
    (home / "include/cuda_runtime_api.h").write_text("#define CUDART_VERSION 13000\n")
    (home / "bin/nvcc").write_text("#!/bin/sh\necho 'nvcc fatal: error: it rains'\nexit 1\n")
    return home


def test_a_toolkit_that_does_not_work_is_left_out_with_a_warning(
    bench: Bench, cuda_python: Path, broken_toolkit: Path
) -> None:
    bench.python = cuda_python
    options = Options(cuda_home=str(broken_toolkit), mpi=False)
    assert bench.plan(options).nccl is not None
    wheel = bench.obtain(options)
    assert wheel.parent == bench.entry(PLAIN)
    (warning,) = [line for line in bench.said if line.startswith("warning: ")]
    assert warning.endswith(f"cannot be compiled with {broken_toolkit}/bin/nvcc: nvcc fatal: error: it rains")
    again = bench.obtained(options)
    assert again.wheel == wheel
    assert [f"warning: {notice}" for notice in again.plan.notices] == [warning]
    with pytest.raises(EnvironmentBuildError, match=r"Horovod with NCCL cannot be built: .*it rains"):
        bench.obtain(replace(options, gpu="nccl"))


# --- the source release


def test_the_release_is_downloaded_once(unsupplied: Bench) -> None:
    kept = unsupplied.wheels / "sources/horovod-0.28.1.tar.gz"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"damaged")
    wheel = unsupplied.obtain()
    assert f"{kept} is not the official release: downloading it again" in unsupplied.said
    assert sha256(kept) == unsupplied.release.sha256
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]
    wheel.unlink()
    unsupplied.environ["PIP_FIND_LINKS"] = "/nowhere"
    assert unsupplied.obtain() == wheel


def test_another_file_of_that_name_is_refused(unsupplied: Bench, tmp_path: Path) -> None:
    toys.release(tmp_path / "evil", setup="raise SystemExit('this must never run')")
    unsupplied.environ["PIP_FIND_LINKS"] = str(tmp_path / "evil")
    with pytest.raises(EnvironmentBuildError) as failure:
        unsupplied.obtain()
    assert "the source release horovod-0.28.1.tar.gz cannot be downloaded; where there is no index" in str(
        failure.value
    )
    assert "DO NOT MATCH THE HASHES" in str(failure.value)
    assert "this must never run" not in unsupplied.log.getvalue()
    assert unsupplied.leftovers() == []


def test_an_index_that_has_no_release(unsupplied: Bench) -> None:
    unsupplied.environ["PIP_FIND_LINKS"] = "/nowhere"
    with pytest.raises(EnvironmentBuildError) as failure:
        unsupplied.obtain()
    assert f"place the file in {unsupplied.wheels}/sources" in str(failure.value)
    assert "No matching distribution found for horovod==0.28.1" in str(failure.value)


def test_uvs_indexes_are_pips_too(bench: Bench) -> None:
    environ = {
        "PATH": "/bin",
        "PYTHONPATH": "/somewhere",
        "UV_DEFAULT_INDEX": "mine=https://index.invalid/simple",
        "UV_INDEX": "https://one.invalid other=https://two.invalid",
        "UV_INDEX_OTHER_USERNAME": "me",
        "UV_INDEX_OTHER_PASSWORD": "hunter2",
        "UV_FIND_LINKS": "/a,/b",
        "UV_NO_INDEX": "1",
    }
    made = pip_environment(replace(bench.programs, environ=environ))
    assert {name: value for name, value in made.items() if name.startswith("PIP_")} == {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_INDEX_URL": "https://index.invalid/simple",
        "PIP_EXTRA_INDEX_URL": "https://one.invalid https://me:hunter2@two.invalid",
        "PIP_FIND_LINKS": "/a /b",
        "PIP_NO_INDEX": "1",
    }
    assert "PYTHONPATH" not in made


def test_a_change_that_does_not_fit_is_refused(tmp_path: Path, links: Path, toy: Release) -> None:
    (change, _) = WITHOUT_CUDA
    with pytest.raises(
        EnvironmentBuildError, match=r"FindPytorch.cmake of .* is not as expected: it cannot be changed"
    ):
        unpack(links / toy.file, tmp_path / "source", [replace(change, after="nothing like it\n")])


# --- what goes wrong while it is built


def test_the_compilers_reason_is_shown(bench: Bench) -> None:
    with pytest.raises(EnvironmentBuildError) as failure:
        bench.obtain(CXXFLAGS="-include moon.h")
    title, first = str(failure.value).splitlines()[:2]
    assert title == "Horovod could not be compiled"
    assert "fatal error: moon.h: No such file or directory" in first  # and not what setuptools says before it
    assert "Traceback" not in str(failure.value)
    assert bench.leftovers() == []


def test_a_wheel_that_does_not_load_is_not_kept(bench: Bench) -> None:
    with pytest.raises(
        EnvironmentBuildError, match=r"built but does not load beside torch: .*undefined symbol: nowhere"
    ):
        bench.obtain(CXXFLAGS="-DMISSING")
    assert wheels.find(bench.entry()) is None
    assert bench.leftovers() == []


def test_a_wheel_without_a_part_for_torch(bench: Bench, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.whl", "w"):
        pass
    with pytest.raises(EnvironmentBuildError, match="built without its part for PyTorch"):
        loads(tmp_path / "empty.whl", bench.python, tmp_path, bench.programs)


def test_headers_that_no_standard_suits_end_the_build(bench: Bench, tmp_path: Path) -> None:
    bench.python = toys.environment(tmp_path / "env", wants="999999L")
    with pytest.raises(EnvironmentBuildError, match=r"takes the headers of torch 9\.1\.0 with no C\+\+ standard"):
        bench.obtain()
    assert bench.leftovers() == []


def test_canceling_ends_the_compiler_within_a_second(bench: Bench, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    seen: list[float] = []

    def cancelled() -> bool:
        if pid_file.exists() and pid_file.read_text():
            seen.append(time.monotonic())
        return bool(seen)

    bench.cancelled = cancelled
    with pytest.raises(BuildCancelled):
        bench.obtain(TOY_PID=str(pid_file), TOY_SECONDS="60")
    assert time.monotonic() - seen[0] < 1
    assert processes_with(str(bench.wheels)) == []  # the waiting compiler's variables name it
    assert bench.leftovers() == []


@pytest.mark.parametrize("damage", ["wheel", "hash", "record", "nothing left"])
def test_a_damaged_wheel_is_noticed(stocked: Bench, damage: str) -> None:
    entry = stocked.entry()
    wheel, record = wheels.find(entry), entry / "wheel.json"
    assert wheel is not None
    if damage == "wheel":
        content = bytearray(wheel.read_bytes())
        content[len(content) // 2] ^= 1
        wheel.write_bytes(content)
    elif damage == "hash":
        record.write_text(json.dumps(json.loads(record.read_text()) | {"sha256": "0" * 64}))
    elif damage == "record":
        record.write_text("{")
    else:
        wheel.unlink()
    said: list[str] = []
    assert wheels.find(entry, said.append) is None
    assert said == [f"the Horovod wheel in {entry} is damaged: it is built again"]


def test_a_damaged_wheel_is_built_again(stocked: Bench) -> None:
    wheel = stocked.obtain()
    assert stocked.said == []
    wheel.write_bytes(b"damaged")
    assert stocked.obtain() == wheel
    assert stocked.said[0] == f"the Horovod wheel in {wheel.parent} is damaged: it is built again"
    assert wheels.find(wheel.parent) == wheel
    loads(wheel, stocked.python, stocked.wheels, stocked.programs)


# --- several at once, and ends in the middle

BUILDER = """
import os, sys
from pathlib import Path
from mlflow_pytorch_estimator.environments.runner import Runner
from mlflow_pytorch_estimator.horovod import Options, obtain
from mlflow_pytorch_estimator.horovod.environment import described
from mlflow_pytorch_estimator.horovod.programs import Programs
from mlflow_pytorch_estimator.horovod.release import Release

python, folder, version, digest = sys.argv[1:]
runner = Runner(sys.stderr, lambda: False, lambda line: print(line, flush=True), 2)
plan = described(Path(python), Options(gpu="none", mpi=False), Programs(runner, os.environ))
wheel = obtain(plan, Path(python), Path(folder), runner, os.environ, release=Release(version, digest)).wheel
print(wheel)
"""


@contextmanager
def builder(bench: Bench) -> Iterator[subprocess.Popen[str]]:
    arguments = [str(bench.python), str(bench.wheels), bench.release.version, bench.release.sha256]
    with subprocess.Popen(
        [sys.executable, "-c", BUILDER, *arguments],
        env=bench.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("count", [2, 8])
def test_many_at_once_build_once(bench: Bench, count: int) -> None:
    def build(_: int) -> str:
        with builder(bench) as process:
            return process.communicate(timeout=120)[0]

    with ThreadPoolExecutor(count) as pool:
        outputs = list(pool.map(build, range(count)))
    assert "".join(outputs).count(f"building {bench.plan().describe()}\n") == 1
    assert {text.splitlines()[-1] for text in outputs} == {str(wheels.find(bench.entry()))}
    assert "".join(outputs).count("waiting for another job that builds the same Horovod\n") <= count - 1
    assert bench.leftovers() == []


def test_who_waits_says_so(bench: Bench, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    bench.environ |= {"TOY_PID": str(pid_file), "TOY_SECONDS": "60"}
    with builder(bench) as first:
        wait_until(lambda: pid_file.exists() and pid_file.read_text() != "", 60, "the compiler")
        with builder(bench) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "waiting for another job that builds the same Horovod\n"
            os.kill(int(pid_file.read_text()), signal.SIGTERM)
            assert second.communicate(timeout=60)[0].strip() == first.communicate(timeout=60)[0].splitlines()[-1]


def test_a_builder_that_is_killed_leaves_nothing_that_hurts(bench: Bench, links: Path, tmp_path: Path) -> None:
    """At 20 moments of a build; some of them are before and after it, as in life."""
    lanes = [replace(bench, wheels=tmp_path / f"lane {number}") for number in range(2)]
    for lane in lanes:
        lane.supply(links)
    with ThreadPoolExecutor() as pool:
        reached = set().union(*pool.map(_killed_many_times, lanes, range(2)))
    assert len(reached) >= 3, reached  # moments that differ
    for lane in lanes:
        assert lane.obtain() == wheels.find(lane.entry())
        assert lane.leftovers() == []
        assert [path.name for path in (lane.wheels / "sources").iterdir()] == [lane.release.file]


def _killed_many_times(lane: Bench, seed: int) -> set[str]:
    """Returns the last words before each end."""
    drawn, reached, entry = random.Random(seed), set(), lane.entry()
    started = time.monotonic()
    lane.obtain()
    whole = time.monotonic() - started
    (entry / "wheel.json").unlink()
    # Every second compiler would go on for a minute if nobody ended it.
    slow = {"TOY_PID": str(lane.wheels / "pid"), "TOY_SECONDS": "60"}
    for number in range(10):
        with builder(replace(lane, environ=lane.environ | (slow if number % 2 else {}))) as process:
            time.sleep(drawn.uniform(0.1, 1.2) * whole)
            process.kill()
            output = process.communicate(timeout=30)[0]
        reached.add(output.splitlines()[-1] if output else "")
        wait_until(lambda: processes_with(str(lane.wheels)) == [], 5, "the end of all that the builder started")
        found = wheels.find(entry)
        if found is None:
            assert not (entry / "wheel.json").exists()
        else:
            assert sha256(found) == json.loads((entry / "wheel.json").read_text())["sha256"]
            (entry / "wheel.json").unlink()
    return reached


# --- disks


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Path]:
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "none"]
    mounted = subprocess.run(["mount", *options, folder], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(("megabytes", "large"), [(1, 0), (100, 200)])
def test_a_full_disk(bench: Bench, tmp_path: Path, megabytes: int, large: int) -> None:
    """So small that not even the tools fit; and full in the middle of the compilation."""
    with disk(tmp_path / "disk", megabytes) as bench.wheels:
        with pytest.raises(EnvironmentBuildError) as failure:
            bench.obtain(PLAIN, **({"TOY_BYTES": str(large << 20)} if large else {}))
        lines = str(failure.value).splitlines()
        assert lines[0] == (
            f"no space left on device while building Horovod: free some in {bench.wheels}, or in the temporary folder"
        )
        assert len(lines) <= 4
        assert bench.leftovers() == []
        assert wheels.find(bench.entry()) is None


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Modes do not bind root, a file system does."""
    if os.geteuid() == 0:
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        yield
        return
    folder.chmod(0o500)
    try:
        yield
    finally:
        folder.chmod(0o700)


@pytest.fixture
def shared(bench: Bench, tmp_path: Path) -> Iterator[Path]:
    """A cache of wheels that can become one of somebody else's."""
    if os.geteuid() == 0:
        with disk(tmp_path / "shared", 100) as bench.wheels:
            yield bench.wheels
    else:
        bench.wheels = tmp_path / "shared"
        bench.wheels.mkdir()
        yield bench.wheels


def test_a_wheel_in_a_cache_that_only_others_write(
    bench: Bench, shared: Path, links: Path, cuda_python: Path, broken_toolkit: Path
) -> None:
    bench.supply(links)
    bench.python = cuda_python
    wheel = bench.obtain()
    with read_only(shared):
        assert bench.obtain() == wheel
        # Also where only a trial shows that this is the wheel.
        assert bench.obtain(Options(cuda_home=str(broken_toolkit), mpi=False)) == wheel


def test_no_wheel_in_a_cache_that_only_others_write(bench: Bench, shared: Path) -> None:
    with read_only(shared), pytest.raises(EnvironmentBuildError) as failure:
        bench.obtain()
    assert re.fullmatch(rf"{shared}/\w+\.lock: (Read-only file system|Permission denied)", str(failure.value))


# --- the commands


@pytest.fixture
def cached(stocked: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in the cache that the commands look into."""
    for name in [name for name in os.environ if name.startswith("HOROVOD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GPU_CLUSTER_ENVIRONMENTS", str(stocked.wheels.parent))
    return stocked.obtain()


def horovod(*arguments: str) -> subprocess.CompletedProcess[str]:
    return companion("horovod", *arguments)


def test_a_wheel_for_an_environment_of_ones_own(bench: Bench, cached: Path, tmp_path: Path) -> None:
    python = ("--python", str(bench.python), "--no-mpi")
    done = horovod("build", *python)
    assert (done.stdout, done.stderr, done.returncode) == (f"{cached}\n", "", 0)
    done = horovod("build", *python, "--output", str(tmp_path / "out/put"))
    assert done.stdout == f"{tmp_path}/out/put/{cached.name}\n"
    assert sha256(Path(done.stdout.strip())) == sha256(cached)
    environment = bench.python.parent.parent
    assert horovod("build", "--python", str(environment), "--no-mpi").stdout == f"{cached}\n"


def test_installed_into_an_environment_of_ones_own(bench: Bench, cached: Path, tmp_path: Path) -> None:
    python = toys.environment(tmp_path / "mine")
    done = horovod("build", "--python", str(python), "--no-mpi", "--install")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == f"installed into the environment of {python}"
    code = "import horovod.torch.mpi_lib_v2, cloudpickle, yaml, psutil; print('there')"
    assert subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout == "there\n"


def test_a_wheel_that_is_there_needs_no_torch(
    stocked: Bench, cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.torch_wheel(tmp_path)
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    done = horovod("build", "--torch", toys.TORCH, "--no-mpi")
    assert done.stdout == f"{cached}\n"
    assert done.stderr == ""
    done = horovod("check", "--torch", toys.TORCH, "--no-mpi")
    assert f"PyTorch       {toys.TORCH}, CUDA none\n" in done.stdout
    assert f"wheel         {cached}\n" in done.stdout
    assert done.returncode == 0
    done = horovod("build", "--torch", "9.2.0")
    assert done.returncode == 1
    assert "torch==9.2.0" in done.stderr


def test_check_says_what_is_there(bench: Bench, cached: Path) -> None:
    done = horovod("check", "--python", str(bench.python), "--no-mpi")
    assert done.returncode == 0
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines() if not line.startswith(("CUDA", "would")))
    assert list(lines) == ["compiler", "make", "CMake", "Python.h", "MPI", "PyTorch", "NCCL", "wheel"]
    assert lines["PyTorch"] == "9.1.0, CUDA none"
    assert lines["wheel"] == str(cached)
    assert f"would build   {bench.plan().describe()}\n" in done.stdout
    cached.unlink()
    assert f"not built yet ({cached.parent})" in horovod("check", "--python", str(bench.python), "--no-mpi").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("build", "--install"), "--install needs --python: the environment to install into"),
        (("build", "--torch", "2.15", "--python", sys.executable), "--torch and --python exclude each other: "),
        (("check", "--torch", "2.15", "--python", sys.executable), "--torch and --python exclude each other: "),
        (("build", "--python", "/nowhere"), "Path '/nowhere' does not exist."),
        (("build", "--gpu", "tpu"), "'tpu' is not one of 'nccl', 'none'."),
        (("build", "--torch", "latest"), "'latest' is not a version of PyTorch, such as "),
        (("build", "--torch", "0.4"), "PyTorch 0.4 has no build for Python 3.10 or newer"),
        (("build", "--python", "/bin/true"), "/bin/true is no Python interpreter that can be run"),
    ],
)
def test_errors_are_one_line(arguments: tuple[str, ...], message: str) -> None:
    done = horovod(*arguments)
    assert done.returncode in (1, 2)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert message in line
    assert "Traceback" not in done.stderr + done.stdout


def test_an_environment_without_torch_is_told(tmp_path: Path) -> None:
    python = toys.bare(tmp_path / "env")
    done = horovod("build", "--python", str(python))
    assert f"Error: {python} has no PyTorch: install the one that Horovod is to be built for" in done.stderr
    done = horovod("check", "--python", str(python))
    assert done.returncode == 1
    assert "would build   nothing: Horovod is built for the PyTorch of its environment" in done.stdout


def test_variables_that_cannot_be_followed_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOROVOD_WITHOUT_GLOO", "1")
    for command in ("build", "check"):
        done = horovod(command)
        assert done.stderr == "Error: HOROVOD_WITHOUT_GLOO=1: jobs are started through Gloo; unset it\n"
        assert done.returncode == 1
