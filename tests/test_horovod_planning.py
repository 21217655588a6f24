"""What would be built for which environment: decided from a lock and from files, without a build."""

from __future__ import annotations

import io
import os
import re
import shutil
import sysconfig
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import horovod_toys as toys
import pytest

from mlflow_pytorch_estimator.environments import EnvironmentSpec
from mlflow_pytorch_estimator.environments.base import job_packages
from mlflow_pytorch_estimator.environments.runner import Runner
from mlflow_pytorch_estimator.errors import ConfigError, EnvironmentBuildError, EnvironmentSpecError
from mlflow_pytorch_estimator.horovod import Options, Plan, cuda, plan, planning, toolchain
from mlflow_pytorch_estimator.horovod.inspection import Facts, inspect
from mlflow_pytorch_estimator.horovod.mpi import find_mpi
from mlflow_pytorch_estimator.horovod.programs import Programs
from mlflow_pytorch_estimator.horovod.standard import cxx_standard
from mlflow_pytorch_estimator.horovod.trials import attainable

CPU_TORCH = {"torch": "2.15.0+cpu", "numpy": "2.4.0"}
CUDA_TORCH = {
    "torch": "2.15.0",
    "numpy": "2.4.0",
    "nvidia-cuda-runtime": "13.2.86",
    "nvidia-nccl-cu13": "2.30.7",
}
FACTS = Facts("3.11.7", "2.15.0", "", "/nowhere/torch", "", sysconfig.get_path("include"), (), ())


def toolkit(home: Path, version: int = 13000, *, without: str = "") -> Path:
    """A CUDA toolkit as it lies on disk."""
    files = {
        "bin/nvcc": "#!/bin/sh\necho 'nvcc: error: nothing works here'; exit 1\n",
        "include/cuda_runtime_api.h": f"#define CUDART_VERSION  {version}\n",
        "include/cuda_runtime.h": "",
        "include/crt/host_config.h": "",
        "lib64/libcudart_static.a": "",
    }
    for name, text in files.items():
        if name != without:
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(text)
    if without != "bin/nvcc":
        (home / "bin/nvcc").chmod(0o755)
    return home


def nccl(home: Path, version: str = "2.21.5") -> Path:
    (home / "include").mkdir(parents=True, exist_ok=True)
    (home / "lib").mkdir(exist_ok=True)
    numbers = zip(("MAJOR", "MINOR", "PATCH"), version.split("."), strict=True)
    (home / "include/nccl.h").write_text("".join(f"#define NCCL_{name} {number}\n" for name, number in numbers))
    (home / "lib/libnccl.so.2").touch()
    return home


def mpicxx(folder: Path, works: bool = True) -> str:
    """A folder for PATH with an MPI's compiler."""
    (folder / "openmpi").mkdir(parents=True)
    real = folder / "openmpi/opal_wrapper"
    real.write_text(f"#!/bin/sh\n{'exit 0' if works else 'echo mpi.h: error: not found; exit 1'}\n")
    real.chmod(0o755)
    (folder / "mpicxx").symlink_to(real)
    return str(folder)


def planned(
    locked: Mapping[str, str], home: Path | str = "", python: str = "3.11.7", path: str = "", **options: object
) -> Plan:
    given: dict[str, object] = {"cuda_home": str(home or "/nowhere"), **options}
    return plan(locked, python, Options(**given), {"PATH": path})  # type: ignore[arg-type]  # as the test says


# --- GPU operations


def test_a_torch_without_cuda_is_built_for_the_cpu(tmp_path: Path) -> None:
    made = planned(CPU_TORCH, toolkit(tmp_path))
    assert (made.toolkit, made.nccl, made.mpi, made.notices) == (None, None, None, ())
    assert made.target.torch == "2.15.0"
    assert made.target.torch_cuda == ""
    assert made.describe() == "Horovod 0.28.1 for torch 2.15.0, Python 3.11: Gloo"


def test_a_torch_with_cuda_and_its_toolkit_gets_nccl(tmp_path: Path) -> None:
    made = planned(CUDA_TORCH, toolkit(tmp_path))
    assert made.toolkit == cuda.Toolkit(tmp_path, "13.0", ())
    assert made.nccl == cuda.Nccl("2.30.7", "nvidia-nccl-cu13")
    assert made.notices == ()
    assert made.describe() == "Horovod 0.28.1 for torch 2.15.0, Python 3.11: Gloo, NCCL 2.30.7 (CUDA 13.0)"


