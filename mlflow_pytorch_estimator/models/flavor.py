"""The ``flavor`` module given to ``Model.log``: one MLflow model with the ONNX and the PyTorch flavor."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle  # type: ignore[import-untyped]
import mlflow
import mlflow.onnx
import numpy as np
import onnx
import onnxruntime
import torch
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_pytorch_estimator.models.parity import Reference


@dataclass(frozen=True)
class Prepared:
    """What was proven: the graph, with its weight files beside it, and the saved ``pytorch`` flavor."""

    graph: Path
    pytorch: Path


def save_model(path: str, mlflow_model: Any, prepared: Prepared, **settings: Any) -> None:
    """Write both flavors to ``path``; ``python_function`` is ONNX Runtime's, so serving needs no torch."""
    # The bytes that were proven are the bytes that are logged: only the graph passes through memory, the
    # weights are moved. That also keeps graphs above 2 GB away from protobuf's limit.
    graph = onnx.load(str(prepared.graph), load_external_data=False)
    mlflow.onnx.save_model(
        graph,
        path,
        mlflow_model=mlflow_model,
        save_as_external_data=False,
        onnx_execution_providers=["CPUExecutionProvider"],  # what was proven
        **settings,
    )
    target = Path(path)
    for file in prepared.graph.parent.iterdir():
        if file != prepared.graph:
            shutil.move(file, target / file.name)
    entry = Model.load(str(prepared.pytorch)).flavors["pytorch"]
    shutil.move(prepared.pytorch / entry["model_data"], target / entry["model_data"])
    mlflow_model.add_flavor("pytorch", **{**entry, "code": mlflow_model.flavors["onnx"].get("code")})
    mlflow_model.model_size_bytes = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    mlflow_model.save(str(target / "MLmodel"))


def signature_of(references: Sequence[Reference], output_names: Sequence[str]) -> Any:
    """Tensor specs in which every dimension that follows the batch is -1."""
    first = references[0]
    # A single input stays unnamed: pyfunc then takes a plain array, and serving a plain list as "inputs".
    named = len(first.inputs) > 1
    inputs = [
        TensorSpec(array.dtype, (-1, *array.shape[1:]), name if named else None) for name, array in first.inputs.items()
    ]
    outputs = []
    for index, name in enumerate(output_names):
        shapes = zip(*(reference.outputs[index].shape for reference in references), strict=True)
        free = tuple(sizes[0] if len(set(sizes)) == 1 else -1 for sizes in shapes)
        outputs.append(TensorSpec(first.outputs[index].dtype, free, name))
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def example_of(references: Sequence[Reference]) -> Any:
    """One row of the example input, as ``python_function`` takes it: an array, or a dict of several."""
    rows = {name: array[:1] for name, array in references[0].inputs.items()}
    return rows if len(rows) > 1 else next(iter(rows.values()))


def default_requirements() -> list[str]:
    """What serving and both loaders need, pinned to what is running."""
    modules = (cloudpickle, mlflow, np, onnx, onnxruntime, torch)
    # "2.9.1+cpu" names a build that no registry has
    return [f"{module.__name__}=={module.__version__.partition('+')[0]}" for module in modules]
