"""A drawn stand-in for the tutorial's photographs, of the same size: 120 + 100 images of each class.

The birds differ in shape only: fan tail, bare neck and snood against comb, round body and compact tail.
Colour, place, size, pose, side, scenery and light are drawn from the same distributions for both, so that
a linear model on the pixels finds little to hold on to.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from birds.pen import Pen
from birds.poultry import BIRDS
from birds.scenery import light, paint_backdrop, plant_foreground

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"train": 120, "val": 100}
PIXELS = 128
# Part of the cache folder's name: raise it whenever a drawing changes.
VERSION = 1


def draw_picture(label: str, key: str, pixels: int = PIXELS) -> Image.Image:
    """Draw one bird of class ``label``; the same ``key`` gives the same picture."""
    rng = random.Random(f"{label}/{key}")
    size = 2 * pixels  # halved at the end: smooth edges
    image = paint_backdrop(size, rng)
    pen = Pen(
        canvas=ImageDraw.Draw(image),
        center=(rng.uniform(0.38, 0.62) * size, rng.uniform(0.46, 0.62) * size),
        scale=rng.uniform(0.56, 0.8) * size,
        angle=math.radians(rng.gauss(0, 9)),
        flip=rng.random() < 0.5,
    )
    BIRDS[label](pen, rng)
    plant_foreground(image, rng)
    return light(image.resize((pixels, pixels), Image.Resampling.BOX), rng)


def write_pictures(folder: Path, seed: int, sizes: dict[str, int] | None = None) -> None:
    """Write an image folder, ``<split>/<class>/<number>.jpg``, into the empty ``folder``."""
    for split, count in (sizes or SIZES).items():
        for label in BIRDS:
            target = folder / split / label
            target.mkdir(parents=True)
            for number in range(count):
                picture = draw_picture(label, f"{seed}/{split}/{number}")
                picture.save(target / f"{number:03d}.jpg", quality=92)