@pytest.mark.parametrize(
    ("without", "version", "seen"),
    [
        ("bin/nvcc", 13000, "found: none in {home}"),
        ("include/cuda_runtime_api.h", 13000, "found: CUDA unknown in {home}"),
        ("include/cuda_runtime.h", 13000, "found: CUDA 13.0 in {home} without cuda_runtime.h"),
        ("include/crt/host_config.h", 13000, "found: CUDA 13.0 in {home} without crt/host_config.h"),
        ("lib64/libcudart_static.a", 13000, "found: CUDA 13.0 in {home} without libcudart_static.a"),
        ("", 12040, "found: CUDA 12.4 in {home}"),
    ],
)
def test_a_toolkit_that_does_not_fit(tmp_path: Path, without: str, version: int, seen: str) -> None:
    home = toolkit(tmp_path, version, without=without)
    made = planned(CUDA_TORCH, home)
    assert (made.toolkit, made.nccl, made.target.toolkit, made.target.nccl) == (None, None, "", "")
    reason = f"it needs a CUDA 13 toolkit (nvcc; HOROVOD_CUDA_HOME says where it lies), {seen.format(home=home)}"
    (notice,) = made.notices
    assert notice == (
        "Horovod is built for the CPU (Gloo) although torch 2.15.0 is a CUDA 13.2 build; it refuses tensors on a GPU. "
        f"GPU operations: {reason}"
    )
    with pytest.raises(EnvironmentSpecError) as failure:
        planned(CUDA_TORCH, home, gpu="nccl")
    assert str(failure.value) == f"Horovod with NCCL for torch 2.15.0 cannot be built here: {reason}"


def test_an_nvcc_that_cannot_be_run(tmp_path: Path) -> None:
    toolkit(tmp_path)
    (tmp_path / "bin/nvcc").chmod(0o644)
    assert "without an nvcc that can be run" in planned(CUDA_TORCH, tmp_path).notices[0]


def test_nccl_for_a_torch_without_cuda_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentSpecError, match="this torch has no CUDA; install one that has"):
        planned(CPU_TORCH, toolkit(tmp_path), gpu="nccl")


def test_no_gpu_operations_where_none_are_wanted(tmp_path: Path) -> None:
    made = planned(CUDA_TORCH, toolkit(tmp_path), gpu="none")
    assert (made.toolkit, made.notices, made.target.torch_cuda) == (None, (), "13.2")


@pytest.mark.parametrize(
    ("torch", "version"), [("2.5.1+cu124", "12.4"), ("2.0.1+cu118", "11.8"), ("2.5.1+cpu", ""), ("2.5.1+rocm6.2", "")]
)
def test_the_version_of_torch_says_its_cuda(torch: str, version: str) -> None:
    assert planning.torch_cuda({"torch": torch, "nvidia-cuda-runtime-cu12": "12.1.3"}) == version


def test_the_runtime_beside_torch_says_its_cuda() -> None:
    assert planning.torch_cuda({"torch": "2.5.1", "nvidia-cuda-runtime-cu12": "12.1.105"}) == "12.1"
    assert planning.torch_cuda({"torch": "2.5.1"}) == ""


def test_where_nccl_is_taken_from(tmp_path: Path) -> None:
    home, other = toolkit(tmp_path / "cuda"), nccl(tmp_path / "other", "2.19.3")
    alone = {name: version for name, version in CUDA_TORCH.items() if name != "nvidia-nccl-cu13"}
    named = planned(CUDA_TORCH, home, passed=(("HOROVOD_NCCL_HOME", str(other)),))
    assert named.nccl == cuda.Nccl("2.19.3", "", str(other / "include"), str(other / "lib"))
    nccl(home)
    assert planned(CUDA_TORCH, home).nccl == cuda.Nccl("2.30.7", "nvidia-nccl-cu13")
    assert planned(alone, home).nccl == cuda.Nccl("2.21.5", "", str(home / "include"), str(home / "lib"))
    # What the user names is the only place that counts.
    made = planned(alone, home, passed=(("HOROVOD_NCCL_HOME", str(tmp_path / "empty")),))
    assert made.nccl is None
    assert f"there is a CUDA toolkit ({home}) but no NCCL: apt install libnccl-dev, " in made.notices[0]


