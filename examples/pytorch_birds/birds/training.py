"""The training loop proper: it knows tensors and epochs, and nothing of files, MLflow or terminals."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WEIGHT_DECAY = 5e-4
# Step decay: the rate falls to a fifth after each of these shares of the epochs.
DECAY_AT, DECAY = (0.6, 0.85), 0.2


@dataclass(frozen=True)
class Score:
    """Mean loss and accuracy (0 to 1) over one pass; probabilities (images, classes) if it was validation."""

    loss: float
    accuracy: float
    images: int
    probabilities: torch.Tensor | None = None


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave; ``learning_rate`` is the one that it trained with."""

    number: int
    train: Score
    val: Score
    learning_rate: float
    images_per_second: float

    def metrics(self) -> dict[str, float]:
        """Return the values to log, by name."""
        return {
            "train_loss": self.train.loss,
            "train_accuracy": self.train.accuracy,
            "val_loss": self.val.loss,
            "val_accuracy": self.val.accuracy,
            "learning_rate": self.learning_rate,
            "images_per_second": self.images_per_second,
        }


@dataclass
class Best:
    """The best epoch so far, by validation accuracy and then by loss, with its weights."""

    epoch: Epoch | None = None
    state: dict[str, Any] | None = None

    def offer(self, epoch: Epoch, model: nn.Module) -> bool:
        """Keep the epoch and the model's weights if they beat what is kept; say whether they did."""
        if self.epoch is not None and _rank(epoch) <= _rank(self.epoch):
            return False
        self.epoch, self.state = epoch, copy.deepcopy(model.state_dict())
        return True

    def restore(self, model: nn.Module) -> Epoch:
        """Put the kept weights back into the model and return their epoch."""
        if self.epoch is None or self.state is None:
            raise ValueError("no epoch was offered")
        model.load_state_dict(self.state)
        return self.epoch


def _rank(epoch: Epoch) -> tuple[float, float]:
    # A loss that is not a number loses against every other.
    return epoch.val.accuracy, -epoch.val.loss if math.isfinite(epoch.val.loss) else -math.inf


class Trainer:
    """A model with its optimizer on one device; mixed precision and channels-last on a GPU."""

    def __init__(
        self, model: nn.Module, device: torch.device, epochs: int, learning_rate: float, momentum: float
    ) -> None:
        self.device = device
        self.epochs = epochs
        # On a CPU channels-last is the faster layout as well.
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=learning_rate,
            momentum=momentum,
            nesterov=momentum > 0,
            weight_decay=WEIGHT_DECAY,
        )
        steps = sorted({math.ceil(epochs * share) for share in DECAY_AT})
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, steps, DECAY)
        on_gpu = device.type == "cuda"
        half = torch.bfloat16 if not on_gpu or torch.cuda.is_bf16_supported() else torch.float16
        self.autocast = torch.autocast(device.type, dtype=half, enabled=on_gpu)
        self.scaler = torch.amp.GradScaler(device.type, enabled=half is torch.float16)

    def fit(self, train: Iterable[Any], val: Iterable[Any], on_batch: Callable[[int, int], None]) -> Iterable[Epoch]:
        """Train all epochs, yielding each; ``on_batch(epoch, batch)`` follows every batch."""
        for number in range(1, self.epochs + 1):
            rate = self.optimizer.param_groups[0]["lr"]
            start = time.perf_counter()
            trained = self._train(train, partial(on_batch, number))
            seconds = time.perf_counter() - start
            tested = self.evaluate(val)
            self.schedule.step()
            yield Epoch(number, trained, tested, rate, trained.images / seconds)

    def _train(self, batches: Iterable[Any], on_batch: Callable[[int], None]) -> Score:
        self.model.train()
        # Summed on the device: reading a value after each batch would make the CPU wait for the GPU.
        loss_sum, right = (torch.zeros((), device=self.device) for _ in range(2))
        images = 0
        for number, batch in enumerate(batches, start=1):
            pictures, labels = self._move(batch)
            with self.autocast:
                logits = self.model(pictures)
                loss = self.loss(logits, labels)
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            loss_sum += loss.detach() * len(labels)
            right += (logits.argmax(1) == labels).sum()
            images += len(labels)
            on_batch(number)
        return Score(loss_sum.item() / images, right.item() / images, images)

    @torch.inference_mode()
    def evaluate(self, batches: Iterable[Any]) -> Score:
        """Score the model on the batches without training it."""
        self.model.eval()
        outputs, targets = [], []
        for batch in batches:
            pictures, labels = self._move(batch)
            with self.autocast:
                outputs.append(self.model(pictures).float())
            targets.append(labels)
        logits, labels = torch.cat(outputs), torch.cat(targets)
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        return Score(self.loss(logits, labels).item(), accuracy, len(labels), logits.softmax(1).cpu())

    def _move(self, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        pictures, labels = batch
        moved = pictures.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        return moved, labels.to(self.device, non_blocking=True)
