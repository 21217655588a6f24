"""The programs that a build needs, and the words for what is missing."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.runner import CommandFailed
from mlflow_pytorch_estimator.errors import EnvironmentBuildError
from mlflow_pytorch_estimator.horovod.inspection import has_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_pytorch_estimator.horovod.inspection import Facts
    from mlflow_pytorch_estimator.horovod.programs import Programs

_CACHES = ("ccache", "sccache")
_OLDEST_CMAKE = (3, 18)
CMAKE_REQUIREMENT = "cmake>=3.18,<4"


@dataclass(frozen=True)
class Finding:
    """One line of what is there; ``problem`` names what to install when it is not."""

    name: str
    found: str
    problem: str = ""


@dataclass(frozen=True)
class Toolchain:
    """Programs, each with its path; an empty ``cmake`` is brought by the build."""

    compiler: str
    cmake: str


def compiler(environ: Mapping[str, str]) -> str | None:
    """Return the C++ compiler: ``CXX``, g++ or c++."""
    names = _named(environ)[:1] or ["g++", "c++"]
    return next((path for name in names if (path := shutil.which(name, path=environ.get("PATH")))), None)


def findings(facts: Facts | None, programs: Programs) -> list[Finding]:
    """Look for compiler, make, CMake and, where an interpreter is known, its Python.h."""
    found = [_compiler(programs), _make(programs), _cmake(programs)]
    if facts is not None:
        found.append(_headers(facts))
    return found


def toolchain(facts: Facts, programs: Programs) -> Toolchain:
    """Return the programs; EnvironmentBuildError names all that is missing."""
    problems = [item.problem for item in findings(facts, programs) if item.problem]
    if problems:
        raise EnvironmentBuildError("Horovod cannot be compiled: " + "; ".join(problems))
    cmake = _usable_cmake(programs)
    return Toolchain(compiler(programs.environ) or "", cmake[0] if cmake else "")


def _named(environ: Mapping[str, str]) -> list[str]:
    """Return the words of ``CXX``; a cache in front of the compiler is left out."""
    return [word for word in environ.get("CXX", "").split() if Path(word).name not in _CACHES]


def _compiler(programs: Programs) -> Finding:
    path = compiler(programs.environ)
    if path is None:
        wanted = programs.environ.get("CXX", "").strip()
        problem = (
            f"there is no C++ compiler{f' {wanted} (CXX)' if wanted else ''}: apt install g++, or dnf install gcc-c++"
        )
        return Finding("compiler", "none", problem)
    options = _named(programs.environ)[1:]
    if options:
        return Finding("compiler", path, f"CXX holds options ({' '.join(options)}): set them in CXXFLAGS")
    version = _version(path, programs)
    if version is None:
        return Finding("compiler", path, f"{path} --version fails: install a compiler that works, or name one with CXX")
    return Finding("compiler", f"{version} ({path})")


def _make(programs: Programs) -> Finding:
    path = shutil.which("make", path=programs.environ.get("PATH"))
    if path is None:
        return Finding("make", "none", "there is no make: apt install make, or dnf install make")
    return Finding("make", f"{_version(path, programs)} ({path})")


def _cmake(programs: Programs) -> Finding:
    cmake = _usable_cmake(programs)
    return Finding("CMake", f"{cmake[1]} ({cmake[0]})" if cmake else f"from the package index ({CMAKE_REQUIREMENT})")


def _usable_cmake(programs: Programs) -> tuple[str, str] | None:
    path = shutil.which(programs.environ.get("HOROVOD_CMAKE") or "cmake", path=programs.environ.get("PATH"))
    version = _version(path, programs) if path else None
    numbers = re.search(r"(\d+)\.(\d+)", version or "")
    if path is None or version is None or numbers is None or (int(numbers[1]), int(numbers[2])) < _OLDEST_CMAKE:
        return None
    return path, version


def _headers(facts: Facts) -> Finding:
    if has_headers(facts):
        return Finding("Python.h", facts.include)
    minor = ".".join(facts.python.split(".")[:2])
    problem = (
        f"Python {minor} has no headers ({facts.include}/Python.h): "
        f"apt install python{minor}-dev, or dnf install python{minor}-devel"
    )
    return Finding("Python.h", "none", problem)


def _version(path: str, programs: Programs) -> str | None:
    try:
        said = programs.run(path, "--version", limit=60.0)
    except (CommandFailed, OSError):
        return None
    number = re.search(r"\d+(\.\d+)+", said)
    return f"{Path(path).name} {number[0]}" if number else Path(path).name
