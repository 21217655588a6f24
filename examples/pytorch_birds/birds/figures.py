"""The two figures of a run: a confusion matrix and a sheet of sample predictions."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np

# Figure without pyplot: no display, no global state, nothing to close.
from matplotlib.figure import Figure
from PIL import ImageOps

from birds.data import read_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

GOOD, BAD = "#2e7d32", "#c62828"


def confusion_matrix(classes: Sequence[str], labels: torch.Tensor, predicted: torch.Tensor) -> Figure:
    """Draw how many validation images of each class (rows) were taken for each class (columns)."""
    count = len(classes)
    matrix = np.bincount((labels * count + predicted).numpy(), minlength=count * count).reshape(count, count)
    side = 2.4 + 0.9 * min(count, 20)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(matrix / matrix.sum(axis=1, keepdims=True).clip(1), cmap="Greens", vmin=0, vmax=1)
    axes.set_xticks(range(count), classes, rotation=45, ha="right")
    axes.set_yticks(range(count), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title("Validation images")
    for row, column in np.ndindex(count, count):
        share = matrix[row, column] / max(1, matrix[row].sum())
        color = "white" if share > 0.6 else "black"
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=color)
    return figure


def sample_sheet(
    classes: Sequence[str], samples: Sequence[tuple[Path, int]], probabilities: torch.Tensor, most: int = 24
) -> Figure:
    """Draw validation images with the model's answers: the worst mistakes first, then a cross-section."""
    predicted = probabilities.argmax(1).tolist()
    truth = [probabilities[row, label].item() for row, (_, label) in enumerate(samples)]
    worst = sorted(range(len(samples)), key=truth.__getitem__)
    wrong = [row for row in worst if predicted[row] != samples[row][1]][: most // 3]
    rest = [row for row in range(len(samples)) if row not in set(wrong)]
    room = most - len(wrong)
    shown = wrong + [rest[k * len(rest) // room] for k in range(room)] if len(rest) > room else wrong + rest
    columns = min(6, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(1.9 * columns, 2.15 * rows), layout="constrained")
    for place, row in enumerate(shown, start=1):
        path, label = samples[row]
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(ImageOps.fit(read_image(path, 128), (160, 160)))
        axes.set_axis_off()
        name = textwrap.shorten(classes[predicted[row]], 18, placeholder="…")
        title = f"{name} {probabilities[row, predicted[row]]:.0%}"
        axes.set_title(title, fontsize=9, color=GOOD if predicted[row] == label else BAD)
    return figure
