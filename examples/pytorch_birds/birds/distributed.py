"""The ranks of a job: one process, or several that torch.distributed or Horovod joins. The rest sees no difference."""

from __future__ import annotations

import os
from datetime import timedelta
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from birds import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

# One rank of each node may be downloading or drawing the data while the others wait.
PATIENCE = timedelta(hours=1)


class Ranks:
    """One process on its own, and what all kinds have in common; ``rank`` counts from 0 to below ``size``."""

    rank, size, local_rank, local_size = 0, 1, 0, 1
    # The faster layout for convolutions, on a CPU as well.
    memory_format = torch.channels_last

    def __init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def first(self) -> bool:
        """Whether this rank prints, logs and saves what all share."""
        return self.rank == 0

    def share(self, model: nn.Module) -> nn.Module:
        """Give all ranks the first one's weights; return what to call when training."""
        return model

    def averaging(self, optimizer: Any, model: nn.Module) -> Any:
        """Return the optimizer, which steps along the mean of all ranks' gradients."""
        return optimizer

    def step(self, scaler: Any, optimizer: Any) -> None:
        """Step, through the scaler of gradients that mixed precision needs."""
        scaler.step(optimizer)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add up the tensors of all ranks, element by element."""
        return values

    def gather(self, item: T) -> list[T]:
        """Return what each rank has brought, by rank."""
        return [item]

    def close(self) -> None:
        """Part from the other ranks: afterwards nobody waits for anybody."""

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Put the mean over all ranks into each of the tensors."""
        listed = list(tensors)
        if self.size == 1 or not listed:
            return
        with torch.no_grad():
            mean = self.sum(torch.cat([tensor.flatten() for tensor in listed])) / self.size
            parts = torch.split(mean, [tensor.numel() for tensor in listed])
            for tensor, part in zip(listed, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def in_turn(self, work: Callable[[], T]) -> T:
        """Let one rank of each node work before the others, who find it done; a failure is everybody's."""
        early = self._together(work, here=self.local_rank == 0)
        return work() if early is None else early

    def on_first(self, work: Callable[[], T]) -> T | None:
        """Let the first rank work, the others get ``None``; a failure is everybody's."""
        return self._together(work, here=self.first)

    def _together(self, work: Callable[[], T], *, here: bool) -> T | None:
        if self.size == 1:
            return work()
        result, fault = None, ""
        if here:
            try:
                result = work()
            except InputError as error:
                fault = str(error)
        # Nobody may be left waiting for a rank that has given up.
        faults = [each for each in self.gather(fault) if each]
        if faults:
            raise InputError(faults[0])
        return result


class TorchRanks(Ranks):
    """Ranks that find each other as ``torchrun`` tells them; NCCL if there is a GPU for each, else Gloo."""

    def __init__(self) -> None:
        from torch import distributed

        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise InputError(f"WORLD_SIZE is set and {missing[0]} is not: start with torchrun, or unset WORLD_SIZE")
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank))
        self.local_size = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))
        gpu = torch.cuda.is_available() and torch.cuda.device_count() >= self.local_size
        self.device = _own_gpu(self.local_rank) if gpu else torch.device("cpu")
        self._distributed = distributed
        distributed.init_process_group("nccl" if gpu else "gloo", timeout=PATIENCE)

    def share(self, model: nn.Module) -> nn.Module:
        """Wrap the model: it averages gradients while it computes them."""
        wrapper = nn.parallel.DistributedDataParallel
        devices = [self.device.index] if self.device.type == "cuda" else None
        # Buffers are averaged once in an epoch, see Trainer. The newer of the two names came with torch 2.15.
        names = [
            name for name in ("forward_sync_buffers", "broadcast_buffers") if name in signature(wrapper).parameters
        ]
        return wrapper(model, device_ids=devices, **{names[0]: False})  # type: ignore[arg-type]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add up in place."""
        self._distributed.all_reduce(values)
        return values

    def gather(self, item: T) -> list[T]:
        """Exchange pickles, which are small here."""
        items: list[Any] = [None] * self.size
        self._distributed.all_gather_object(items, item)
        return items

    def close(self) -> None:
        """Wait for the slowest, because the first rank may keep the store that all need."""
        self._distributed.barrier()
        self._distributed.destroy_process_group()


class HorovodRanks(Ranks):
    """Ranks that Horovod joins."""

    # Horovod takes no tensors in another order.
    memory_format = torch.contiguous_format

    def __init__(self) -> None:
        try:
            import horovod.torch as hvd
        except ImportError as error:
            raise InputError(f"HOROVOD_RANK is set and Horovod cannot be loaded ({error}): install it") from error
        hvd.init()
        self._hvd = hvd
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        gpu = torch.cuda.is_available() and torch.cuda.device_count() >= self.local_size
        if gpu and not hvd.nccl_built():
            gpu = False
            if self.first:
                print("warning: this Horovod has no NCCL, training on the CPU", flush=True)
        self.device = _own_gpu(self.local_rank) if gpu else torch.device("cpu")

    def share(self, model: nn.Module) -> nn.Module:
        """Broadcast the weights; Horovod averages gradients in its optimizer."""
        self._hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        return model

    def averaging(self, optimizer: Any, model: nn.Module) -> Any:
        """Wrap the optimizer. Its state needs no broadcast: it is empty, or every rank has restored the same."""
        return self._hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())

    def step(self, scaler: Any, optimizer: Any) -> None:
        """Average first: the scaler has to look at the gradients that are used, alike on every rank."""
        optimizer.synchronize()
        with optimizer.skip_synchronize():
            scaler.step(optimizer)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add up into a new tensor."""
        total: torch.Tensor = self._hvd.allreduce(values, op=self._hvd.Sum)
        return total

    def gather(self, item: T) -> list[T]:
        """Exchange pickles, which are small here."""
        return list(self._hvd.allgather_object(item))

    def close(self) -> None:
        """Wait for the slowest: a rank that leaves ends the others' exchanges."""
        self._hvd.barrier()
        self._hvd.shutdown()


def join() -> Ranks:
    """Join the ranks that the environment tells of.

    Horovod's variables count before ``RANK`` and ``WORLD_SIZE``, which many programs use.
    """
    if _counts("HOROVOD_RANK", "HOROVOD_SIZE"):
        return HorovodRanks()
    return TorchRanks() if _counts("RANK", "WORLD_SIZE") else Ranks()


def _counts(rank: str, size: str) -> bool:
    number = os.environ.get(size, "")
    return rank in os.environ and number.isdigit() and int(number) > 1


def _own_gpu(number: int) -> torch.device:
    torch.cuda.set_device(number)
    return torch.device("cuda", number)
