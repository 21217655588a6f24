"""What goes into a checkpoint: plain values, checked when they are saved, and the state of the random generators.

Nothing but tensors and plain values is written, so that reading a checkpoint never runs code from it
(``torch.load(weights_only=True)``), and a value that could not be read back is refused before it is too late.
"""

from __future__ import annotations

import random
import sys
from collections import Counter, OrderedDict, defaultdict
from importlib import import_module
from typing import Any

import torch

from mlflow_pytorch_estimator.errors import CheckpointError

_AS_THEY_ARE = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
_KINDS = "a tensor, a number, a string, a truth value, None, or a list, tuple, set or dict of these"


def plain(value: Any, name: str) -> Any:
    """Return the value in a form that can be read back safely, NumPy's numbers as Python's.

    Tensors are shared, not copied. Raises ``CheckpointError`` with the place of what does not go, such as
    ``scheduler['lr_lambdas'][0]``.
    """
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if isinstance(value, torch.Tensor):
        return _tensor(value, name)
    if kind in {list, tuple, set}:
        return kind(plain(item, f"{name}[{place}]") for place, item in enumerate(value))
    if kind in {dict, OrderedDict, Counter, defaultdict}:
        return _mapping(value, name)
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        return plain(value.item(), name)
    for base in (int, float, str):
        if isinstance(value, base):
            return base(value)
    raise CheckpointError(f"{name} is of type {_type_name(value)}, which a checkpoint cannot hold: give it {_KINDS}")


def _tensor(value: torch.Tensor, name: str) -> torch.Tensor:
    if type(value) not in {torch.Tensor, torch.nn.Parameter}:
        raise CheckpointError(
            f"{name} is a {_type_name(value)}, not a whole tensor: use torch.distributed.checkpoint for sharded models"
        )
    return value.detach()


def _mapping(value: Any, name: str) -> Any:
    items = {plain(key, f"a key of {name}"): plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, Counter):
        return Counter(items)
    if not isinstance(value, OrderedDict):
        return items
    ordered = OrderedDict(items)
    if hasattr(value, "_metadata"):  # the versions of a model's modules, for load_state_dict
        ordered._metadata = plain(value._metadata, name)  # type: ignore[attr-defined]
    return ordered


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def random_state() -> dict[str, Any]:
    """The state of Python's, NumPy's (if it is loaded) and torch's global generators; of all GPUs if CUDA is in use."""
    version, words, gauss = random.getstate()
    numpy = sys.modules.get("numpy")
    return {
        "python": (version, tuple(words), gauss),
        "numpy": None if numpy is None else _listed(numpy.random.get_state(legacy=False)),
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Continue the generators where ``random_state`` saw them; GPUs that are not here are left out."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    for device, generator in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(generator, device)
    if state["numpy"] is not None:
        numpy = import_module("numpy")
        inner = state["numpy"]["state"]
        if "key" in inner:
            inner["key"] = numpy.asarray(inner["key"], dtype=numpy.uint32)
        numpy.random.set_state(state["numpy"])


def _listed(state: Any) -> Any:
    """The same without NumPy's arrays and numbers, which a safe reader does not take."""
    if isinstance(state, dict):
        return {key: _listed(value) for key, value in state.items()}
    return state.tolist() if hasattr(state, "tolist") else state
