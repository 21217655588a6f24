"""Checks of this machine: home, disk, GPUs, programs."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlflow_pytorch_estimator import jobdir
from mlflow_pytorch_estimator.cli.doctor.findings import FAIL, OK, WARN, Finding
from mlflow_pytorch_estimator.files import private_folder

_LITTLE_DISK = 20 * 2**30  # bytes; an environment with a CUDA build of PyTorch takes 6 GiB, its build as much again
_NETWORK = {"nfs", "nfs4", "lustre", "beegfs", "gpfs", "cephfs", "ceph", "fuse.glusterfs", "glusterfs", "panfs", "9p"}


def check() -> Iterator[Finding]:
    """All of them."""
    yield _interpreter()
    yield _home()
    yield _disk("home", jobdir.home())
    if jobdir.environments().parent != jobdir.home():
        yield _disk("environments", jobdir.environments())
    yield _file_system()
    yield _cores()
    yield from _gpus()
    yield _uv()
    yield _compiler()
    yield _containers()


def _interpreter() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(OK, "python", f"{version} ({sys.executable})")


def _home() -> Finding:
    home = jobdir.home()
    try:
        private_folder(home)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        return Finding(
            FAIL,
            "home",
            f"cannot write to {home}: {error.strerror}",
            f"set {jobdir.HOME_VARIABLE} to a folder of yours",
        )
    if home.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Finding(WARN, "home", f"others may write to {home}", f"chmod go-w {home}")
    return Finding(OK, "home", str(home))


def _disk(name: str, folder: Path) -> Finding:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**30:.0f} GiB free in {folder}"
    if free < _LITTLE_DISK:
        return Finding(
            WARN, f"disk ({name})", text, "gpu-cluster envs prune --older-than 30d, or a folder with more room"
        )
    return Finding(OK, f"disk ({name})", text)


def file_system(folder: Path, mounts: str = "/proc/self/mounts") -> tuple[str, str]:
    """Mount point and type of the file system that a folder is on; raises OSError."""
    best = ("/", "unknown")
    wanted = os.path.realpath(folder)
    for line in Path(mounts).read_text(encoding="utf-8", errors="replace").splitlines():
        _, point, kind = (part.encode().decode("unicode_escape") for part in line.split()[:3])
        inside = wanted == point or wanted.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, kind)
    return best


def _file_system() -> Finding:
    from mlflow_pytorch_estimator.schedulers.slurm import client

    try:
        point, kind = file_system(jobdir.home())
    except OSError as error:
        return Finding(WARN, "file system", f"cannot be told: {error.strerror}")
    text = f"{jobdir.home()} is on {kind} ({point})"
    if client.has("sbatch") and kind not in _NETWORK:
        return Finding(
            WARN,
            "file system",
            f"{text}, which nodes of Slurm may not see",
            f'{jobdir.HOME_VARIABLE} on a shared file system, or "shared_filesystem": false',
        )
    return Finding(OK, "file system", text)


def _cores() -> Finding:
    from mlflow_pytorch_estimator.schedulers.machine import detect_memory_gb

    cores = len(os.sched_getaffinity(0))
    return Finding(OK, "machine", f"{cores} cores, {detect_memory_gb():.0f} GiB")


def _gpus() -> Iterator[Finding]:
    from mlflow_pytorch_estimator.environments.accelerator import cuda_of_driver
    from mlflow_pytorch_estimator.schedulers.machine import detect_gpus

    gpus = detect_gpus(None)
    if not gpus:
        there = Path("/dev/nvidiactl").exists()
        yield Finding(
            WARN if there else OK,
            "gpus",
            "a driver's device, but no GPU answers" if there else "none here",
            "nvidia-smi says why" if there else "",
        )
        return
    yield Finding(OK, "gpus", f"{len(gpus)}, driver for CUDA {cuda_of_driver()}")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and len(detect_gpus(hidden)) < len(gpus):
        yield Finding(WARN, "gpus", f"CUDA_VISIBLE_DEVICES={hidden} hides some from jobs", "unset CUDA_VISIBLE_DEVICES")


def _uv() -> Finding:
    try:
        import uv

        return Finding(OK, "uv", uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        return Finding(FAIL, "uv", "not installed, so no environment can be built", "pip install uv")


def _compiler() -> Finding:
    from mlflow_pytorch_estimator.horovod import toolchain

    found = toolchain.compiler(os.environ)
    if found is None or shutil.which("make") is None:
        return Finding(
            WARN, "compiler", "no C++ compiler or no make, so Horovod cannot be built", "apt install g++ make"
        )
    return Finding(OK, "compiler", f"{found}; `gpu-cluster horovod check` looks closer")


def _containers() -> Finding:
    found = [path for name in ("docker", "podman") if (path := shutil.which(name))]
    if not found:
        return Finding(OK, "containers", "neither docker nor podman: jobs with an image are refused")
    return Finding(OK, "containers", ", ".join(found))
