"""From options to a registered model: data, weights, training, figures, export, in this order."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import torch
from torch import nn

from birds import InputError, figures
from birds.data import Pictures, default_workers, find_images, make_loader, scan
from birds.download import shown
from birds.progress import Progress
from birds.training import Best, Trainer
from birds.weights import build_model
from mlflow_pytorch_estimator import log_model

if TYPE_CHECKING:
    from birds.data import ImageFolders
    from birds.options import Options
    from birds.training import Epoch


def run(options: Options) -> None:
    """Train as ``options`` say, log to MLflow, save and register the best epoch's model."""
    torch.manual_seed(options.seed)
    images = scan(find_images(options.data_dir, options.data_url, options.seed))
    output = _writable(Path(options.output_dir))
    model, initial = build_model(options.weights, len(images.classes))
    # Inside a job this resumes the job's run, outside it makes a new one.
    with mlflow.start_run() as active:
        given = asdict(options) | {"data_url": shown(options.data_url), "initial_weights": initial}
        # A launcher may have logged its own spelling ('0.0010'), which MLflow does not let us change.
        present = active.data.params
        mlflow.log_params({k: v for k, v in given.items() if v != "" and k not in present})
        best = _fit(options, images, model)
        _log_figures(images, best)
        _save(model, images.classes, output)
        _publish(options, images, model, best)


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output_dir: {folder} cannot be made ({error.strerror}): give another") from error
    return folder


def _fit(options: Options, images: ImageFolders, model: nn.Module) -> Epoch:
    """Train; leave the best epoch's weights in ``model``, on the CPU, and return that epoch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    workers = default_workers() if options.workers < 0 else options.workers
    train = Pictures(images.train, options.image_size, augment=True)
    val = Pictures(images.val, options.image_size, augment=False)
    train_loader = make_loader(train, options.batch_size, workers, options.seed)
    val_loader = make_loader(val, 2 * options.batch_size, workers, None)
    classes = ", ".join(images.classes)
    print(f"{len(train)} training and {len(val)} validation images of {classes}, on {device}", flush=True)
    trainer = Trainer(model, device, options.num_epochs, options.learning_rate, options.momentum)
    progress = Progress(options.num_epochs, len(train_loader))
    best = Best()
    for epoch in trainer.fit(train_loader, val_loader, progress.batch):
        mlflow.log_metrics(epoch.metrics(), step=epoch.number)
        progress.epoch(epoch, best=best.offer(epoch, model))
    model.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return best.restore(model)


def _log_figures(images: ImageFolders, best: Epoch) -> None:
    probabilities = best.val.probabilities
    if probabilities is None:
        raise ValueError("the epoch was not validated")
    labels = torch.tensor([label for _, label in images.val])
    matrix = figures.confusion_matrix(images.classes, labels, probabilities.argmax(1))
    mlflow.log_figure(matrix, "figures/confusion_matrix.png")
    sheet = figures.sample_sheet(images.classes, images.val, probabilities)
    mlflow.log_figure(sheet, "figures/predictions.png")


def _save(model: nn.Module, classes: list[str], output: Path) -> None:
    torch.save(model.state_dict(), output / "model.pt")
    (output / "classes.json").write_text(json.dumps(classes, indent=1) + "\n", encoding="utf-8")


def _publish(options: Options, images: ImageFolders, model: nn.Module, best: Epoch) -> None:
    """Log the model as it is, giving logits: a softmax would hide a difference between the exports."""
    pictures = Pictures([images.val[0], images.val[-1]], options.image_size, augment=False)
    logged = log_model(
        model,
        torch.stack([pictures[row][0] for row in range(len(pictures))]),
        name="model",
        registered_model_name=options.model_name or None,
        input_names=["image"],
        output_names=["logits"],
    )
    name, version = logged.registered_model_name, logged.registered_model_version
    print(f"ONNX graph logged beside the PyTorch model: {logged.model_uri}")
    print(
        f"best val accuracy {best.val.accuracy:.1%} (epoch {best.number}),"
        f" ONNX parity {logged.max_abs_diff:.1e},"
        f" {f'registered as {name} version {version}' if name else 'not registered'}",
        flush=True,
    )
