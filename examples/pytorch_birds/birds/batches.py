"""Which images of a batch are whose, when several ranks train on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator


class SharedBatches(Sampler[list[int]]):
    """One rank's part of each batch that ``size`` ranks train on together.

    All together are the batch of one process with ``size`` times the ``batch_size``, and no image twice. Parts may
    differ by an image in the last batch; ``weight`` makes up for it. With a seed, images are shuffled anew in each
    epoch, and a last batch of less than two images for each rank is left out. Without one, rank r has images r,
    r + size, r + 2 size, ... in order, all of them.
    """

    def __init__(self, images: int, batch_size: int, seed: int | None, rank: int, size: int) -> None:
        self.images, self.seed, self.rank, self.size = images, seed, rank, size
        self.whole = batch_size * size
        self.epoch = 0
        sizes = [min(self.whole, images - start) for start in range(0, images, self.whole)]
        # How many images each batch has on all ranks. A part of one has no variance for the batch normalisation.
        self.sizes = [images for images in sizes if seed is None or images >= 2 * size]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch: the same on all ranks, another one each time."""
        self.epoch = epoch

    def weight(self, batch: int) -> float:
        """Return what turns the mean of the ranks' mean losses into that of all images, by batch from 0."""
        images = self.sizes[batch]
        return len(range(self.rank, images, self.size)) * self.size / images

    def __len__(self) -> int:
        return len([images for images in self.sizes if images > self.rank])

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(self.images))
        if self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            order = torch.randperm(self.images, generator=generator).tolist()
        for number, images in enumerate(self.sizes):
            if images > self.rank:
                start = number * self.whole
                yield order[start : start + images][self.rank :: self.size]
