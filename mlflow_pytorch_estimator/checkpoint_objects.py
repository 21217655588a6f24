"""Objects with a state: unwrapped, asked for it, compared with what is to be loaded, and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mlflow_pytorch_estimator.checkpoint_state import plain
from mlflow_pytorch_estimator.errors import CheckpointError, one_line

_ELSEWHERE = "use what was saved, or start in another folder"
_SHOWN_KEYS = 3
# They load the state of another class without a word and fail, or train otherwise, later.
_BOUND_TO_CLASS = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, torch.Generator)


def has_state(item: Any) -> bool:
    """Whether this is an object of which the state is saved, not a plain value and not a class."""
    pair = callable(getattr(item, "state_dict", None)) and callable(getattr(item, "load_state_dict", None))
    return (pair or isinstance(item, torch.Generator)) and not isinstance(item, type)


def positional(item: Any, place: int) -> Any:
    """Take the argument at this place, counted from 1; refuse what has no state."""
    if not has_state(item):
        kind = (
            f"the class {item.__name__}, not an object of it"
            if isinstance(item, type)
            else f"of type {class_name(item)}"
        )
        raise CheckpointError(
            f"argument {place} of Checkpoint is {kind}: only what has state_dict and load_state_dict goes there;"
            " give plain values by name, such as epoch=0"
        )
    return unwrapped(item, f"argument {place}")


def unwrapped(item: Any, label: str) -> Any:
    """The model inside of what wraps it for many ranks or a compiler: its keys are those of the plain model."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(item, wrappers) or (isinstance(item, nn.Module) and hasattr(item, "_orig_mod")):
        item = item.module if isinstance(item, wrappers) else item._orig_mod
    parts = item.modules() if isinstance(item, nn.Module) else ()
    if any(type(part).__name__ == "FullyShardedDataParallel" for part in parts):
        raise CheckpointError(f"{label} is sharded (FSDP), no rank has it whole: use torch.distributed.checkpoint")
    return item


def class_name(item: Any) -> str:
    """The name of its class, for messages and for the file."""
    return type(item).__name__


def state_of(item: Any, label: str) -> Any:
    """Its state, of plain values and tensors, which are shared with it."""
    if isinstance(item, torch.Generator):
        return item.get_state()
    try:
        state = item.state_dict()
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the state of {label} cannot be had: {one_line(error)}") from error
    return plain(state, label)


def check_fit(item: Any, label: str, state: Any, saved_class: str) -> None:
    """Before anything is loaded: half a restored loop is worse than none."""
    if isinstance(item, nn.Module):
        fault = _model_fault(item.state_dict(), state)
        if fault:
            raise CheckpointError(f"the checkpoint was saved by another model than {label}: {fault}; {_ELSEWHERE}")
    elif isinstance(item, _BOUND_TO_CLASS) and class_name(item) != saved_class:
        raise CheckpointError(f"the checkpoint holds a {saved_class} where {label} is now; {_ELSEWHERE}")


def _model_fault(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    lists = {
        "it lacks": [key for key in ours if key not in theirs],
        "it has besides": [key for key in theirs if key not in ours],
        "other shapes have": [
            f"{key} {_shape(theirs[key])} instead of {_shape(ours[key])}"
            for key in ours
            if key in theirs and _shape(ours[key]) != _shape(theirs[key])
        ],
    }
    return "; ".join(f"{what} {_some(keys)}" for what, keys in lists.items() if keys)


def _shape(value: Any) -> list[int] | None:
    return list(value.shape) if isinstance(value, torch.Tensor) else None


def _some(keys: list[str]) -> str:
    more = len(keys) - _SHOWN_KEYS
    return ", ".join(keys[:_SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")


def load_state(item: Any, label: str, state: Any) -> None:
    """Give it a state that ``state_of`` has returned."""
    try:
        if isinstance(item, torch.Generator):
            item.set_state(state)
        else:
            item.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(f"the state of {label} does not fit: {one_line(error)}; {_ELSEWHERE}") from error
