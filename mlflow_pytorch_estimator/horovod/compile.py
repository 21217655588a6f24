"""Compile one wheel: Horovod's own build, led by the variables and hooks that it documents."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import psutil

from mlflow_pytorch_estimator.environments.messages import full_disk
from mlflow_pytorch_estimator.environments.runner import CommandFailed
from mlflow_pytorch_estimator.errors import EnvironmentBuildError
from mlflow_pytorch_estimator.horovod.trials import nccl_places

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mlflow_pytorch_estimator.horovod.inspection import Facts
    from mlflow_pytorch_estimator.horovod.planning import Plan
    from mlflow_pytorch_estimator.horovod.programs import Programs
    from mlflow_pytorch_estimator.horovod.release import Change
    from mlflow_pytorch_estimator.horovod.workshop import Workshop

# The standard comes last, because Horovod's CMake files name an older one. Debug information would triple the wheel.
# torch and NCCL are looked for where a wheel of theirs lies beside ours, and nowhere on the machine that compiled.
_COMPILER = """#!/bin/sh
case " $* " in
*" -c "*|*" -E "*) exec {compiler} "$@" -std=c++{standard} -g0 ;;
esac
exec {compiler} "$@" -std=c++{standard} -g0 -Wl,-rpath,'$ORIGIN/../../torch/lib:$ORIGIN/../../nvidia/nccl/lib'
"""
# CMake 4 refuses the age of the gloo in the release.
_CMAKE = """#!/bin/sh
[ "$1" = --build ] && exec {cmake} "$@"
exec {cmake} "$@" -DCMAKE_SKIP_RPATH=ON -DCMAKE_POLICY_VERSION_MINIMUM=3.5
"""
_BUILD = """
import sys
from setuptools import build_meta
build_meta.__legacy__.build_wheel(sys.argv[1], {"--global-option": ["--quiet"]})
"""
_PERCENT = re.compile(r"\[ *(\d+)%\] ")
_STEP = 10
_BYTES_PER_JOB = 2 << 30  # what a file that includes all of torch takes to compile, rounded up
_MOST_LINES = 12
_ERROR = re.compile(r"\berror:|CMake Error|Error:|\bg?make\S*: \*\*\* ")  # setuptools draws lines of stars
_FOREIGN = ("HOROVOD_", "CCL_", "MAKE", "MFLAGS", "CMAKE_")


@dataclass(frozen=True)
class Compilation:
    """What a wheel is compiled from and with."""

    plan: Plan
    facts: Facts
    workshop: Workshop
    compiler: str
    standard: int
    source: Path
    changes: tuple[Change, ...]
    """What was changed in the source."""
    folder: Path
    """For what comes between."""


def compile_wheel(work: Compilation, programs: Programs) -> Path:
    """Return the wheel in ``work.folder / "wheel"``; EnvironmentBuildError with the compiler's reason."""
    target = work.folder / "wheel"
    target.mkdir()
    command = [str(work.workshop.python), "-c", _BUILD, str(target)]
    try:
        programs.runner.run(
            command, _environment(work, programs.plain), cwd=str(work.source), noted=_progress(programs.say)
        )
    except CommandFailed as error:
        raise EnvironmentBuildError(f"Horovod could not be compiled\n  {_reason(error.output)}") from None
    return next(target.glob("horovod-*.whl"))


def _environment(work: Compilation, environ: Mapping[str, str]) -> dict[str, str]:
    compiler = shlex.quote(work.compiler)
    wrapper = _script(work.folder / "c++", _COMPILER.format(compiler=compiler, standard=work.standard))
    cmake = _script(work.folder / "cmake", _CMAKE.format(cmake=shlex.quote(work.workshop.cmake)))
    result = {name: value for name, value in environ.items() if not name.startswith(_FOREIGN)}
    result |= dict(work.plan.target.settings)
    result |= {
        "CXX": wrapper,
        "HOROVOD_CMAKE": cmake,
        "HOROVOD_WITH_PYTORCH": "1",
        "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_WITH_MPI" if work.plan.mpi else "HOROVOD_WITHOUT_MPI": "1",
        "MAKEFLAGS": f"-j{_jobs(environ)}",
    }
    return result | _gpu(work, result)


def _gpu(work: Compilation, environ: Mapping[str, str]) -> dict[str, str]:
    if work.plan.toolkit is None or work.plan.nccl is None:
        return {}
    home = str(work.plan.toolkit.home)
    include, library = nccl_places(work.plan, work.facts, work.folder)
    flags = " ".join(filter(None, [environ.get("NVCC_APPEND_FLAGS"), f"-std=c++{work.standard}"]))
    return {
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "HOROVOD_CUDA_HOME": home,
        "CUDA_HOME": home,
        "PATH": os.pathsep.join([f"{home}/bin", environ.get("PATH", os.defpath)]),
        "NVCC_APPEND_FLAGS": flags,
        "HOROVOD_NCCL_INCLUDE": include,
        "HOROVOD_NCCL_LIB": library,
        **({"HOROVOD_NCCL_LINK": "SHARED"} if work.plan.nccl.package else {}),
    }


def _jobs(environ: Mapping[str, str]) -> int:
    """Return how many compilers run at once: CMake's own variable for that, else as many as cores and memory carry."""
    wanted = environ.get("CMAKE_BUILD_PARALLEL_LEVEL", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    return max(1, min(len(os.sched_getaffinity(0)), psutil.virtual_memory().available // _BYTES_PER_JOB))


def _script(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def _progress(say: Callable[[str], None]) -> Callable[[str], None]:
    said = 0

    def note(line: str) -> None:
        nonlocal said
        match = _PERCENT.match(line)
        if match and int(match[1]) >= said + _STEP:
            said = int(match[1]) // _STEP * _STEP
            say(f"Horovod: {said} % compiled")

    return note


def _reason(output: str) -> str:
    if full_disk(output):
        return next(line.strip() for line in output.splitlines() if full_disk(line))
    lines = output.splitlines()
    if any("Killed signal" in line for line in lines):
        return "the compiler was killed, as happens when memory runs out: CMAKE_BUILD_PARALLEL_LEVEL=1 needs the least"
    starts = [number for number, line in enumerate(lines) if _ERROR.search(line)]
    first = starts[0] if starts else max(0, len(lines) - _MOST_LINES)
    # What follows a compiler's words is where setup.py stood when it failed.
    words = takewhile(lambda line: not line.startswith("Traceback "), lines[first : first + _MOST_LINES])
    return "\n  ".join(line.strip() for line in words if line.strip())
