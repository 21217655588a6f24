"""What the user wants built, also in the variables that Horovod's documentation names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

GPU_CHOICES = ("auto", "nccl", "none")
# Reach the build as they are; all decide what the wheel holds.
_PASSED = (
    "HOROVOD_BUILD_ARCH_FLAGS",
    "HOROVOD_BUILD_CUDA_CC_LIST",
    "HOROVOD_NCCL_HOME",
    "HOROVOD_NCCL_INCLUDE",
    "HOROVOD_NCCL_LIB",
    "HOROVOD_NCCL_LINK",
    "HOROVOD_NVTX_INCLUDE",
    "HOROVOD_WITHOUT_NVTX",
    "HOROVOD_WITH_NVTX",
)
_REFUSED_FLAGS = {
    "HOROVOD_WITHOUT_GLOO": "jobs are started through Gloo",
    "HOROVOD_WITHOUT_PYTORCH": "this builds Horovod for PyTorch",
    "HOROVOD_WITH_TENSORFLOW": "this builds Horovod for PyTorch alone",
    "HOROVOD_WITH_MXNET": "this builds Horovod for PyTorch alone",
}
_SINGLE_OPERATIONS = tuple(
    f"HOROVOD_GPU_{name}" for name in ("ALLREDUCE", "ALLGATHER", "BROADCAST", "ALLTOALL", "REDUCESCATTER")
)


@dataclass(frozen=True)
class Options:
    """Choices that are not in the environment's packages."""

    gpu: str = "auto"
    """``"nccl"``, ``"none"``, or ``"auto"``: NCCL where torch, CUDA toolkit and NCCL fit, else none with a notice."""
    mpi: bool | None = None
    """None: where there is an ``mpicxx``."""
    cuda_home: str = ""
    """The only folder in which a CUDA toolkit is looked for; empty: in the usual places."""
    passed: tuple[tuple[str, str], ...] = ()
    """Further variables of Horovod's build, in order of their names."""

    def __post_init__(self) -> None:
        if self.gpu not in GPU_CHOICES:
            raise ConfigError(f"GPU operations of Horovod are one of {', '.join(GPU_CHOICES)}, not {self.gpu!r}")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Options:
        """Read Horovod's own build variables; ConfigError for what cannot be had."""
        for name, reason in _REFUSED_FLAGS.items():
            if environ.get(name) == "1":
                raise ConfigError(f"{name}=1: {reason}; unset it")
        with_mpi, without_mpi = (environ.get(name) == "1" for name in ("HOROVOD_WITH_MPI", "HOROVOD_WITHOUT_MPI"))
        if with_mpi and without_mpi:
            raise ConfigError("both HOROVOD_WITH_MPI and HOROVOD_WITHOUT_MPI are 1: unset one")
        return cls(
            gpu=_gpu(environ),
            mpi=True if with_mpi else False if without_mpi else None,
            cuda_home=environ.get("HOROVOD_CUDA_HOME", ""),
            passed=tuple((name, environ[name]) for name in _PASSED if environ.get(name)),
        )


def _gpu(environ: Mapping[str, str]) -> str:
    if environ.get("HOROVOD_GPU", "CUDA") not in ("", "CUDA"):
        raise ConfigError(f"HOROVOD_GPU={environ['HOROVOD_GPU']}: only CUDA is built; unset it")
    for name in _SINGLE_OPERATIONS:
        if environ.get(name):
            raise ConfigError(
                f"{name}={environ[name]}: one choice for all operations is built; use HOROVOD_GPU_OPERATIONS"
            )
    wanted = environ.get("HOROVOD_GPU_OPERATIONS", "")
    if wanted not in ("", "NCCL"):
        raise ConfigError(
            f"HOROVOD_GPU_OPERATIONS={wanted}: NCCL is built, or nothing for the GPU; set NCCL or unset it"
        )
    return "nccl" if wanted else "auto"
