"""Turns what ``log_image`` takes into the bytes of an image file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException


@dataclass(frozen=True)
class Picture:
    """An image that was checked: a file, or something that can be drawn."""

    name: str
    path: Path | None
    plot: Any

    def render(self) -> tuple[str, bytes]:
        """Suffix and content. A figure may change after it was logged, a file may go: both are read now."""
        if self.path is not None:
            return self.path.suffix or ".png", self.path.read_bytes()
        stream = io.BytesIO()
        if hasattr(self.plot, "savefig"):
            self.plot.savefig(stream, format="png")
        else:
            picture = self.plot if hasattr(self.plot, "save") else _from_array(self.name, self.plot)
            picture = (
                picture if picture.mode in {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"} else picture.convert("RGB")
            )
            picture.save(stream, format="PNG")
        return ".png", stream.getvalue()


def check(name: str, path: object, plot: Any) -> Picture:
    """Exactly one of a file and a plot: a matplotlib figure, axes or ``pyplot``, a PIL image or an array."""
    if (path is None) == (plot is None):
        raise UserErrorException(f"log_image({name!r}, ...) takes exactly one of path and plot")
    if path is not None:
        try:
            file = Path(path)  # type: ignore[arg-type]  # whatever the script gave
        except TypeError:
            kind = type(path).__name__
            raise UserErrorException(f"log_image({name!r}): path is the path of a file, not {kind}") from None
        if not file.is_file():
            raise UserErrorException(f"log_image({name!r}): there is no file {str(path)!r}")
        return Picture(name, file, None)
    figure = plot.gcf() if callable(getattr(plot, "gcf", None)) else plot
    if not hasattr(figure, "savefig") and callable(getattr(figure, "get_figure", None)):
        figure = figure.get_figure()
    if not any(hasattr(figure, member) for member in ("savefig", "save", "__array__")):
        raise UserErrorException(
            f"log_image({name!r}): {type(plot).__name__} is no plot; give a matplotlib figure, a PIL image or an array"
        )
    return Picture(name, None, figure)


def _from_array(name: str, array: Any) -> Any:
    try:
        import numpy as np
        from PIL import Image
    except ImportError as error:
        raise UserErrorException(f"log_image({name!r}): an array needs the package pillow ({error})") from error
    numbers = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)
    if numbers.ndim == 3 and numbers.shape[-1] == 1:
        numbers = numbers[..., 0]
    if numbers.ndim not in {2, 3} or (numbers.ndim == 3 and numbers.shape[-1] not in {3, 4}) or 0 in numbers.shape:
        raise UserErrorException(
            f"log_image({name!r}): an image has the shape (height, width) or (height, width, 1, 3 or 4), "
            f"not {tuple(numbers.shape)}"
        )
    if numbers.dtype.kind == "f":
        if not 0 <= float(np.nanmin(numbers)) <= float(np.nanmax(numbers)) <= 1:
            raise UserErrorException(f"log_image({name!r}): an image of floats has values from 0 to 1")
        numbers = np.rint(np.nan_to_num(numbers) * 255)
    elif numbers.dtype.kind == "b":
        numbers = numbers * 255
    elif numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() > 255:
        raise UserErrorException(f"log_image({name!r}): an image of integers has values from 0 to 255")
    return Image.fromarray(numbers.astype("uint8"))
