"""All of ``log_model`` before anything is logged: copy, save, export, prove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow_pytorch_estimator.models import adapter, export, flavor, inputs, parity, pickled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch


@dataclass(frozen=True)
class Proven:
    """Both flavors as files, and what is known of them."""

    prepared: flavor.Prepared
    references: list[parity.Reference]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    parity: parity.Parity
    requirements: list[str]
    """What the model needs where it is opened."""


@dataclass(frozen=True)
class Demands:
    """What ``log_model`` was asked for, as far as the proof is concerned."""

    sizes: tuple[int, ...]
    tolerance: parity.Tolerance
    input_names: Sequence[str] | None
    output_names: Sequence[str] | None
    by_value: bool
    """Whether the project's own classes travel inside the pickle."""


def prove(model: torch.nn.Module, example_input: Any, demands: Demands, folder: Path) -> Proven:
    """Write both flavors below ``folder``; raises ``OnnxExportError`` or ``OnnxParityError``."""
    prepared = flavor.Prepared(graph=folder / "onnx" / "model.onnx", pytorch=folder / "pytorch")
    copied = adapter.prepare(model)
    example = inputs.read_inputs(copied, example_input, demands.input_names)
    # Saved and run before it is exported: tracing may leave its own tensors in a model's caches.
    pickled.save_pytorch(copied, prepared.pytorch, by_value=demands.by_value)
    adapted = adapter.Adapter(copied, example)
    references = parity.references(adapted, example, demands.sizes)
    names = adapter.name_outputs(references[0].names, demands.output_names, example)
    export.export_graph(adapted, example, names, prepared.graph)
    found = parity.prove(prepared.graph, references, names, demands.tolerance)
    requirements = flavor.default_requirements() + pickled.packages_of(copied)
    return Proven(prepared, references, tuple(example.tensors), names, found, requirements)
