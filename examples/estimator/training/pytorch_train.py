"""Teach a ResNet-18 two classes of pictures, as a script written for the estimator API does it.

It knows nothing but ``Run``: inside a job it logs into the job's run, on its own (``python pytorch_train.py``) it
prints. Pictures come from ``--data_dir`` (``train/`` and ``val/`` with a folder for each class); without it, stripes
are drawn: upright against lying ones. The whole model ends up in ``output_dir`` as ``model.pt``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import datasets, models, transforms

from mlflow_pytorch_estimator import Run

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pictures(data_dir: str, split: str, size: int) -> Dataset[Any]:
    """The pictures of a folder, cropped to ``size`` pixels, or stripes."""
    if not data_dir:
        return stripes(192 if split == "train" else 64, size, seed=len(split))
    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()]
    if split == "train":
        steps = [transforms.RandomResizedCrop(size, (0.6, 1.0)), transforms.RandomHorizontalFlip(), *steps[2:]]
    found: Dataset[Any] = datasets.ImageFolder(
        str(Path(data_dir) / split), transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])
    )
    return found


def stripes(count: int, size: int, seed: int) -> TensorDataset:
    """Noisy waves of random length, (count, 3, size, size), that run along x (class 0) or y (class 1)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    place = torch.linspace(0, 2 * np.pi, size)
    lengths = torch.randint(2, 7, (count, 1), generator=generator)
    waves = torch.sin(lengths * place)[:, None, :].expand(-1, size, -1)
    turned = torch.where(labels[:, None, None] == 1, waves.transpose(1, 2), waves)
    noise = torch.randn(count, 3, size, size, generator=generator)
    return TensorDataset(turned[:, None] + 0.8 * noise, labels)


def train(options: argparse.Namespace, run: Any) -> nn.Module:
    """Train all epochs and return the model; logs loss and accuracy of both splits."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model: nn.Module = models.resnet18(num_classes=2).to(device)
    loaders = {
        split: DataLoader(pictures(options.data_dir, split, options.image_size), 16, shuffle=split == "train")
        for split in ("train", "val")
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=options.learning_rate, momentum=options.momentum)
    run.log("lr", np.float64(options.learning_rate))
    run.log("momentum", np.float64(options.momentum))
    best = 0.0
    for epoch in range(options.num_epochs):
        for split, loader in loaders.items():
            loss, accuracy = one_pass(model, loader, device, optimizer if split == "train" else None)
            print(f"epoch {epoch + 1}/{options.num_epochs} {split:5} loss {loss:.4f} accuracy {accuracy:.4f}")
            run.log(f"{split}_loss", np.float64(loss))
            run.log(f"{split}_acc", np.float64(accuracy))
        best = max(best, accuracy)
        run.log("best_val_acc", np.float64(best))
    return model


def one_pass(
    model: nn.Module, loader: DataLoader[Any], device: torch.device, optimizer: torch.optim.Optimizer | None
) -> tuple[float, float]:
    """Mean loss and accuracy over all batches; trains when there is an optimizer."""
    learning = optimizer is not None
    model.train(learning)
    losses, right, count = 0.0, 0, 0
    for batch, wanted in loader:
        inputs, labels = batch.to(device), wanted.to(device)
        with torch.set_grad_enabled(learning):
            outputs = model(inputs)
            loss = nn.functional.cross_entropy(outputs, labels)
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses += loss.item() * len(labels)
        right += int((outputs.argmax(1) == labels).sum())
        count += len(labels)
    return losses / count, right / count


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num_epochs", type=int, default=3)
    parser.add_argument("--output_dir", default="./outputs")
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--momentum", type=float, default=0.9)
    options = parser.parse_args()
    torch.manual_seed(0)
    run = Run.get_context()
    model = train(options, run)
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.cpu(), folder / "model.pt")
    print(f"saved {folder / 'model.pt'}")


if __name__ == "__main__":
    main()
