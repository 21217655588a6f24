"""Which rank this process is and what the others say, with whatever joins them: torch.distributed, Horovod, nothing."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

import torch
from torch import distributed

from mlflow_pytorch_estimator.topology import place as place_in_environment


def rank_and_size() -> tuple[int, int]:
    """The rank of this process and the number of ranks: of the library that joins them, else of the environment."""
    if _torch_joins():
        return distributed.get_rank(), distributed.get_world_size()
    horovod = _horovod()
    if horovod is not None:
        return horovod.rank(), horovod.size()
    place = place_in_environment()
    return place.rank, place.world_size


def gather(answer: int | None, device: torch.device | None) -> list[int | None]:
    """The answers of all ranks, when all have called this; of this rank alone where nothing joins them.

    ``device`` is the one this rank computes on: NCCL talks through GPUs, and each rank must use its own.
    """
    if _torch_joins():
        answers: list[Any] = [None] * distributed.get_world_size()
        on_gpu = device is not None and device.type == "cuda"
        with torch.cuda.device(device) if on_gpu else nullcontext():
            distributed.all_gather_object(answers, answer)
        return answers
    horovod = _horovod()
    return [answer] if horovod is None else list(horovod.allgather_object(answer))


def _torch_joins() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _horovod() -> Any | None:
    # Only a script that has imported Horovod can have started it.
    horovod = sys.modules.get("horovod.torch")
    return horovod if horovod is not None and horovod.is_initialized() else None
