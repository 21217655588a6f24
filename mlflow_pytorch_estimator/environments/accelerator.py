"""Which accelerator this machine has, as conda sees it when it chooses builds."""

from __future__ import annotations

from pathlib import Path

_DEVICES = ("/dev/nvidiactl", "/dev/dxg")


def cuda_of_driver() -> str:
    """Return the newest CUDA that the driver runs, such as ``12.4``; empty without a driver. Starts no process."""
    # Loading NVML takes 20 ms, which a machine without a driver need not pay.
    if not any(Path(device).exists() for device in _DEVICES):
        return ""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ""
    try:
        version = pynvml.nvmlSystemGetCudaDriverVersion_v2()
    finally:
        pynvml.nvmlShutdown()
    return f"{version // 1000}.{version % 1000 // 10}"
