"""What a training script may log, turned into plain Python values."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Any, SupportsFloat

from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException

Cell = float | int | bool | str | None


def name_of(name: object) -> str:
    """A name that is text."""
    if not isinstance(name, str):
        raise UserErrorException(f"the name of a metric is text, not {name!r} ({_type(name)})")
    return name


def scalar(name: str, value: object) -> float | str:
    """A number as MLflow stores it, or a text; NumPy scalars and tensors of one element count as their value."""
    plain = _unwrapped(value)
    if isinstance(plain, str):
        return str(plain)
    if isinstance(plain, (list, tuple, set, frozenset, Mapping)) or _size(plain) != 1:
        raise UserErrorException(
            f"log({name!r}, ...) takes one number, not {_type(value)}: use log_list for a list, log_table for a dict"
        )
    if not isinstance(plain, SupportsFloat):
        raise UserErrorException(
            f"log({name!r}, {_shown(value)}): {_type(value)} is not a number; log a number or text"
        )
    try:
        return float(plain)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserErrorException(f"log({name!r}, {_shown(value)}): no number that MLflow can store ({error})") from None


def step_of(name: str, step: object) -> int | None:
    """A step as an integer; ``3.0`` is one, ``3.5`` is not."""
    if step is None:
        return None
    plain = _unwrapped(step)
    if isinstance(plain, numbers.Real) and not isinstance(plain, bool):
        number = float(plain)
        if number.is_integer() and abs(number) < 2.0**63:
            return plain if isinstance(plain, int) else int(number)
    raise UserErrorException(f"log({name!r}, ..., step={_shown(step)}): a step is a whole number")


def items(name: str, value: object) -> list[Cell]:
    """The elements of a list, a tuple, a one-dimensional array or tensor."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(plain, Iterable) or isinstance(plain, (str, bytes, Mapping, set, frozenset)):
        raise UserErrorException(f"log_list({name!r}, ...) takes a list, not {_type(value)}: use log or log_table")
    return [cell(name, element) for element in plain]


def columns(name: str, value: object) -> dict[str, list[Cell]]:
    """Columns of equal length; a single value is a column of one row."""
    if not isinstance(value, Mapping) or not value:
        raise UserErrorException(f"{name!r}: a table is a dict of columns, and not empty; this is {_shown(value)}")
    result = {str(column): _column(name, content) for column, content in value.items()}
    lengths = {column: len(content) for column, content in result.items()}
    if len(set(lengths.values())) > 1:
        raise UserErrorException(f"{name!r}: the columns of a table have one length, not {lengths}")
    return result


def cell(name: str, value: object) -> Cell:
    """One field of a table."""
    plain = _unwrapped(value)
    if plain is None or isinstance(plain, (bool, int, str)):
        return plain
    if isinstance(plain, SupportsFloat) and _size(plain) == 1:
        return float(plain)
    raise UserErrorException(f"{name!r}: {_shown(value)} is {_type(value)}; lists and tables hold numbers and texts")


def _column(name: str, content: object) -> list[Cell]:
    if isinstance(content, (list, tuple)) or (hasattr(content, "tolist") and getattr(content, "ndim", 1) > 0):
        return items(name, content)
    return [cell(name, content)]


def _unwrapped(value: Any) -> Any:
    """What is in a NumPy scalar, a 0-d array or a tensor, without importing either library."""
    item = getattr(value, "item", None)
    if isinstance(value, (int, float, str)) and type(value).__module__ == "builtins":
        return value
    if callable(item) and _size(value) == 1:
        return item()
    return value


def _size(value: Any) -> int:
    size = getattr(value, "numel", None) or getattr(value, "size", 1)  # torch's `size` is a method
    number = size() if callable(size) else size
    return number if isinstance(number, int) else 1


def _type(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
