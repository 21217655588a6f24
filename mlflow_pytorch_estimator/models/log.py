"""``log_model``: prove, and only then log."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_pytorch_estimator.errors import OnnxError, OnnxExportError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from mlflow_pytorch_estimator.models.parity import Parity


@dataclass(frozen=True)
class LoggedOnnxModel:
    """A logged model, opened by ``mlflow.onnx``, ``mlflow.pytorch`` and ``mlflow.pyfunc`` alike."""

    model_uri: str
    model_id: str
    run_id: str
    registered_model_name: str | None
    registered_model_version: int | None
    max_abs_diff: float
    max_rel_diff: float
    batch_sizes: tuple[int, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]


def log_model(  # noqa: PLR0913  # keyword-only, each with the meaning it has in MLflow or torch.onnx
    model: torch.nn.Module,
    example_input: Any,
    *,
    name: str = "model",
    registered_model_name: str | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-5,
    batch_sizes: Sequence[int] = (1, 2, 5),
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    code_paths: Sequence[str] | None = None,
    pip_requirements: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> LoggedOnnxModel:
    """Log one MLflow model that carries ``model`` and its proven ONNX graph, as PyTorch and ONNX flavors.

    ``example_input`` is a tensor, a tuple of tensors or a dict of keyword tensors; the first dimension of
    each is the batch and stays free. ``model`` itself is only read: a copy in eval mode on the CPU is
    exported and saved. ONNX Runtime must agree with it (``|onnx - torch| <= atol + rtol * |torch|``) on
    every one of ``batch_sizes`` before anything is logged. The largest differences become the metrics
    ``onnx_max_abs_diff`` and ``onnx_max_rel_diff`` of the active run; without one, a run is started as
    ``mlflow.log_metric`` does. ``pip_requirements`` replaces the pinned default.

    The project's own classes travel inside the pickle, unless ``code_paths`` carries their files.

    Raises ``OnnxExportError`` (no valid graph) or ``OnnxParityError`` (the graph computes something else).
    """
    sizes = _checked_sizes(batch_sizes)
    _require_extra()
    from mlflow_pytorch_estimator.models import flavor, parity, proving

    demands = proving.Demands(sizes, parity.Tolerance(rtol, atol), input_names, output_names, by_value=not code_paths)
    with tempfile.TemporaryDirectory(prefix="mlflow-onnx-") as folder:
        proven = proving.prove(model, example_input, demands, Path(folder))
        proof = {**asdict(proven.parity), "rtol": rtol, "atol": atol, "batch_sizes": list(sizes)}
        settings = {
            "prepared": proven.prepared,
            "signature": flavor.signature_of(proven.references, proven.output_names),
            "input_example": flavor.example_of(proven.references),
            "pip_requirements": list(proven.requirements if pip_requirements is None else pip_requirements),
            "code_paths": list(code_paths) if code_paths else None,
            "metadata": {**(metadata or {}), "onnx_parity": proof},
            "tags": dict(tags) if tags else None,
        }
        info, run_id = _log(name, registered_model_name, settings, proven.parity)
    return LoggedOnnxModel(
        model_uri=info.model_uri,
        model_id=info.model_id,
        run_id=run_id,
        registered_model_name=registered_model_name,
        registered_model_version=_version(info),
        max_abs_diff=proven.parity.max_abs_diff,
        max_rel_diff=proven.parity.max_rel_diff,
        batch_sizes=sizes,
        input_names=proven.input_names,
        output_names=proven.output_names,
    )


def _log(name: str, registered_name: str | None, settings: dict[str, Any], found: Parity) -> tuple[Any, str]:
    import mlflow
    from mlflow.models import Model

    from mlflow_pytorch_estimator.models import flavor

    # As mlflow.log_metric does: the run stays open, since leaving the run of a job would end the job's run.
    run = mlflow.active_run() or mlflow.start_run()
    info = Model.log(
        artifact_path=None,
        flavor=flavor,
        name=name,
        run_id=run.info.run_id,
        registered_model_name=registered_name,
        **settings,
    )
    values = {"onnx_max_abs_diff": found.max_abs_diff, "onnx_max_rel_diff": found.max_rel_diff}
    mlflow.log_metrics(values, run_id=run.info.run_id, model_id=info.model_id)
    return info, run.info.run_id


def _version(info: Any) -> int | None:
    version = info.registered_model_version
    return None if version is None else int(version)


def _checked_sizes(batch_sizes: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(sorted(set(batch_sizes)))
    if len(sizes) < 2 or sizes[0] < 1:
        raise OnnxExportError(f"batch_sizes must hold two or more different sizes from 1 up, got {batch_sizes}")
    return sizes


def _require_extra() -> None:
    try:
        for package in ("torch", "onnx", "onnxruntime", "onnxscript"):
            import_module(package)
    except ImportError as error:
        raise OnnxError(f"log_model: {error}; pip install 'mlflow-pytorch-estimator[onnx]'") from error
