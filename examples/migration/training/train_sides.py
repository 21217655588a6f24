"""Teach a small network which side of a line a point lies on. It knows nothing but ``Run``."""

from __future__ import annotations

import argparse
import os

import numpy as np
import torch
from torch import nn

from mlflow_pytorch_estimator import Run


def points(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (count, 2) and the side that each lies on (count,)."""
    places = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return places, (places.sum(1) > 0).long()


def main() -> None:
    """Train, log and save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--num_epochs", type=int, default=3)
    parser.add_argument("--output_dir", type=str, default="outputs")
    options = parser.parse_args()
    run = Run.get_context()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    run.log("lr", np.float64(0.5))
    (inputs, labels), (test_inputs, test_labels) = points(256, seed=1), points(64, seed=2)
    best = 0.0
    for epoch in range(options.num_epochs):
        loss = criterion(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        accuracy = (model(test_inputs).argmax(1) == test_labels).float().mean().item()
        best = max(best, accuracy)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, accuracy {accuracy:.3f}")
        run.log("best_val_acc", np.float64(best))
    os.makedirs(options.output_dir, exist_ok=True)  # noqa: PTH103 - as scripts of that time do
    torch.save(model, os.path.join(options.output_dir, "model.pt"))  # noqa: PTH118


if __name__ == "__main__":
    main()
