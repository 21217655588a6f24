"""The ONNX graph: exported with a free batch, checked, its weights in a file beside it."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import onnx
import torch

from mlflow_pytorch_estimator.errors import OnnxExportError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mlflow_pytorch_estimator.models.adapter import Adapter
    from mlflow_pytorch_estimator.models.inputs import Inputs


def export_graph(adapter: Adapter, inputs: Inputs, output_names: Sequence[str], path: Path) -> None:
    """Write the graph to ``path`` (and its weights beside it); it takes any number of rows."""
    example = tuple(inputs.batch_for_export().tensors.values())
    batch = torch.export.Dim("batch", min=1)
    path.parent.mkdir()
    try:
        with _quiet_exporter(), torch.random.fork_rng(devices=[]):
            torch.onnx.export(
                adapter,
                example,
                str(path),
                input_names=list(inputs.tensors),
                output_names=list(output_names),
                dynamic_shapes=tuple({0: batch} for _ in example),
                dynamo=True,
                external_data=True,
                verbose=False,
            )
        # by path: a graph above 2 GB cannot be checked in memory
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # the exporter runs the model's own code, which may raise anything
        kind = type(adapter.model).__name__
        raise OnnxExportError(f"{kind} cannot be exported to ONNX with a free batch: {reason(error)}") from error
    _check_graph(path, tuple(inputs.tensors), tuple(output_names))


def reason(error: BaseException) -> str:
    """One line with what the innermost exception says, which is where the exporter's reports begin."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words if len(words) <= 400 else words[:400] + '...'}"


def _check_graph(path: Path, input_names: tuple[str, ...], output_names: tuple[str, ...]) -> None:
    graph = onnx.load(str(path), load_external_data=False).graph
    names = tuple(value.name for value in graph.input), tuple(value.name for value in graph.output)
    if names != (input_names, output_names):
        raise OnnxExportError(
            f"the exporter made inputs {list(names[0])} and outputs {list(names[1])}, "
            f"wanted {list(input_names)} and {list(output_names)}"
        )
    for value in graph.input:
        size = value.type.tensor_type.shape.dim[0].dim_value
        if size:
            raise OnnxExportError(
                f"the batch of input {value.name!r} was fixed at {size} by the model's code: "
                "a loop over its rows, or a shape turned into a Python number"
            )


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    # Neither the exporter's deprecations nor its log of every attempt is for the user to act on: the
    # reason of a failure is in our error, and a wrong graph does not pass the proof.
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "torch"]
    handlers = {handler for name in names for handler in logging.getLogger(name).handlers}
    noisy = ("torch", "onnx")
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        for module in noisy:
            warnings.filterwarnings("ignore", category=UserWarning, module=rf"{module}\w*(\.|$)")
        for handler in handlers:
            handler.addFilter(_nothing)
        try:
            yield
        finally:
            for handler in handlers:
                handler.removeFilter(_nothing)


def _nothing(_record: logging.LogRecord) -> bool:
    return False
