"""What an ``.onnx`` file says about itself: its data files, its signature, and whether it can run."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator.estimator.artifacts.names import clean
from mlflow_pytorch_estimator.estimator.artifacts.tree import one_line
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException

_ENVIRONMENT_FILES = ("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "registered_model_meta")


class NotServableError(Exception):
    """The reason why a file cannot be served; it is registered as it is."""


def require_onnx(name: str) -> None:
    """Raise when the package is missing that reads graphs."""
    try:
        import_module("onnx")
    except ImportError as error:
        raise UserErrorException(
            f"{name!r} cannot be registered for serving without the package onnx ({error}): pip install onnx; "
            "or register the files as they are with model_framework='Custom'"
        ) from error


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Whatever a library says against a file becomes the reason why it cannot be served."""
    try:
        yield
    except (NotServableError, UserErrorException):
        raise
    except Exception as error:  # parsers and runtimes raise anything on a broken file
        raise NotServableError(f"{what}: {one_line(error)}") from error


def data_files(path: Path, name: str) -> list[str]:
    """The data files of the graph at ``path``, named relative to the folder that ``name`` is relative to."""
    import onnx

    with refusing(f"{name!r} is no valid ONNX graph"):
        graph = onnx.load(str(path), load_external_data=False)
        locations = {
            entry.value
            for tensor in _tensors(graph)
            if tensor.data_location == onnx.TensorProto.EXTERNAL
            for entry in tensor.external_data
            if entry.key == "location"
        }
    return sorted(_data_file(name, location) for location in locations)


def _data_file(graph: str, location: str) -> str:
    try:
        found = posixpath.join(posixpath.dirname(graph), clean(location, "data file"))
    except UserErrorException as error:
        raise NotServableError(f"{graph!r} names a data file outside of its folder: {error}") from error
    if found in _ENVIRONMENT_FILES:
        raise NotServableError(f"{graph!r} names the data file {location!r}, a name that MLflow needs for itself")
    return found


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor anywhere in a message: initializers, attributes, subgraphs, functions, training information."""
    waiting = [message]
    while waiting:
        current = waiting.pop()
        if current.DESCRIPTOR.name == "TensorProto":
            yield current
            continue
        for field, value in current.ListFields():
            if field.message_type is not None:
                waiting += list(value) if _repeated(field) else [value]


def _repeated(field: Any) -> bool:
    # ``label`` went away in protobuf 7, ``is_repeated`` came in 6.
    known = getattr(field, "is_repeated", None)
    return bool(known) if known is not None else field.label == field.LABEL_REPEATED


def check(path: Path, name: str) -> None:
    """Raise NotServableError unless the graph is valid, and ONNX Runtime, if it is here, takes it."""
    import onnx

    with refusing(f"{name!r} is no valid ONNX graph"):
        onnx.checker.check_model(str(path))
    try:
        import onnxruntime
    except ImportError:
        return
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    with refusing(f"ONNX Runtime does not take {name!r}"):
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def signature(path: Path) -> Any:
    """The model signature of a graph, with -1 for free dimensions; None where MLflow has no words for its inputs."""
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    graph = onnx.load(str(path), load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in constants]
    # A single input stays unnamed: pyfunc then takes a plain array, and serving a plain list as "inputs".
    inputs = _specs(given, lambda value: value.name if len(given) > 1 else None)
    outputs = _specs(list(graph.output), lambda value: value.name)
    return ModelSignature(Schema(inputs), Schema(outputs) if outputs else None) if inputs else None


def _specs(values: list[Any], name: Callable[[Any], str | None]) -> list[Any] | None:
    import numpy as np
    from mlflow.types import TensorSpec
    from onnx.helper import tensor_dtype_to_np_dtype

    specs = []
    for value in values:
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.HasField("shape") or not tensor.shape.dim:
            return None
        dtype = np.dtype(tensor_dtype_to_np_dtype(tensor.elem_type))
        if dtype.kind not in "biufc":
            return None
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
        specs.append(TensorSpec(dtype, shape, name(value)))
    return specs
