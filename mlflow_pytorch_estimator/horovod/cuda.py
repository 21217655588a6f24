"""CUDA toolkits and NCCL as they lie on disk; no process is started, a toolkit need not work to be found."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow_pytorch_estimator.horovod.options import Options

_VERSION = re.compile(rb"#define\s+CUDART_VERSION\s+(\d+)")
_NCCL = re.compile(rb"#define\s+NCCL_(MAJOR|MINOR|PATCH)\s+(\d+)")
_LIBRARIES = ("lib64", "lib", "targets/*/lib", "lib/*-linux-gnu")
_INCLUDES = ("include", "targets/*/include")


@dataclass(frozen=True)
class Toolkit:
    """A folder that holds nvcc."""

    home: Path
    version: str
    """Such as 13.0; empty when no header says it."""
    missing: tuple[str, ...]
    """What a build would look for in vain."""


@dataclass(frozen=True)
class Nccl:
    """A NCCL that can be linked."""

    version: str
    package: str
    """The package beside torch that holds it; empty when it lies in ``include`` and ``library``."""
    include: str = ""
    library: str = ""


def toolkits(options: Options, environ: Mapping[str, str]) -> list[Toolkit]:
    """Return the CUDA toolkits of this machine, the most wanted first."""
    found: dict[str, Toolkit] = {}
    for home in _homes(options, environ):
        real = os.path.realpath(home)
        if real not in found and (Path(real) / "bin/nvcc").is_file():
            found[real] = _toolkit(Path(real))
    return list(found.values())


def _homes(options: Options, environ: Mapping[str, str]) -> Iterator[Path]:
    if options.cuda_home:
        yield Path(options.cuda_home)
        return
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if environ.get(name):
            yield Path(environ[name])
    compiler = shutil.which("nvcc", path=environ.get("PATH"))
    if compiler:
        beside = Path(os.path.realpath(compiler)).parent.parent
        if _first(beside, _INCLUDES, "cuda_runtime_api.h"):  # else it is a script that leads elsewhere
            yield beside
    yield Path("/usr/local/cuda")
    yield from sorted(Path("/usr/local").glob("cuda-*"), reverse=True)


def _toolkit(home: Path) -> Toolkit:
    header = _first(home, _INCLUDES, "cuda_runtime_api.h")
    match = _VERSION.search(header.read_bytes()) if header else None
    number = int(match[1]) if match else 0
    needed = [(_INCLUDES, "cuda_runtime.h"), (_INCLUDES, "crt/host_config.h"), (_LIBRARIES, "libcudart_static.a")]
    missing = [name for places, name in needed if _first(home, places, name) is None]
    if not os.access(home / "bin/nvcc", os.X_OK):
        missing.append("an nvcc that can be run")
    return Toolkit(home, f"{number // 1000}.{number % 1000 // 10}" if number else "", tuple(missing))


def told(toolkit: Toolkit) -> str:
    """Return a toolkit in words."""
    lacks = f" without {', '.join(toolkit.missing)}" if toolkit.missing else ""
    return f"CUDA {toolkit.version or 'unknown'} in {toolkit.home}{lacks}"


def nccl(locked: Mapping[str, str], toolkit: Toolkit, options: Options) -> Nccl | None:
    """Return the NCCL to link: one that the user names, the one beside torch, the toolkit's, the system's."""
    passed = dict(options.passed)
    named = [Path(passed[name]) for name in ("HOROVOD_NCCL_HOME", "HOROVOD_NCCL_INCLUDE") if name in passed]
    if named:
        return next(filter(None, (_installed(home, passed.get("HOROVOD_NCCL_LIB")) for home in named)), None)
    for package, version in locked.items():
        # What torch loads must be what Horovod was linked with: one process has one libnccl.so.2.
        if re.fullmatch(r"nvidia-nccl-cu\d+", package):
            return Nccl(version, package)
    return _installed(toolkit.home) or _installed(Path("/usr"))


def _installed(home: Path, library: str | None = None) -> Nccl | None:
    header = _first(home, (*_INCLUDES, "."), "nccl.h")
    folders = [Path(library)] if library else [home / place for place in _LIBRARIES]
    files = [path for folder in folders for path in folder.parent.glob(f"{folder.name}/libnccl*")]
    if not header or not files:
        return None
    numbers = dict(_NCCL.findall(header.read_bytes()))
    version = ".".join(numbers.get(part, b"0").decode() for part in (b"MAJOR", b"MINOR", b"PATCH"))
    return Nccl(version, "", str(header.parent), str(files[0].parent))


def _first(home: Path, places: tuple[str, ...], name: str) -> Path | None:
    return next((path for place in places for path in home.glob(f"{place}/{name}")), None)
