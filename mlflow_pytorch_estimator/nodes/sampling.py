"""CPU, memory, disk, network and GPUs of a node, under the names that MLflow's own monitors give them.

Not MLflow's monitors: they know only whole machines, while a node here may be a share of one, and importing MLflow
on every node takes seconds of its cores when the ranks want to start.
"""

from __future__ import annotations

import os
import time
from typing import Any

import psutil

from mlflow_pytorch_estimator.schedulers.base import Allocation

_INTERVAL_SECONDS = 10.0
_MEGABYTE = 1e6  # as MLflow counts


class Sampler:
    """Values of one node: its cores' load since the last sample, network traffic since the first."""

    def __init__(self, place: Allocation) -> None:
        self._place = place
        self._interval = _interval(os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"))
        self._next = time.monotonic() + 1.0  # short jobs have one, too
        self._network = psutil.net_io_counters()
        self._nvml: Any = None
        self._gpus: list[Any] = []
        psutil.cpu_percent(percpu=True)
        if place.gpus:
            self._open_gpus()

    def sample(self) -> dict[str, float]:
        """The values now if it is time, else none."""
        if time.monotonic() < self._next:
            return {}
        self._next = time.monotonic() + self._interval
        return {**self._machine(), **self._devices()}

    def _machine(self) -> dict[str, float]:
        cores = psutil.cpu_percent(percpu=True)
        ours = [cores[cpu] for cpu in self._place.cpus if cpu < len(cores)] or cores
        memory, disk, network = psutil.virtual_memory(), psutil.disk_usage(os.sep), psutil.net_io_counters()
        before = self._network
        values = {
            "cpu_utilization_percentage": sum(ours) / len(ours),
            "system_memory_usage_megabytes": memory.used / _MEGABYTE,
            "system_memory_usage_percentage": memory.used / memory.total * 100,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / _MEGABYTE,
            "disk_available_megabytes": disk.free / _MEGABYTE,
        }
        if before and network:  # a network namespace may have no device
            values["network_receive_megabytes"] = (network.bytes_recv - before.bytes_recv) / _MEGABYTE
            values["network_transmit_megabytes"] = (network.bytes_sent - before.bytes_sent) / _MEGABYTE
        return values

    def _open_gpus(self) -> None:
        import pynvml

        try:
            pynvml.nvmlInit()
            self._gpus = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in self._place.gpus]
        except pynvml.NVMLError:
            return
        self._nvml = pynvml

    def _devices(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for index, gpu in zip(self._place.gpus, self._gpus, strict=False):
            for name, read in _GPU_VALUES.items():
                try:
                    values[f"gpu_{index}_{name}"] = read(self._nvml, gpu)
                except self._nvml.NVMLError:
                    continue  # not every GPU tells everything
        return values


def _interval(setting: str | None) -> float:
    """Seconds, as MLflow's own variable says; what is no number is left to MLflow to complain about."""
    try:
        return max(1.0, float(setting or _INTERVAL_SECONDS))
    except ValueError:
        return _INTERVAL_SECONDS


def _memory_share(nvml: Any, gpu: Any) -> float:
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
    return round(memory.used / memory.total * 100, 1)


def _power_share(nvml: Any, gpu: Any) -> float:
    return float(nvml.nvmlDeviceGetPowerUsage(gpu) / nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) * 100)


_GPU_VALUES = {
    "memory_usage_megabytes": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used / _MEGABYTE,
    "memory_usage_percentage": _memory_share,
    "utilization_percentage": lambda nvml, gpu: float(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
    "power_usage_watts": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    "power_usage_percentage": _power_share,
}
