"""Data in the form in which public scripts look for it: MNIST's files, with drawn pictures that can be learned."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

_SIDE = 28
_KINDS = 10


def write_mnist(folder: Path, train: int, test: int) -> None:
    """The four files of torchvision's ``MNIST`` and ``FashionMNIST`` below ``folder``; the class is a bright block."""
    draw = np.random.default_rng(0)
    for dataset in ("MNIST", "FashionMNIST"):
        raw = folder / dataset / "raw"
        raw.mkdir(parents=True)
        for name, count in (("train", train), ("t10k", test)):
            labels = draw.integers(0, _KINDS, count, dtype=np.uint8)
            pictures = draw.integers(0, 64, (count, _SIDE, _SIDE), dtype=np.uint8)
            for kind in range(_KINDS):
                row, column = divmod(kind, 4)
                pictures[labels == kind, 2 + 8 * row : 8 + 8 * row, 7 * column : 6 + 7 * column] += 180
            header = struct.pack(">HBBIII", 0, 8, 3, count, _SIDE, _SIDE)
            (raw / f"{name}-images-idx3-ubyte").write_bytes(header + pictures.tobytes())
            (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, count) + labels.tobytes())
