"""A torch of headers and a Horovod of one function: what a build needs to see, without its minutes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

from uv import find_uv_bin

from mlflow_pytorch_estimator.horovod.release import VERSION, Release

TORCH = "9.1.0"
FIND_PYTORCH = """string(TOUPPER "${Pytorch_CUDA}" Pytorch_CUDA)
string(TOUPPER "${Pytorch_ROCM}" Pytorch_ROCM)
"""
# Like Horovod's own: a compiler that CXX names is told an old standard, and what it makes is loaded beside torch.
SETUP = """
import os, pathlib, shutil, subprocess, sysconfig
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

class Build(build_ext):
    def build_extension(self, extension):
        if "TOY_PID" in os.environ:
            waiting = subprocess.Popen(["sleep", os.environ["TOY_SECONDS"]])
            pathlib.Path(os.environ["TOY_PID"]).write_text(str(waiting.pid))
            waiting.wait()
        if "TOY_BYTES" in os.environ:
            pathlib.Path("large").write_bytes(bytes(int(os.environ["TOY_BYTES"])))
        print("*" * 80, "Please consider removing the following classifiers", "*" * 80, sep="\\n", flush=True)
        target = pathlib.Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        flags = ["-std=c++14", "-shared", "-fPIC", "-I", sysconfig.get_path("include")]
        flags += os.environ.get("CXXFLAGS", "").split()
        subprocess.run([os.environ["CXX"], *flags, *extension.sources, "-o", target], check=True)
        print("[ 50%] half")
        print("[100%] all")
        given = {name: value for name, value in os.environ.items() if name.startswith(("HOROVOD_", "MAKE", "CMAKE"))}
        target.with_name("given.txt").write_text(repr(given))
        shutil.copy("cmake/Modules/FindPytorch.cmake", target.parent)

setup(
    name="horovod", version="0.28.1", packages=["horovod", "horovod.torch"], cmdclass={"build_ext": Build},
    ext_modules=[Extension("horovod.torch.mpi_lib_v2", ["horovod/torch/mpi_lib_v2.cc"])],
)
"""
LIBRARY = """
#include <Python.h>
#if __cplusplus < 201703L
#error this wants C++17
#endif
#ifdef MISSING
extern "C" int nowhere();
int call() { return nowhere(); }
#endif
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "mpi_lib_v2", nullptr, -1, nullptr};
PyMODINIT_FUNC PyInit_mpi_lib_v2() { return PyModule_Create(&module); }
"""


def environment(folder: Path, *, cuda: str | None = None, wants: str = "201703L") -> Path:
    """Make an environment with a torch whose headers want a C++ standard; returns its interpreter."""
    bare(folder)
    site = next(folder.glob("lib/python*/site-packages"))
    headers = site / "torch/include"
    (headers / "torch/csrc/api/include").mkdir(parents=True)
    write_headers(headers, wants)
    (site / "torch/__init__.py").touch()
    (site / "torch/version.py").write_text(f"__version__ = {TORCH!r}\ncuda = {cuda!r}\n")
    packages = {"torch": TORCH} | ({"nvidia-cuda-runtime": f"{cuda}.5", "nvidia-nccl-cu13": "2.30.7"} if cuda else {})
    for name, version in packages.items():
        described = site / f"{name.replace('-', '_')}-{version}.dist-info"
        described.mkdir()
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder / "bin/python"


def bare(folder: Path) -> Path:
    """Make an environment without packages."""
    subprocess.run([find_uv_bin(), "venv", "--quiet", "--no-project", "-p", sys.executable, folder], check=True)
    return folder / "bin/python"


def write_headers(folder: Path, wants: str) -> None:
    """Write what torch says to a compiler of another standard; an empty ``wants`` takes all."""
    (folder / "torch").mkdir(exist_ok=True)
    refusal = f"#if __cplusplus < {wants}\n#error You need another C++ standard\n#endif\n" if wants else ""
    (folder / "torch/extension.h").write_text(f"{refusal}#include <Python.h>\n")


def torch_wheel(folder: Path) -> None:
    """Write the wheel of that torch into a folder of links, as far as a resolver looks."""
    described = f"torch-{TORCH}.dist-info"
    with zipfile.ZipFile(folder / f"torch-{TORCH}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{described}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {TORCH}\n")
        archive.writestr(f"{described}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{described}/RECORD", "")


def release(folder: Path, library: str = LIBRARY, setup: str = SETUP) -> Release:
    """Write a source release into a folder of links."""
    files = {
        "setup.py": setup,
        "horovod/__init__.py": "",
        "horovod/torch/__init__.py": "",
        "horovod/torch/mpi_lib_v2.cc": library,
        "cmake/Modules/FindPytorch.cmake": FIND_PYTORCH,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"horovod-{VERSION}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"horovod-{VERSION}/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, BytesIO(text.encode()))
    return Release(VERSION, hashlib.sha256(path.read_bytes()).hexdigest())
