"""What ranks of the bird example do in ``test_distributed_example.py``; a script, for environments without pytest.

python distributed_programs.py steps FOLDER       50 steps and a validation, as one process or one of several ranks
python distributed_programs.py script ARGUMENTS   train.py without the export, which needs ONNX
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "pytorch_birds")]

from birds import pipeline  # noqa: E402
from birds.batches import SharedBatches  # noqa: E402
from birds.data import make_loader  # noqa: E402
from birds.distributed import Ranks, join  # noqa: E402
from birds.training import Trainer  # noqa: E402

IMAGES, BATCH, EPOCHS = 37, 8, 10
"""Five batches an epoch, the last one of 5 images: 3 and 2 on two ranks."""
VALIDATED = (11, 1)
"""How many images are validated, first and then; of one image a second rank gets nothing."""


class Recording(nn.Module):
    """The loss, with a note of each value and of how many images it is the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, int]] = []

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.cross_entropy(logits, labels)
        self.seen.append((loss.item(), len(labels)))
        return loss


def pictures(count: int, seed: int) -> Any:
    drawn = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(count, 3, 8, 8, generator=drawn), torch.randint(0, 3, (count,), generator=drawn))


def network(seed: int) -> nn.Module:
    """Without batch normalisation, which sees a rank's own part of a batch: no ranks could equal one process then."""
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
    return nn.Sequential(*layers)


def steps(folder: Path) -> None:
    torch.set_num_threads(1)
    ranks: Ranks = join()
    data = pictures(IMAGES, 1)
    if ranks.size == 1:
        train: Any = DataLoader(data, batch_sampler=SharedBatches(IMAGES, BATCH, 5, 0, 1))
    else:
        train = make_loader(data, BATCH // ranks.size, 0, 5, ranks.rank, ranks.size)
    # Each rank starts from other weights: those of the first one must win.
    trainer = Trainer(network(ranks.rank), ranks.device, EPOCHS, 0.1, 0.9, ranks)
    recording = Recording()
    trainer.loss = recording  # type: ignore[assignment]
    loaders = [make_loader(pictures(count, 2), 4, 0, None, ranks.rank, ranks.size) for count in VALIDATED]
    epochs = list(trainer.fit(train, loaders[0], lambda *_: None))
    shares = [len(labels) for _, labels in loaders[0]]
    validated = [epochs[-1].val, trainer.evaluate(loaders[1])]
    counted = ranks.gather(ranks.rank)
    buffers = [torch.tensor([float(ranks.rank)] * 3), torch.tensor(ranks.rank + 1.0)]
    ranks.average(buffers)
    weights = torch.cat([weight.detach().flatten() for weight in trainer.model.parameters()])
    found = {
        "rank": ranks.rank,
        "size": ranks.size,
        "kind": type(ranks).__name__,
        "device": str(ranks.device),
        "gathered": counted,
        "averaged": [buffers[0].tolist(), buffers[1].item()],
        "losses": recording.seen[: EPOCHS * len(train)],
        "train": [[epoch.train.loss, epoch.train.accuracy, epoch.train.images] for epoch in epochs],
        "val": [[score.loss, score.accuracy, score.images] for score in validated],
        "probabilities": [_listed(score.probabilities) for score in validated],
        "shares": shares,
        "weights": weights.tolist(),
    }
    ranks.close()
    (folder / f"rank{ranks.rank}.json").write_text(json.dumps(found))


def _listed(probabilities: torch.Tensor | None) -> Any:
    return None if probabilities is None else probabilities.tolist()


def script(arguments: list[str]) -> int:
    import train

    pipeline._publish = lambda *_: print("published", flush=True)
    return train.main(arguments)


if __name__ == "__main__":
    if sys.argv[1] == "steps":
        steps(Path(sys.argv[2]))
    else:
        sys.exit(script(sys.argv[2:]))
