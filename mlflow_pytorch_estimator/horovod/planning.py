"""What would be built for an environment: decided from its lock and from files, in milliseconds."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.interpreters import host
from mlflow_pytorch_estimator.environments.key import digest
from mlflow_pytorch_estimator.errors import EnvironmentSpecError
from mlflow_pytorch_estimator.horovod import cuda
from mlflow_pytorch_estimator.horovod.mpi import Mpi, find_mpi
from mlflow_pytorch_estimator.horovod.release import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_pytorch_estimator.horovod.options import Options

# Of the recipe, not of Horovod: wheels of another recipe are not taken.
_FORMAT = 1
_ARCHITECTURE_FLAGS = ("f16c", "avx", "fma")
# Change what a compiler makes of the same source.
_COMPILER_VARIABLES = ("CFLAGS", "CXXFLAGS", "LDFLAGS", "NVCC_APPEND_FLAGS", "NVCC_PREPEND_FLAGS")


@dataclass(frozen=True)
class Target:
    """What a wheel was built for: any environment with the same can have it."""

    torch: str
    torch_cuda: str
    """The CUDA that torch was built with, such as 13.2; empty for a torch without."""
    python: str
    platform: str
    toolkit: str
    """Version of the CUDA toolkit that compiles; empty without GPU operations."""
    nccl: str
    mpi: str
    """Identity of the MPI; empty without."""
    settings: tuple[tuple[str, str], ...]
    """Variables that reach the compilers."""


@dataclass(frozen=True)
class Plan:
    """A build, before anything of it has been tried."""

    target: Target
    options: Options
    toolkit: cuda.Toolkit | None
    nccl: cuda.Nccl | None
    mpi: Mpi | None
    notices: tuple[str, ...] = ()
    """What the user should know: for instance, what GPU operations would need."""

    @property
    def key(self) -> str:
        """Return 16 hex digits over everything that decides what is in the wheel."""
        return digest({"format": _FORMAT, "horovod": VERSION, **asdict(self.target)})

    def describe(self) -> str:
        """Return one line: Horovod, what for, and with which operations."""
        parts = ["Gloo"]
        if self.nccl:
            parts.append(f"NCCL {self.nccl.version} (CUDA {self.target.toolkit})")
        if self.mpi:
            parts.append(self.mpi.name if self.mpi.name == "MPI" else f"MPI ({self.mpi.name})")
        return f"Horovod {VERSION} for torch {self.target.torch}, Python {self.target.python}: {', '.join(parts)}"

    def without_gpu(self, reason: str) -> Plan:
        """Return the plan that is left when the toolkit turns out not to work."""
        target = replace(self.target, toolkit="", nccl="")
        return replace(self, target=target, toolkit=None, nccl=None, notices=(*self.notices, _cpu_only(target, reason)))

    def without_mpi(self, reason: str) -> Plan:
        """Return the plan that is left when the MPI turns out not to work."""
        notice = f"Horovod is built without MPI: {reason}"
        return replace(self, target=replace(self.target, mpi=""), mpi=None, notices=(*self.notices, notice))


def plan(locked: Mapping[str, str], python_version: str, options: Options, environ: Mapping[str, str]) -> Plan:
    """Return what to build for an environment with the packages ``locked`` (canonical name -> exact version).

    EnvironmentSpecError when torch is not among them, or when ``options`` ask for what is not here.
    """
    if "torch" not in locked:
        raise EnvironmentSpecError(
            "Horovod is built for the PyTorch of its environment, which names none: add torch to it"
        )
    mpi = find_mpi(environ) if options.mpi is not False else None
    if options.mpi and mpi is None:
        raise EnvironmentSpecError(
            "Horovod with MPI needs mpicxx on PATH: apt install libopenmpi-dev openmpi-bin, "
            "dnf install openmpi-devel, or module load your cluster's MPI"
        )
    target = Target(
        torch=locked["torch"].partition("+")[0],
        torch_cuda=torch_cuda(locked),
        python=".".join(python_version.split(".")[:2]),
        platform=host(),
        toolkit="",
        nccl="",
        mpi=mpi.identity if mpi else "",
        settings=_settings(options, environ),
    )
    return _with_gpu(Plan(target, options, None, None, mpi), locked, environ)


def torch_cuda(locked: Mapping[str, str]) -> str:
    """Return the CUDA of the locked torch: its local version says it (2.5.1+cu124), or the runtime that it requires."""
    local = re.fullmatch(r"cu(\d+)(\d)", locked["torch"].partition("+")[2])
    if local:
        return f"{local[1]}.{local[2]}"
    if "+" in locked["torch"]:
        return ""
    for package, version in locked.items():
        if re.fullmatch(r"nvidia-cuda-runtime(-cu\d+)?", package):
            return ".".join(version.split(".")[:2])
    return ""


def _with_gpu(base: Plan, locked: Mapping[str, str], environ: Mapping[str, str]) -> Plan:
    if base.options.gpu == "none":
        return base
    found = _chosen(base, locked, environ)
    if isinstance(found, str):
        if base.options.gpu == "nccl":
            raise EnvironmentSpecError(f"Horovod with NCCL for torch {base.target.torch} cannot be built here: {found}")
        # Nobody expects GPU operations of a torch without CUDA.
        return base.without_gpu(found) if base.target.torch_cuda else base
    toolkit, library = found
    target = replace(base.target, toolkit=toolkit.version, nccl=library.version)
    return replace(base, target=target, toolkit=toolkit, nccl=library)


def _chosen(base: Plan, locked: Mapping[str, str], environ: Mapping[str, str]) -> tuple[cuda.Toolkit, cuda.Nccl] | str:
    """Return toolkit and NCCL, or why there are none."""
    wanted = base.target.torch_cuda
    if not wanted:
        return "this torch has no CUDA; install one that has"
    major = wanted.partition(".")[0]
    found = cuda.toolkits(base.options, environ)
    # Within a major version, CUDA's runtime is compatible in both directions.
    fitting = [item for item in found if not item.missing and item.version.partition(".")[0] == major]
    if not fitting:
        seen = "; ".join(map(cuda.told, found)) or "none" + (
            f" in {base.options.cuda_home}" if base.options.cuda_home else ""
        )
        return f"it needs a CUDA {major} toolkit (nvcc; HOROVOD_CUDA_HOME says where it lies), found: {seen}"
    library = cuda.nccl(locked, fitting[0], base.options)
    if library is None:
        return (
            f"there is a CUDA toolkit ({fitting[0].home}) but no NCCL: apt install libnccl-dev, "
            "or set HOROVOD_NCCL_HOME to the folder with its include and lib"
        )
    return fitting[0], library


def _cpu_only(target: Target, reason: str) -> str:
    return (
        f"Horovod is built for the CPU (Gloo) although torch {target.torch} is a CUDA {target.torch_cuda} build; "
        f"it refuses tensors on a GPU. GPU operations: {reason}"
    )


def _settings(options: Options, environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    passed = dict(options.passed)
    # Horovod asks the compiler what this machine has; said openly, the same wheel is not taken for another's.
    passed.setdefault("HOROVOD_BUILD_ARCH_FLAGS", _architecture_flags())
    passed |= {name: environ[name] for name in _COMPILER_VARIABLES if environ.get(name)}
    return tuple(sorted(passed.items()))


def _architecture_flags() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    has = set(next((line.split() for line in text.splitlines() if line.startswith("flags")), []))
    # Never empty: Horovod would look for itself.
    return " ".join(["-pthread", *(f"-m{flag}" for flag in _ARCHITECTURE_FLAGS if flag in has)])