def test_nccl_whose_parts_lie_apart(tmp_path: Path) -> None:
    other = nccl(tmp_path / "other")
    (tmp_path / "libraries").mkdir()
    (other / "lib/libnccl.so.2").rename(tmp_path / "libraries/libnccl.so.2")
    passed = (("HOROVOD_NCCL_INCLUDE", str(other / "include")), ("HOROVOD_NCCL_LIB", str(tmp_path / "libraries")))
    found = planned(CUDA_TORCH, toolkit(tmp_path / "cuda"), passed=passed).nccl
    assert found == cuda.Nccl("2.21.5", "", str(other / "include"), str(tmp_path / "libraries"))


def test_toolkits_the_most_wanted_first(tmp_path: Path) -> None:
    one, two = toolkit(tmp_path / "one", 12040), toolkit(tmp_path / "two")
    (tmp_path / "link").symlink_to(two)
    environ = {"CUDA_HOME": str(tmp_path / "link"), "CUDA_PATH": str(one), "PATH": str(one / "bin")}
    assert [item.home for item in cuda.toolkits(Options(), environ)][:2] == [two, one]
    made = plan(CUDA_TORCH, "3.11.7", Options(), environ)
    assert made.toolkit is not None
    assert made.toolkit.home == two
    assert cuda.toolkits(Options(cuda_home="/nowhere"), environ) == []


def test_a_toolkit_that_looks_whole_and_does_not_work(programs: Programs, tmp_path: Path) -> None:
    facts = replace(FACTS, nccl=str(nccl(tmp_path / "nccl")))
    made = planned(CUDA_TORCH, toolkit(tmp_path / "cuda"))
    left = attainable(made, "/usr/bin/c++", facts, tmp_path, programs)
    assert (left.toolkit, left.nccl) == (None, None)
    assert left.key == planned(CUDA_TORCH).key
    reason = f"a small program cannot be compiled with {tmp_path}/cuda/bin/nvcc: nvcc: error: nothing works here"
    assert left.notices[0].endswith(f"GPU operations: {reason}")
    with pytest.raises(EnvironmentBuildError, match=f"Horovod with NCCL cannot be built: {reason}"):
        attainable(replace(made, options=Options(gpu="nccl")), "/usr/bin/c++", facts, tmp_path, programs)


# --- MPI


def test_mpi_where_there_is_one(tmp_path: Path) -> None:
    path = mpicxx(tmp_path)
    made = planned(CPU_TORCH, path=path)
    assert made.mpi is not None
    assert (made.mpi.name, made.mpi.compiler) == ("Open MPI", tmp_path / "mpicxx")
    assert made.describe().endswith(": Gloo, MPI (Open MPI)")
    assert planned(CPU_TORCH, path=path, mpi=True) == replace(made, options=replace(made.options, mpi=True))
    assert planned(CPU_TORCH, path=path, mpi=False).mpi is None
    assert planned(CPU_TORCH, path=path, mpi=False).key == planned(CPU_TORCH).key


def test_mpi_that_is_not_there() -> None:
    assert planned(CPU_TORCH, path="/nowhere").mpi is None
    with pytest.raises(EnvironmentSpecError, match=r"needs mpicxx on PATH: apt install libopenmpi-dev openmpi-bin, "):
        planned(CPU_TORCH, path="/nowhere", mpi=True)


def test_another_mpi_is_another_wheel(tmp_path: Path) -> None:
    path = mpicxx(tmp_path)
    key = planned(CPU_TORCH, path=path).key
    os.utime(tmp_path / "openmpi/opal_wrapper", (1, 1))
    assert planned(CPU_TORCH, path=path).key != key
    assert find_mpi({"PATH": ""}) is None


def test_mpi_that_does_not_work(programs: Programs, tmp_path: Path) -> None:
    made = planned(CPU_TORCH, path=mpicxx(tmp_path / "bin", works=False))
    left = attainable(made, "/usr/bin/c++", FACTS, tmp_path, programs)
    assert left.mpi is None
    assert left.key == planned(CPU_TORCH).key
    assert left.notices[0].startswith("Horovod is built without MPI: a small program cannot be compiled with ")
    with pytest.raises(EnvironmentBuildError, match=r"Horovod with MPI cannot be built: .*mpi.h: error: not found"):
        attainable(replace(made, options=Options(mpi=True)), "/usr/bin/c++", FACTS, tmp_path, programs)


# --- what a wheel is known by


