"""Train a small network on many ranks with Horovod, as a script written for the estimator API does it.

Each rank sees its part of the pictures; gradients are averaged by Horovod, which the job's environment has because
the estimator asks for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import torch
from pytorch_train import stripes
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from mlflow_pytorch_estimator import Run


def network(size: int) -> nn.Module:
    """Two convolutions and a linear layer: (N, 3, size, size) to (N, 2)."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * (size // 4) ** 2, 2)),
    )


def distributed(optimizer: Any, model: nn.Module) -> Any:
    """The optimizer that averages gradients over all ranks, which start from rank 0's weights."""
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    return hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())


def main() -> None:
    """Train, and let rank 0 save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num_epochs", type=int, default=3)
    parser.add_argument("--output_dir", default="./outputs")
    options = parser.parse_args()
    hvd.init()
    rank, size = hvd.rank(), hvd.size()
    torch.manual_seed(0)
    run = Run.get_context()
    run.log("world_size", size)
    data, model = stripes(256, 32, seed=1), network(32)
    sampler: DistributedSampler[Any] = DistributedSampler(data, num_replicas=size, rank=rank, seed=1)
    loader = DataLoader(data, batch_size=16, sampler=sampler)
    optimizer = distributed(torch.optim.SGD(model.parameters(), lr=0.02 * size, momentum=0.9), model)
    for epoch in range(options.num_epochs):
        sampler.set_epoch(epoch)
        for inputs, labels in loader:
            loss = nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"rank {rank} of {size}: epoch {epoch + 1}/{options.num_epochs} loss {loss.item():.4f}")
        run.log("loss", loss.item())
    if rank == 0:
        Path(options.output_dir).mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), Path(options.output_dir) / "model.pt")


if __name__ == "__main__":
    main()
