"""The one release that is built, what it needs when it runs, and the change that some builds need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.description.framework import numpy_for

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

VERSION = "0.28.1"


def runtime_requirements(torch: SpecifierSet) -> tuple[str, ...]:
    """Return what Horovod needs when it runs beside such a torch.

    It is what its own metadata names, numpy for its data types, and distutils, which setuptools brings since
    Python 3.12.
    """
    others = ("cffi>=1.4.0", "cloudpickle", "packaging", "psutil", "pyyaml", 'setuptools; python_version >= "3.12"')
    return *others, numpy_for(torch)


@dataclass(frozen=True)
class Release:
    """A source release, known by its content."""

    version: str
    sha256: str

    @property
    def file(self) -> str:
        """Return the name of the file as an index has it."""
        return f"horovod-{self.version}.tar.gz"


OFFICIAL = Release(VERSION, "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0")


@dataclass(frozen=True)
class Change:
    """Lines that are inserted into the official source, and why."""

    file: str
    after: str
    insert: str
    reason: str


# torch takes any nvcc or /usr/local/cuda for a CUDA toolkit, and Horovod then wants to compile with it.
WITHOUT_CUDA = (
    Change(
        "cmake/Modules/FindPytorch.cmake",
        'string(TOUPPER "${Pytorch_CUDA}" Pytorch_CUDA)\n',
        "set(Pytorch_CUDA FALSE)\n",
        "a CUDA torch, built for the CPU",
    ),
    Change(
        "cmake/Modules/FindPytorch.cmake",
        'string(TOUPPER "${Pytorch_ROCM}" Pytorch_ROCM)\n',
        "set(Pytorch_ROCM FALSE)\n",
        "a ROCm torch, built for the CPU",
    ),
)