def test_torch_is_needed() -> None:
    with pytest.raises(EnvironmentSpecError, match="which names none: add torch to it"):
        planned({"numpy": "2.4.0"})


def test_what_decides_makes_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = toolkit(tmp_path / "13.0")
    keys = [planned(CUDA_TORCH, home).key]
    assert re.fullmatch("[0-9a-f]{16}", keys[0])
    keys += [
        planned(CUDA_TORCH | {"torch": "2.15.1"}, home).key,
        planned(CUDA_TORCH | {"nvidia-cuda-runtime": "13.0.1"}, home).key,
        planned(CUDA_TORCH | {"nvidia-nccl-cu13": "2.30.8"}, home).key,
        planned(CUDA_TORCH, home, python="3.12.1").key,
        planned(CUDA_TORCH, toolkit(tmp_path / "13.1", 13010)).key,
        planned(CUDA_TORCH, home, gpu="none").key,
        planned(CUDA_TORCH, home, path=mpicxx(tmp_path / "bin")).key,
        planned(CUDA_TORCH, home, passed=(("HOROVOD_BUILD_ARCH_FLAGS", "-mavx512f"),)).key,
        plan(CUDA_TORCH, "3.11.7", Options(cuda_home=str(home)), {"PATH": "", "CXXFLAGS": "-O0"}).key,
    ]
    monkeypatch.setattr(planning, "VERSION", "0.29.0")
    keys.append(planned(CUDA_TORCH, home).key)
    monkeypatch.undo()
    monkeypatch.setattr(planning, "host", lambda: "Linux x86_64 glibc 9.99")
    keys.append(planned(CUDA_TORCH, home).key)
    assert len(set(keys)) == len(keys)


def test_nothing_else_makes_another_key(tmp_path: Path) -> None:
    home = toolkit(tmp_path / "here")
    key = planned(CUDA_TORCH, home).key
    assert planned(CUDA_TORCH | {"numpy": "1.26.4", "mlflow": "3.17.0"}, home).key == key
    assert planned(dict(reversed(CUDA_TORCH.items())), home, python="3.11.9").key == key
    assert planned(CUDA_TORCH, toolkit(tmp_path / "there")).key == key
    assert planned(CUDA_TORCH, home, gpu="nccl").key == key
    assert planned(CUDA_TORCH, home, mpi=False).key == key
    given = {"PATH": "/nowhere", "HOME": "/home/somebody", "HOROVOD_CYCLE_TIME": "2", "CXX": "clang++"}
    assert plan(CUDA_TORCH, "3.11.7", Options(cuda_home=str(home)), given).key == key


# --- what it needs when it runs


@pytest.mark.parametrize(
    ("lines", "numpy"),
    [
        (("torch",), "numpy"),
        (("torch==2.15.0",), "numpy"),
        (("torch==99.1.0",), "numpy"),
        (("torch>=1.13",), "numpy"),
        (("torch==1.13.1",), "numpy<2"),
        (("torch==2.2.*",), "numpy<2"),
        (("torch>=2.0", "torch<2.3"), "numpy<2"),
        (("torch==2.3.1",), "numpy"),
        (("torch==1.13.1", "numpy==1.24.4"), "numpy==1.24.4"),
    ],
)
def test_numpy_goes_with_torch(lines: tuple[str, ...], numpy: str) -> None:
    """Beside numpy 2, ``torch.Tensor.numpy`` of the old ones fails, and with it ``hvd.broadcast_object``."""
    requirements, _ = job_packages(EnvironmentSpec("uv", None, lines, (), "test", horovod=True), ("pip",))
    assert [line for line in requirements if line.startswith("numpy")] == [numpy]
    assert {"pip", "cloudpickle", "psutil", "pyyaml"} <= set(requirements)


