"""The training loop proper: it knows tensors and epochs, and nothing of files, MLflow or terminals."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from birds.batches import SharedBatches
from birds.distributed import Ranks

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

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept, for a checkpoint."""
        return {"epoch": None if self.epoch is None else asdict(self.epoch), "weights": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep what ``state_dict`` has returned."""
        self.epoch, self.state = None, state["weights"]
        if state["epoch"] is not None:
            scores = {split: Score(**state["epoch"][split]) for split in ("train", "val")}
            self.epoch = Epoch(**{**state["epoch"], **scores})

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
    """A model with its optimizer on one device; mixed precision on a GPU.

    Batch normalisation: each rank normalises by the statistics of its own part of a batch, as if it trained alone;
    the running means and variances, which the model is validated and used with, are averaged over the ranks at the
    end of each epoch. So all ranks validate one and the same network, and the first one saves it.
    """

    def __init__(  # noqa: PLR0917
        self,
        model: nn.Module,
        device: torch.device,
        epochs: int,
        learning_rate: float,
        momentum: float,
        ranks: Ranks | None = None,
    ) -> None:
        self.device = device
        self.epochs = epochs
        self.ranks = ranks or Ranks()
        self.model = model.to(device).to(memory_format=self.ranks.memory_format)
        self.shared = self.ranks.share(self.model)
        self.loss = nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=learning_rate,
            momentum=momentum,
            nesterov=momentum > 0,
            weight_decay=WEIGHT_DECAY,
        )
        self.optimizer = self.ranks.averaging(optimizer, self.model)
        steps = sorted({math.ceil(epochs * share) for share in DECAY_AT})
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, steps, DECAY)
        on_gpu = device.type == "cuda"
        half = torch.bfloat16 if not on_gpu or torch.cuda.is_bf16_supported() else torch.float16
        self.autocast = torch.autocast(device.type, dtype=half, enabled=on_gpu)
        self.scaler = torch.amp.GradScaler(device.type, enabled=half is torch.float16)

    def fit(
        self, train: Iterable[Any], val: Iterable[Any], on_batch: Callable[[int, int], None], done: int = 0
    ) -> Iterable[Epoch]:
        """Train the epochs after ``done``, yielding each; ``on_batch(epoch, batch)`` follows every batch."""
        for number in range(done + 1, self.epochs + 1):
            rate = self.optimizer.param_groups[0]["lr"]
            start = time.perf_counter()
            divided = _shared_batches(train)
            if divided is not None:
                divided.set_epoch(number)
            trained = self._train(train, partial(on_batch, number))
            seconds = time.perf_counter() - start
            self.ranks.average(buffer for buffer in self.model.buffers() if buffer.is_floating_point())
            tested = self.evaluate(val)
            self.schedule.step()
            yield Epoch(number, trained, tested, rate, trained.images / seconds)

    def _train(self, batches: Iterable[Any], on_batch: Callable[[int], None]) -> Score:
        self.model.train()
        # Summed on the device: reading a value after each batch would make the CPU wait for the GPU.
        loss_sum, right = (torch.zeros((), device=self.device) for _ in range(2))
        images, divided = 0, _shared_batches(batches)
        for number, batch in enumerate(batches, start=1):
            pictures, labels = self._move(batch)
            with self.autocast:
                logits = self.shared(pictures)
                loss = self.loss(logits, labels)
            weight = 1.0 if divided is None else divided.weight(number - 1)
            self.optimizer.zero_grad()
            self.scaler.scale(loss * weight).backward()
            self.ranks.step(self.scaler, self.optimizer)
            self.scaler.update()
            loss_sum += loss.detach() * len(labels)
            right += (logits.argmax(1) == labels).sum()
            images += len(labels)
            on_batch(number)
        return self._score(loss_sum, right, images)

    def _score(self, loss_sum: torch.Tensor, right: torch.Tensor, images: int) -> Score:
        """Divide the sums over all ranks by the images of all ranks: their means would not weigh them alike."""
        count = torch.tensor(images, device=self.device)
        total = self.ranks.sum(torch.stack([loss_sum.double(), right.double(), count.double()])).tolist()
        return Score(total[0] / total[2], total[1] / total[2], int(total[2]))

    def evaluate(self, batches: Iterable[Any]) -> Score:
        """Score the model without training it, on the batches of all ranks; each image counts once."""
        logits, labels = self._outputs(batches)
        loss_sum = nn.functional.cross_entropy(logits.double(), labels, reduction="sum")
        score = self._score(loss_sum, (logits.argmax(1) == labels).sum(), len(labels))
        parts = self.ranks.gather(logits.softmax(1).cpu())
        probabilities = torch.empty(score.images, parts[0].shape[1])
        for rank, part in enumerate(parts):
            probabilities[rank :: len(parts)] = part
        return replace(score, probabilities=probabilities)

    @torch.inference_mode()
    def _outputs(self, batches: Iterable[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (images, classes) and labels (images) of the batches; without any, of no image."""
        self.model.eval()
        outputs, targets = [], []
        for batch in batches:
            pictures, labels = self._move(batch)
            with self.autocast:
                outputs.append(self.model(pictures).float())
            targets.append(labels)
        if not outputs:
            return torch.zeros(0, 1, device=self.device), torch.zeros(0, dtype=torch.long, device=self.device)
        return torch.cat(outputs), torch.cat(targets)

    def _move(self, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        pictures, labels = batch
        moved = pictures.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        return moved, labels.to(self.device, non_blocking=True)


def _shared_batches(batches: Iterable[Any]) -> SharedBatches | None:
    """What divides the batches among ranks; None if there is only one."""
    sampler = getattr(batches, "batch_sampler", None)
    return sampler if isinstance(sampler, SharedBatches) else None
