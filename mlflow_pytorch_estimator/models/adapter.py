"""The model as the exporter wants it: a CPU copy in eval mode, named inputs, a flat tuple of outputs."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mlflow_pytorch_estimator.errors import OnnxExportError

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.models.inputs import Inputs


class Adapter(torch.nn.Module):
    """``model`` behind a forward whose arguments are the input names and whose result is a flat tuple."""

    def __init__(self, model: torch.nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.model = model
        self.forward = self._forward_of(tuple(inputs.tensors), inputs.keywords)
        self.eval()

    def named_outputs(self, inputs: Inputs) -> list[tuple[str, torch.Tensor]]:
        """Run the model; the outputs with the names that their structure gives them."""
        return list(_flatten(self._call(inputs.keywords, tuple(inputs.tensors.values()))))

    def _call(self, keywords: tuple[str, ...] | None, values: tuple[torch.Tensor, ...]) -> Any:
        if keywords is None:
            return self.model(*values)
        return self.model(**dict(zip(keywords, values, strict=True)))

    def _forward_of(self, names: tuple[str, ...], keywords: tuple[str, ...] | None) -> Callable[..., Any]:
        def forward(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(tensor for _, tensor in _flatten(self._call(keywords, values)))

        # torch 2.9 cannot export a plain *args with two inputs; a written-out signature works from 2.6 on.
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        arguments = [inspect.Parameter(f"input_{i}", kind) for i in range(len(names))]
        forward.__signature__ = inspect.Signature(arguments)  # type: ignore[attr-defined]
        return forward


def prepare(model: Any) -> torch.nn.Module:
    """Copy ``model`` to the CPU in eval mode, without its wrappers; the original is only read."""
    if not isinstance(model, torch.nn.Module):
        raise OnnxExportError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    model = _unwrap(model)
    try:
        return copy.deepcopy(model, _cpu_tensors(model)).to("cpu").eval()
    except Exception as error:  # whatever a foreign __deepcopy__ raises
        raise OnnxExportError(f"{type(model).__name__} cannot be copied: {error}") from error


def name_outputs(natural: Sequence[str], wanted: Sequence[str] | None, inputs: Inputs) -> tuple[str, ...]:
    """The names ``wanted``, else the ``natural`` ones, with a suffix where an input has the name already."""
    names = tuple(wanted) if wanted else tuple(f"{n}_output" if n in inputs.tensors else n for n in natural)
    if not names or len(names) != len(natural) or len({*names, *inputs.tensors}) < len(names) + len(inputs.tensors):
        raise OnnxExportError(
            f"the model has the outputs {list(natural)}: it needs at least one, and as many output_names, "
            f"different from each other and from the inputs, not {list(names)}"
        )
    return names


def _unwrap(model: torch.nn.Module) -> torch.nn.Module:
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while True:
        inner = model.module if isinstance(model, wrappers) else getattr(model, "_orig_mod", model)
        if inner is model:
            return model
        model = inner


def _cpu_tensors(model: torch.nn.Module) -> dict[int, Any]:
    """The memo that makes deepcopy use CPU tensors: no second model on the GPU, and no gradients."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        held = (*module.parameters(recurse=False), *module.buffers(recurse=False), *vars(module).values())
        for tensor in held:
            if isinstance(tensor, torch.Tensor) and id(tensor) not in memo:
                plain = tensor.detach().to("cpu", copy=True)
                is_parameter = isinstance(tensor, torch.nn.Parameter)
                memo[id(tensor)] = torch.nn.Parameter(plain, tensor.requires_grad) if is_parameter else plain
    return memo


def _flatten(output: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(output, torch.Tensor):
        yield name or "output", output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _flatten(value, f"{name}_{key}" if name else str(key))
    elif isinstance(output, (tuple, list)):
        for index, value in enumerate(output):
            yield from _flatten(value, f"{name or 'output'}_{index}")
    elif output is not None:
        raise OnnxExportError(
            f"output {name or 'output'!r} is a {type(output).__name__}: forward() must return tensors, "
            "or tuples, lists and dicts of them"
        )
