"""The usual cloud machine sizes, so that ``vm_size="STANDARD_NC6"`` means the same number of CPUs and GPUs here.

Sources: the providers' own lists of sizes. Sizes with a part of a GPU are left out.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from mlflow_pytorch_estimator.estimator.exceptions import ComputeTargetException
from mlflow_pytorch_estimator.schedulers.base import NodeShape
from mlflow_pytorch_estimator.schedulers.machine import Capacity
from mlflow_pytorch_estimator.schedulers.pool import cap


@dataclass(frozen=True)
class VmSize:
    """A machine size; memory is in GiB."""

    name: str
    cpus: int
    memory_gb: float
    gpus: int = 0
    gpu_model: str | None = None


# GPU model: name, CPUs, GiB of memory, GPUs; names without ``Standard_``.
_AZURE_GPU = {
    "K80": "NC6 6 56 1, NC12 12 112 2, NC24 24 224 4, NC24r 24 224 4",
    "P100": "NC6s_v2 6 112 1, NC12s_v2 12 224 2, NC24s_v2 24 448 4, NC24rs_v2 24 448 4",
    "V100": "NC6s_v3 6 112 1, NC12s_v3 12 224 2, NC24s_v3 24 448 4, NC24rs_v3 24 448 4, ND40rs_v2 40 672 8",
    "T4": "NC4as_T4_v3 4 28 1, NC8as_T4_v3 8 56 1, NC16as_T4_v3 16 110 1, NC64as_T4_v3 64 440 4",
    "A100-80GB": "NC24ads_A100_v4 24 220 1, NC48ads_A100_v4 48 440 2, NC96ads_A100_v4 96 880 4,"
    "ND96amsr_A100_v4 96 1900 8",
    "A100-40GB": "ND96asr_v4 96 900 8",
    "H100": "NC40ads_H100_v5 40 320 1, NC80adis_H100_v5 80 640 2, ND96isr_H100_v5 96 1900 8",
    "H200": "ND96isr_H200_v5 96 1850 8",
    "P40": "ND6s 6 112 1, ND12s 12 224 2, ND24s 24 448 4, ND24rs 24 448 4",
    "M60": "NV6 6 56 1, NV12 12 112 2, NV24 24 224 4, NV12s_v3 12 112 1, NV24s_v3 24 224 2, NV48s_v3 48 448 4",
    "A10": "NV36ads_A10_v5 36 440 1, NV36adms_A10_v5 36 880 1, NV72ads_A10_v5 72 880 2",
}
_AZURE_CPU = (
    "D1_v2 1 3.5, D2_v2 2 7, D3_v2 4 14, D4_v2 8 28, D5_v2 16 56, D11_v2 2 14, D12_v2 4 28, D13_v2 8 56, D14_v2 16 112,"
    "DS1_v2 1 3.5, DS2_v2 2 7, DS3_v2 4 14, DS4_v2 8 28, DS5_v2 16 56, DS11_v2 2 14, DS12_v2 4 28, DS13_v2 8 56,"
    "DS14_v2 16 112, D15_v2 20 140, DS15_v2 20 140,"
    "D2_v3 2 8, D4_v3 4 16, D8_v3 8 32, D16_v3 16 64, D32_v3 32 128, D48_v3 48 192, D64_v3 64 256,"
    "D2s_v3 2 8, D4s_v3 4 16, D8s_v3 8 32, D16s_v3 16 64, D32s_v3 32 128, D48s_v3 48 192, D64s_v3 64 256,"
    "E2s_v3 2 16, E4s_v3 4 32, E8s_v3 8 64, E16s_v3 16 128, E32s_v3 32 256,"
    "F1 1 2, F2 2 4, F4 4 8, F8 8 16, F16 16 32, F1s 1 2, F2s 2 4, F4s 4 8, F8s 8 16, F16s 16 32,"
    "F2s_v2 2 4, F4s_v2 4 8, F8s_v2 8 16, F16s_v2 16 32, F32s_v2 32 64, F48s_v2 48 96, F64s_v2 64 128, F72s_v2 72 144"
)
_OTHER_GPU = {
    "V100": "p3.2xlarge 8 61 1, p3.8xlarge 32 244 4, p3.16xlarge 64 488 8, p3dn.24xlarge 96 768 8",
    "A100-40GB": "p4d.24xlarge 96 1152 8, a2-highgpu-1g 12 85 1, a2-highgpu-2g 24 170 2, a2-highgpu-4g 48 340 4,"
    "a2-highgpu-8g 96 680 8",
    "H100": "p5.48xlarge 192 2048 8, a3-highgpu-8g 208 1872 8",
    "T4": "g4dn.xlarge 4 16 1, g4dn.2xlarge 8 32 1, g4dn.4xlarge 16 64 1, g4dn.8xlarge 32 128 1,"
    "g4dn.12xlarge 48 192 4, g4dn.16xlarge 64 256 1",
    "A10G": "g5.xlarge 4 16 1, g5.2xlarge 8 32 1, g5.4xlarge 16 64 1, g5.8xlarge 32 128 1, g5.12xlarge 48 192 4,"
    "g5.16xlarge 64 256 1, g5.24xlarge 96 384 4, g5.48xlarge 192 768 8",
}
_PREFIX = "Standard_"


def _rows(text: str, model: str | None, prefix: str = "") -> list[VmSize]:
    found = []
    for row in text.split(","):
        name, cpus, memory_gb, *gpus = row.split()
        found.append(VmSize(prefix + name, int(cpus), float(memory_gb), int(gpus[0]) if gpus else 0, model))
    return found


SIZES: tuple[VmSize, ...] = (
    *(size for model, text in _AZURE_GPU.items() for size in _rows(text, model, _PREFIX)),
    *_rows(_AZURE_CPU, None, _PREFIX),
    *(size for model, text in _OTHER_GPU.items() for size in _rows(text, model)),
)
"""Every size that is known by name."""
_BY_NAME = {size.name.casefold().removeprefix(_PREFIX.casefold()): size for size in SIZES}


def find_size(name: str) -> VmSize:
    """The size of that name, whatever its case, with or without ``Standard_``; raises ComputeTargetException."""
    key = name.strip().casefold().removeprefix(_PREFIX.casefold())
    if key in _BY_NAME:
        return _BY_NAME[key]
    close = [_BY_NAME[match].name for match in difflib.get_close_matches(key, _BY_NAME, n=3, cutoff=0.5)]
    hint = f" (did you mean {', '.join(close)}?)" if close else ""
    raise ComputeTargetException(
        f"vm_size {name[:80]!r} is not known{hint}; say other sizes with cpus_per_node, memory_gb_per_node and "
        "gpus_per_node"
    )


def shape_of_size(vm_size: str, here: Capacity) -> NodeShape:
    """What a node of that size has on this machine, capped by what there is."""
    size = find_size(vm_size)
    return cap(size.cpus, size.gpus, size.memory_gb, here)
