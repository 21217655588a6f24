"""From options to a registered model: data, weights, training, figures, export, in this order."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import torch
from torch import nn

from birds import InputError, figures
from birds.data import Pictures, default_workers, find_images, make_loader, scan
from birds.distributed import join
from birds.download import shown
from birds.progress import Progress
from birds.provenance import log_images
from birds.training import Best, Trainer
from birds.weights import build_model
from mlflow_pytorch_estimator import Checkpoint, log_model

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from birds.data import ImageFolders
    from birds.distributed import Ranks
    from birds.options import Options
    from birds.training import Epoch


def run(options: Options) -> None:
    """Train as ``options`` say, on all ranks; the first one logs to MLflow and registers the best epoch's model."""
    ranks = join()
    torch.manual_seed(options.seed)
    images = ranks.in_turn(lambda: scan(find_images(options.data_dir, options.data_url, options.seed)))
    _refuse_what_ranks_cannot_share(ranks, images)
    output = ranks.on_first(lambda: _writable(Path(options.output_dir)))
    # The others get the first one's weights before they train.
    made = ranks.on_first(lambda: build_model(options.weights, len(images.classes)))
    model, initial = made or build_model("none", len(images.classes))
    if not ranks.first:  # every rank draws augmentations of its own
        torch.manual_seed(options.seed + ranks.rank * 1_000_003)
    if output is None:
        _fit(options, images, model, ranks)
        return
    # Inside a job this resumes the job's run, outside it makes a new one.
    with mlflow.start_run() as active:
        given = asdict(options) | {"data_url": shown(options.data_url), "initial_weights": initial}
        # A launcher may have logged its own spelling ('0.0010'), which MLflow does not let us change.
        present = active.data.params
        mlflow.log_params({k: v for k, v in given.items() if v != "" and k not in present})
        log_images(active.info.run_id, options, images)
        best = _fit(options, images, model, ranks)
        _log_figures(images, best)
        _save(model, images.classes, output)
        _publish(options, images, model, best)


def _refuse_what_ranks_cannot_share(ranks: Ranks, images: ImageFolders) -> None:
    if len(images.train) < 2 * ranks.size:
        raise InputError(f"{len(images.train)} training images are too few for {ranks.size} ranks: two each are needed")
    found = {(tuple(images.classes), len(images.train), len(images.val))}
    found.update(ranks.gather(next(iter(found))))
    if len(found) > 1:
        counts = " and ".join(str(train + val) for _, train, val in sorted(found))
        raise InputError(f"the nodes see different images ({counts}): give a data_dir that all of them share")


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output_dir: {folder} cannot be made ({error.strerror}): give another") from error
    return folder


def _fit(options: Options, images: ImageFolders, model: nn.Module, ranks: Ranks) -> Epoch:
    """Train; leave the best epoch's weights in ``model``, on the CPU, and return that epoch."""
    workers = default_workers(ranks.local_size) if options.workers < 0 else options.workers
    train = Pictures(images.train, options.image_size, augment=True)
    val = Pictures(images.val, options.image_size, augment=False)
    place = {"rank": ranks.rank, "size": ranks.size}
    train_loader = make_loader(train, options.batch_size, workers, options.seed, **place)
    val_loader = make_loader(val, 2 * options.batch_size, workers, None, **place)
    if ranks.first:
        where = f"{ranks.device}" if ranks.size == 1 else f"{ranks.size} ranks, {ranks.device.type}"
        classes = ", ".join(images.classes)
        print(f"{len(train)} training and {len(val)} validation images of {classes}, on {where}", flush=True)
    rate = options.learning_rate * (ranks.size if options.scale_learning_rate else 1)
    trainer = Trainer(model, ranks.device, options.num_epochs, rate, options.momentum, ranks)
    progress = Progress(options.num_epochs, len(train_loader), quiet=not ranks.first)
    best = Best()
    checkpoint = _restored(trainer, best, train_loader)
    done = checkpoint.epoch if checkpoint else 0
    for epoch in trainer.fit(train_loader, val_loader, progress.batch, done):
        if ranks.first:
            mlflow.log_metrics(epoch.metrics(), step=epoch.number)
        progress.epoch(epoch, best=best.offer(epoch, model))
        if checkpoint:
            checkpoint.epoch = epoch.number
            checkpoint.save()
    # What follows is the first rank's; the others need not wait for it.
    ranks.close()
    model.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return best.restore(model)


def _restored(trainer: Trainer, best: Best, loader: DataLoader[Any]) -> Checkpoint | None:
    """Go on from the last epoch that is saved in ``CHECKPOINT_DIR``, if a job has such a folder."""
    if not os.environ.get("CHECKPOINT_DIR"):
        return None
    checkpoint = Checkpoint(
        trainer.model,
        trainer.optimizer,
        trainer.schedule,
        scaler=trainer.scaler,
        best=best,
        order=loader.generator,
        epoch=0,
    )
    if checkpoint.restore() and trainer.ranks.first:
        print(f"goes on after epoch {checkpoint.epoch}, from {checkpoint.folder}", flush=True)
    return checkpoint


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
