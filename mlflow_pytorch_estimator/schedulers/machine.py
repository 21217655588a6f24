"""What this machine has to share out: cores, GPUs and memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlflow_pytorch_estimator.schedulers.base import Allocation


@dataclass(frozen=True)
class Capacity:
    """Core ids and GPU indices (PCI bus order) that may be handed out."""

    cpus: tuple[int, ...]
    gpus: tuple[int, ...]
    memory_gb: float | None = None
    """Main memory in GiB that may be set aside; None means that it is not counted."""


def capacity(environ: Mapping[str, str]) -> Capacity:
    """The machine's cores and GPUs, or the share of the job that this process already runs in."""
    outer = Allocation.from_environ(environ)
    if outer is not None:
        # Where the cores are the outer scheduler's business, those that it binds this process to.
        return Capacity(outer.cpus or tuple(sorted(os.sched_getaffinity(0)))[: outer.cores], outer.gpus)
    gpus = detect_gpus(environ.get("CUDA_VISIBLE_DEVICES"))
    return Capacity(tuple(sorted(os.sched_getaffinity(0))), gpus, detect_memory_gb())


def detect_memory_gb(cgroup: Path = Path("/sys/fs/cgroup/memory.max")) -> float:
    """Main memory in GiB that this machine has, or that its container may use."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no such limit: there is no file, or it says "max"
        memory = min(memory, int(cgroup.read_text(encoding="ascii")))
    return memory / 2**30


def detect_gpus(visible: str | None) -> tuple[int, ...]:
    """Indices of the NVIDIA GPUs that are really there and that ``CUDA_VISIBLE_DEVICES`` leaves in sight."""
    # Loading NVML takes 20 ms, which a machine without a driver need not pay.
    if not (Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()):
        return ()
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        uuids = [_uuid(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()
    return select_visible(uuids, visible)


def _uuid(nvml: object, index: int) -> str:
    uuid = nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index))  # type: ignore[attr-defined]  # untyped
    return uuid.decode() if isinstance(uuid, bytes) else str(uuid)


def select_visible(uuids: list[str], visible: str | None) -> tuple[int, ...]:
    """The indices that a ``CUDA_VISIBLE_DEVICES`` value leaves, by CUDA's rule: it ends at the first bad entry."""
    if visible is None:
        return tuple(range(len(uuids)))
    chosen: list[int] = []
    for entry in (part.strip() for part in visible.split(",")):
        if entry.isdigit() and int(entry) < len(uuids):
            index = int(entry)
        else:
            matches = [i for i, uuid in enumerate(uuids) if entry and uuid.startswith(entry)]
            if len(matches) != 1:
                break
            index = matches[0]
        if index in chosen:
            break
        chosen.append(index)
    return tuple(chosen)