# --- Horovod's own variables


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, Options()),
        ({"HOROVOD_GPU_OPERATIONS": "NCCL", "HOROVOD_GPU": "CUDA"}, Options(gpu="nccl")),
        ({"HOROVOD_WITH_MPI": "1"}, Options(mpi=True)),
        ({"HOROVOD_WITHOUT_MPI": "1", "HOROVOD_WITH_MPI": "0"}, Options(mpi=False)),
        ({"HOROVOD_CUDA_HOME": "/opt/cuda"}, Options(cuda_home="/opt/cuda")),
        ({"HOROVOD_WITH_PYTORCH": "1", "HOROVOD_WITHOUT_TENSORFLOW": "1", "HOROVOD_RANK": "0"}, Options()),
        (
            {"HOROVOD_NCCL_HOME": "/opt/nccl", "HOROVOD_BUILD_CUDA_CC_LIST": "80,90", "HOROVOD_NCCL_LINK": ""},
            Options(passed=(("HOROVOD_BUILD_CUDA_CC_LIST", "80,90"), ("HOROVOD_NCCL_HOME", "/opt/nccl"))),
        ),
    ],
)
def test_variables_are_options(given: dict[str, str], options: Options) -> None:
    assert Options.from_environ(given) == options


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"HOROVOD_WITHOUT_GLOO": "1"}, "HOROVOD_WITHOUT_GLOO=1: jobs are started through Gloo; unset it"),
        (
            {"HOROVOD_WITH_TENSORFLOW": "1"},
            "HOROVOD_WITH_TENSORFLOW=1: this builds Horovod for PyTorch alone; unset it",
        ),
        ({"HOROVOD_WITH_MPI": "1", "HOROVOD_WITHOUT_MPI": "1"}, "both HOROVOD_WITH_MPI and HOROVOD_WITHOUT_MPI are 1"),
        ({"HOROVOD_GPU": "ROCM"}, "HOROVOD_GPU=ROCM: only CUDA is built; unset it"),
        ({"HOROVOD_GPU_OPERATIONS": "MPI"}, "HOROVOD_GPU_OPERATIONS=MPI: NCCL is built, or nothing for the GPU"),
        ({"HOROVOD_GPU_ALLREDUCE": "NCCL"}, "HOROVOD_GPU_ALLREDUCE=NCCL: one choice for all operations is built; use "),
    ],
)
def test_variables_that_cannot_be_followed(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as failure:
        Options.from_environ(given)
    assert str(failure.value).startswith(message)


def test_a_choice_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="one of auto, nccl, none, not 'rocm'"):
        Options(gpu="rocm")


# --- the programs of a build


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(Runner(io.StringIO(), lambda: False, print, 2), os.environ)


