"""The example input, read into named CPU tensors, and batches of any size made from it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mlflow_pytorch_estimator.errors import OnnxExportError


@dataclass(frozen=True)
class Inputs:
    """Named input tensors, in order; ``keywords`` are the argument names where the model takes keywords."""

    tensors: dict[str, torch.Tensor]
    keywords: tuple[str, ...] | None

    def batch(self, size: int) -> Inputs:
        """``size`` rows: the example's own, then variations of them that stay in the range seen."""
        return Inputs({name: _rows(tensor, size) for name, tensor in self.tensors.items()}, self.keywords)

    def batch_for_export(self) -> Inputs:
        """The smallest batch that tracing cannot take for a constant or for another dimension."""
        taken = {size for tensor in self.tensors.values() for size in tensor.shape[1:]}
        # torch.export turns sizes 0 and 1 into constants, whatever dynamic_shapes says
        return self.batch(next(size for size in range(2, len(taken) + 3) if size not in taken))


def read_inputs(model: torch.nn.Module, example_input: Any, names: Sequence[str] | None) -> Inputs:
    """Name the tensors of ``example_input`` (a tensor, a tuple of them, or a dict by argument name)."""
    keywords: tuple[str, ...] | None = None
    if isinstance(example_input, torch.Tensor):
        values: list[Any] = [example_input]
    elif isinstance(example_input, Mapping):
        keywords, values = tuple(map(str, example_input)), list(example_input.values())
    elif isinstance(example_input, (tuple, list)):
        values = list(example_input)
    else:
        values = [example_input]
    given = tuple(names) if names is not None else keywords or _argument_names(model, len(values))
    if len(given) != len(values) or len(set(given)) != len(given):
        raise OnnxExportError(f"input_names must be {len(values)} different names, got {list(given)}")
    tensors = dict(zip(given, values, strict=True))
    _check(tensors)
    return Inputs({name: tensor.detach().cpu() for name, tensor in tensors.items()}, keywords)


def _argument_names(model: torch.nn.Module, count: int) -> tuple[str, ...]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind in kinds]
    return tuple(names[:count]) if len(names) >= count else tuple(f"input_{i}" for i in range(count))


def _check(tensors: Mapping[str, Any]) -> None:
    if not tensors:
        raise OnnxExportError("example_input is empty: give a tensor, a tuple of tensors or a dict of tensors")
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise OnnxExportError(f"example_input {name!r} must be a torch.Tensor, got {type(tensor).__name__}")
        if tensor.ndim == 0 or tensor.numel() == 0:
            raise OnnxExportError(
                f"example_input {name!r} has shape {tuple(tensor.shape)}: the first dimension of every input "
                "is the batch, and at least one row is needed"
            )
        if tensor.dtype is torch.bfloat16:
            raise OnnxExportError(
                f"example_input {name!r} is bfloat16, which no MLflow signature can hold: log model.float()"
            )
    sizes = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(sizes.values())) > 1:
        raise OnnxExportError(f"the inputs disagree in their batch (first dimension): {sizes}")


def _rows(tensor: torch.Tensor, size: int) -> torch.Tensor:
    seen = len(tensor)
    rows = tensor[torch.arange(size) % seen]
    if size <= seen:
        return rows
    if tensor.is_floating_point():
        low, high = tensor.min(), tensor.max()
        noise = torch.randn(rows[seen:].shape, generator=torch.Generator().manual_seed(0)).to(tensor.dtype)
        varied = rows[seen:] + 0.1 * noise * (high - low if high > low else 1)
        rows[seen:] = varied.clamp(low, high) if high > low else varied
    elif tensor.ndim > 1:
        # the values of a row in another order: still valid token ids or masks
        for row in range(seen, size):
            rows[row] = rows[row].roll(row // seen, dims=-1)
    return rows
