"""The proof: ONNX Runtime against PyTorch, output by output, on several batch sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from mlflow_pytorch_estimator.errors import OnnxExportError, OnnxParityError
from mlflow_pytorch_estimator.models.export import reason

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlflow_pytorch_estimator.models.adapter import Adapter
    from mlflow_pytorch_estimator.models.inputs import Inputs

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Reference:
    """What PyTorch computes for a batch of ``size`` rows."""

    size: int
    inputs: dict[str, Array]
    names: tuple[str, ...]
    outputs: tuple[Array, ...]


@dataclass(frozen=True)
class Tolerance:
    """ONNX Runtime's ``a`` and PyTorch's ``b`` agree where |a - b| <= atol + rtol * |b|."""

    rtol: float
    atol: float


@dataclass(frozen=True)
class Parity:
    """The largest differences found; the relative one where PyTorch's value is not 0."""

    max_abs_diff: float
    max_rel_diff: float


def references(adapter: Adapter, inputs: Inputs, sizes: Sequence[int]) -> list[Reference]:
    """Run PyTorch on a batch of each size, without a trace in the caller's random state."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        return [_reference(adapter, inputs, size) for size in sizes]


def _reference(adapter: Adapter, inputs: Inputs, size: int) -> Reference:
    batch = inputs.batch(size)
    try:
        outputs = [(name, _array(name, tensor)) for name, tensor in adapter.named_outputs(batch)]
    except OnnxExportError:
        raise
    except Exception as error:  # the model's own code may raise anything
        raise OnnxExportError(f"the model itself fails on a batch of {size}: {reason(error)}") from error
    arrays = {name: tensor.numpy() for name, tensor in batch.tensors.items()}
    return Reference(size, arrays, tuple(name for name, _ in outputs), tuple(array for _, array in outputs))


def prove(graph: Path, references: Sequence[Reference], names: Sequence[str], tolerance: Tolerance) -> Parity:
    """Compare ONNX Runtime with every reference; raises ``OnnxParityError`` at the first disagreement."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, no need to print it as well
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    found = [(0.0, 0.0)]
    for expected in references:
        try:
            computed = session.run(list(names), expected.inputs)
        except Exception as error:  # ONNX Runtime's exceptions have no public base class
            raise OnnxParityError(
                f"ONNX Runtime cannot run a batch of {expected.size}: {reason(error)}; nothing was logged"
            ) from error
        for name, a, b in zip(names, computed, expected.outputs, strict=True):
            found.append(_differences(a, b, f"output {name!r} for a batch of {expected.size}", tolerance))
    return Parity(max(pair[0] for pair in found), max(pair[1] for pair in found))


def _array(name: str, tensor: torch.Tensor) -> Array:
    if tensor.dtype is torch.bfloat16:
        raise OnnxExportError(f"output {name!r} is bfloat16, which no MLflow signature can hold: log model.float()")
    return tensor.detach().cpu().numpy().copy()


def _differences(computed: Array, expected: Array, where: str, tolerance: Tolerance) -> tuple[float, float]:
    if (computed.dtype, computed.shape) != (expected.dtype, expected.shape):
        raise OnnxParityError(
            f"{where} is {computed.dtype}{list(computed.shape)} in ONNX Runtime but "
            f"{expected.dtype}{list(expected.shape)} in PyTorch; nothing was logged"
        )
    a, b = computed.astype(np.float64), expected.astype(np.float64)
    if b.size and not np.isfinite(b).any():
        raise OnnxParityError(f"{where} holds no finite number in PyTorch itself; nothing was logged")
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        diff = np.where(same, 0.0, np.abs(a - b))
        close = same | (np.isfinite(diff) & (diff <= tolerance.atol + tolerance.rtol * np.abs(b)))
    relative = diff[b != 0] / np.abs(b[b != 0]) if np.isfinite(diff).all() else diff
    relative = relative[~np.isnan(relative)]  # 0 / nan, where both are nan
    largest = float(diff.max(initial=0.0)), float(relative.max(initial=0.0))
    if not close.all():
        raise OnnxParityError(
            f"{where} differs between ONNX Runtime and PyTorch in {np.count_nonzero(~close)} of {close.size} "
            f"values: largest difference {largest[0]:.3g} (relative {largest[1]:.3g}), allowed "
            f"rtol={tolerance.rtol:g}, atol={tolerance.atol:g}; nothing was logged. Make forward() "
            "deterministic and the same under export, or raise rtol and atol"
        )
    return largest