def program(folder: Path, name: str, text: str) -> str:
    """A folder for PATH with a program that says something."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return str(folder)


def found(programs: Programs, name: str, facts: Facts | None = None, **environ: str) -> toolchain.Finding:
    given = replace(programs, environ=environ)
    return next(item for item in toolchain.findings(facts, given) if item.name == name)


def test_all_that_a_build_needs_is_here(programs: Programs) -> None:
    findings = toolchain.findings(FACTS, programs)
    assert [item.name for item in findings] == ["compiler", "make", "CMake", "Python.h"]
    assert [item.problem for item in findings] == [""] * 4
    assert re.match(r"[gc]\+\+ \d+\.\d+\.\d+ \(/.*\)$", findings[0].found)
    assert re.match(r"make \d+\.\d+ \(/.*make\)$", findings[1].found)


def test_what_is_missing_is_named_with_its_package(programs: Programs, tmp_path: Path) -> None:
    nothing = replace(programs, environ={"PATH": str(tmp_path)})
    with pytest.raises(EnvironmentBuildError) as failure:
        toolchain.toolchain(replace(FACTS, python="3.12.1", include=str(tmp_path)), nothing)
    assert str(failure.value) == (
        "Horovod cannot be compiled: there is no C++ compiler: apt install g++, or dnf install gcc-c++; "
        "there is no make: apt install make, or dnf install make; "
        f"Python 3.12 has no headers ({tmp_path}/Python.h): apt install python3.12-dev, or dnf install python3.12-devel"
    )


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("echo cmake version 3.10.2", "from the package index (cmake>=3.18,<4)"),
        ("echo broken >&2; exit 1", "from the package index (cmake>=3.18,<4)"),
        ("echo nothing", "from the package index (cmake>=3.18,<4)"),
        ("echo cmake version 3.25.1", "cmake 3.25.1 ({path}/cmake)"),
        ("echo cmake version 4.2.0", "cmake 4.2.0 ({path}/cmake)"),
    ],
)
def test_an_old_cmake_is_not_used(programs: Programs, tmp_path: Path, said: str, wanted: str) -> None:
    path = program(tmp_path / "bin", "cmake", said)
    finding = found(programs, "CMake", PATH=path)
    assert (finding.found, finding.problem) == (wanted.format(path=path), "")


def test_without_cmake_one_comes_from_the_index(programs: Programs, tmp_path: Path) -> None:
    path = program(tmp_path, "c++", "echo c++ 12.2.0")
    program(tmp_path, "make", "echo GNU Make 4.3")
    assert toolchain.toolchain(FACTS, replace(programs, environ={"PATH": path})) == toolchain.Toolchain(
        f"{path}/c++", ""
    )
    program(tmp_path, "my-cmake", "echo cmake version 3.30.0")
    given = {"PATH": path, "HOROVOD_CMAKE": "my-cmake"}
    assert toolchain.toolchain(FACTS, replace(programs, environ=given)).cmake == f"{path}/my-cmake"


def test_the_compiler_that_the_user_names(programs: Programs, tmp_path: Path) -> None:
    path = program(tmp_path, "clang++", "echo clang version 14.0.6")
    program(tmp_path, "g++", "echo g++ 12.2.0")
    assert found(programs, "compiler", PATH=path, CXX="clang++").found == f"clang++ 14.0.6 ({path}/clang++)"
    assert found(programs, "compiler", PATH=path, CXX="ccache clang++").found == f"clang++ 14.0.6 ({path}/clang++)"
    options = found(programs, "compiler", PATH=path, CXX="clang++ -m64 -O2").problem
    assert options == "CXX holds options (-m64 -O2): set them in CXXFLAGS"
    assert found(programs, "compiler", PATH=path).found == f"g++ 12.2.0 ({path}/g++)"
    missing = found(programs, "compiler", PATH=path, CXX="icpc").problem
    assert missing == "there is no C++ compiler icpc (CXX): apt install g++, or dnf install gcc-c++"
    program(tmp_path, "clang++", "exit 1")
    broken = found(programs, "compiler", PATH=path, CXX="clang++").problem
    assert broken == f"{path}/clang++ --version fails: install a compiler that works, or name one with CXX"


# --- interpreters and the headers of their torch


def test_an_interpreter_is_asked_without_importing_torch(programs: Programs, tmp_path: Path) -> None:
    python = toys.environment(tmp_path / "env", cuda="13.2")
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    (site / "torch/__init__.py").write_text("raise RuntimeError('imported')")
    (site / "nvidia/nccl").mkdir(parents=True)
    (site / "noise.pth").write_text("import sys; print('{noise}')\n")
    facts = inspect(python, programs)
    assert (facts.torch, facts.accelerator, facts.folder) == (toys.TORCH, "13.2", str(site / "torch"))
    assert facts.nccl == str(site / "nvidia/nccl")
    assert str(site) in facts.paths
    assert facts.locked["nvidia-nccl-cu13"] == "2.30.7"
    assert facts.include == sysconfig.get_path("include")


def test_an_interpreter_without_torch(programs: Programs, tmp_path: Path) -> None:
    assert inspect(toys.bare(tmp_path / "env"), programs).torch == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo no such library >&2; exit 1", "cannot be asked for its packages: no such library"),
        ("echo hello", "is no Python interpreter that can be run"),
    ],
)
def test_what_is_no_interpreter(programs: Programs, tmp_path: Path, text: str, message: str) -> None:
    path = program(tmp_path / "bin", "python", text)
    with pytest.raises(EnvironmentBuildError, match=message):
        inspect(Path(path) / "python", programs)


@pytest.mark.parametrize(("wants", "standard"), [("", 14), ("201703L", 17), ("202002L", 20), ("202100L", 23)])
def test_the_headers_say_which_standard(programs: Programs, tmp_path: Path, wants: str, standard: int) -> None:
    toys.write_headers(tmp_path, wants)
    facts = replace(FACTS, folder=str(tmp_path))
    (tmp_path / "include").symlink_to(tmp_path)
    assert cxx_standard(shutil.which("c++") or "", facts, tmp_path, programs) == standard


def test_headers_that_no_standard_suits(programs: Programs, tmp_path: Path) -> None:
    toys.write_headers(tmp_path, "999999L")
    (tmp_path / "include").symlink_to(tmp_path)
    with pytest.raises(EnvironmentBuildError) as failure:
        cxx_standard(shutil.which("c++") or "", replace(FACTS, folder=str(tmp_path)), tmp_path, programs)
    lines = str(failure.value).splitlines()
    assert (
        "takes the headers of torch 2.15.0 with no C++ standard; a newer compiler is needed (CXX names one)" in lines[0]
    )
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["C++14", "C++17", "C++20", "C++23"]
    assert all("error: #error You need another C++ standard" in line for line in lines[1:])
