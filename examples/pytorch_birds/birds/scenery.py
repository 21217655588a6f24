"""What lies behind and before a bird: sky, ground, distant things, grass, and the light of the day."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from birds.pen import Color, blend, bow, shade

if TYPE_CHECKING:
    import random

SKIES: tuple[tuple[Color, Color], ...] = (
    ((112, 174, 226), (214, 234, 244)),
    ((150, 160, 176), (214, 214, 210)),
    ((236, 150, 96), (250, 214, 160)),
    ((86, 104, 158), (228, 170, 160)),
    ((186, 214, 206), (240, 240, 220)),
)
GROUNDS: tuple[Color, ...] = (
    (112, 156, 72),
    (146, 170, 86),
    (176, 148, 102),
    (134, 104, 76),
    (226, 228, 234),
    (196, 178, 110),
)
ACCENTS: tuple[Color, ...] = ((200, 46, 48), (236, 196, 70), (240, 240, 236), (176, 106, 190), (96, 140, 200))


def paint_backdrop(size: int, rng: random.Random) -> Image.Image:
    """Paint a landscape or a plain wall, ``size`` pixels square."""
    if rng.random() < 0.22:
        return _wall(size, rng)
    top, bottom = rng.choice(SKIES)
    image = _gradient(size, top, bottom)
    draw = ImageDraw.Draw(image)
    horizon = rng.uniform(0.3, 0.65) * size
    ground = shade(rng.choice(GROUNDS), rng.uniform(0.85, 1.1))
    _far_away(draw, size, horizon, rng, blend(ground, bottom, 0.45))
    draw.rectangle((0, horizon, size, size), fill=ground)
    for _ in range(rng.randint(10, 22)):
        x, y = rng.uniform(-0.1, 1) * size, rng.uniform(horizon, size)
        width = rng.uniform(0.05, 0.3) * size
        patch = shade(ground, rng.uniform(0.84, 1.12))
        draw.ellipse((x, y, x + width, y + width * rng.uniform(0.1, 0.3)), fill=patch)
    if rng.random() < 0.3:
        _fence(draw, size, horizon, rng)
    return image.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.006, 0.016)))


def _gradient(size: int, top: Color, bottom: Color) -> Image.Image:
    ramp = np.linspace(0, 1, size)[:, None, None]
    rows = np.array(top) * (1 - ramp) + np.array(bottom) * ramp
    return Image.fromarray(np.repeat(rows, size, axis=1).astype(np.uint8))


def _wall(size: int, rng: random.Random) -> Image.Image:
    color = shade(rng.choice([*GROUNDS, (160, 62, 52), (120, 132, 150)]), rng.uniform(0.8, 1.1))
    image = _gradient(size, color, shade(color, rng.uniform(0.6, 1.2)))
    draw = ImageDraw.Draw(image)
    board = rng.uniform(0.08, 0.2) * size
    for index in range(math.ceil(size / board)):
        x = index * board
        draw.rectangle((x, 0, x + board, size * 0.82), fill=shade(color, rng.uniform(0.86, 1.08)))
        draw.line((x, 0, x, size * 0.82), fill=shade(color, 0.65), width=max(1, size // 100))
    draw.rectangle((0, size * 0.82, size, size), fill=shade(rng.choice(GROUNDS), 0.9))
    return image


def _far_away(draw: ImageDraw.ImageDraw, size: int, horizon: float, rng: random.Random, haze: Color) -> None:
    for _ in range(rng.randint(1, 3)):
        x, radius = rng.uniform(0, size), rng.uniform(0.2, 0.55) * size
        lift = rng.uniform(0.06, 0.2) * size
        tone = shade(haze, rng.uniform(0.85, 1.05))
        draw.ellipse((x - radius, horizon - lift, x + radius, horizon + lift), fill=tone)
    for _ in range(rng.randint(0, 4)):
        x, radius = rng.uniform(0, size), rng.uniform(0.03, 0.1) * size
        leaf = rng.choice([(74, 112, 62), (104, 128, 60), (182, 110, 50)])
        draw.rectangle((x - radius / 6, horizon - radius, x + radius / 6, horizon), fill=(96, 72, 54))
        draw.ellipse((x - radius, horizon - 3 * radius, x + radius, horizon - radius * 0.6), fill=leaf)
    if rng.random() < 0.3:
        x, width = rng.uniform(0, 0.8) * size, rng.uniform(0.12, 0.25) * size
        barn, roof = horizon - 0.7 * width, horizon - 1.15 * width
        draw.rectangle((x, barn, x + width, horizon), fill=(164, 58, 50))
        draw.polygon([(x - 4, barn), (x + width / 2, roof), (x + width + 4, barn)], fill=(92, 78, 80))


def _fence(draw: ImageDraw.ImageDraw, size: int, horizon: float, rng: random.Random) -> None:
    wood = shade((204, 190, 168), rng.uniform(0.5, 1.1))
    height, gap = rng.uniform(0.1, 0.2) * size, rng.uniform(0.12, 0.22) * size
    for rail in (0.3, 0.7):
        y = horizon - height * rail
        draw.line((0, y, size, y), fill=wood, width=max(2, size // 50))
    for post in range(math.ceil(size / gap) + 1):
        x = post * gap
        draw.rectangle((x, horizon - height, x + size / 40, horizon + size / 30), fill=shade(wood, 0.9))


def plant_foreground(image: Image.Image, rng: random.Random) -> None:
    """Plant grass and a few flowers or berries in front of the bird."""
    draw, size = ImageDraw.Draw(image), image.width
    green = rng.choice([(86, 132, 58), (128, 150, 66), (168, 150, 84)])
    for _ in range(rng.randint(0, 6)):
        root, height = rng.uniform(0, size), rng.uniform(0.08, 0.32) * size
        for _ in range(rng.randint(4, 8)):
            lean = rng.uniform(-0.4, 0.4) * height
            x = root + rng.uniform(-0.03, 0.03) * size
            blade = bow((x, size), (x + lean * 0.2, size - height * 0.6), (x + lean, size - height), 6)
            tone = shade(green, rng.uniform(0.75, 1.2))
            draw.line(blade, fill=tone, width=max(2, size // 90), joint="curve")
    for _ in range(rng.randint(0, 7)):
        x, y, radius = rng.uniform(0, size), rng.uniform(0.74, 1) * size, rng.uniform(0.008, 0.024) * size
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=rng.choice(ACCENTS))


def light(image: Image.Image, rng: random.Random) -> Image.Image:
    """Cast the light of some hour over the picture, and the grain of some camera."""
    size = image.width
    pixels = np.asarray(image, dtype=np.float32)
    turn = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j].astype(np.float32)
    slope = 1 + rng.uniform(0, 0.28) * (x * math.cos(turn) + y * math.sin(turn))
    warmth = rng.uniform(-0.1, 0.1)
    tint = np.array([1 + warmth, 1, 1 - warmth], np.float32) * rng.uniform(0.78, 1.15)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(1, 6), pixels.shape)
    lit = pixels * slope[..., None] * tint + noise
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
