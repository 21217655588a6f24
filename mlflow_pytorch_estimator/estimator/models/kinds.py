"""What lies at a path, and so what becomes of it: an MLflow model, an ONNX graph to serve, or files as they are."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlflow_pytorch_estimator.estimator.artifacts.names import some
from mlflow_pytorch_estimator.estimator.models import onnx_flavor, onnx_graph
from mlflow_pytorch_estimator.estimator.models.onnx_graph import NotServableError
from mlflow_pytorch_estimator.estimator.models.source import Source

MLFLOW, ONNX, FILE, FOLDER = "mlflow", "onnx", "file", "folder"
_TORCH = (".pt", ".pth", ".pt2", ".ckpt", ".bin")
_WAY_OUT = "export it with mlflow_pytorch_estimator.log_model, or put one .onnx file beside it"


@dataclass(frozen=True)
class Plan:
    """How to register: ``folder`` holds what must be uploaded (None: the files are used where they are)."""

    kind: str
    problem: str | None
    folder: Path | None = None
    finish: Callable[[str | None, str], None] | None = None  # called with the ids of run and logged model


def decide(source: Source, framework: str | None, scratch: Path) -> Plan:
    """The plan for a source; fetches what has to be looked at or uploaded to ``scratch``. Nothing is unpickled."""
    if source.single is None and "MLmodel" in source.names:
        return _in_place_or_copied(source, MLFLOW, _mlflow_problem(source, scratch), scratch)
    graphs = [name for name in source.chosen if name.lower().endswith(".onnx")]
    models = [name for name in source.chosen if name.endswith("/MLmodel")]
    if (framework or "").lower() == "custom":
        problem: str | None = "registered as it is, because model_framework is 'Custom'"
    elif models:
        problem = f"an MLflow model lies deeper, at {_below(source, models[0])!r}: register that path"
    elif len(graphs) > 1:
        problem = f"{source.path!r} holds several ONNX graphs, {some(graphs, 5)}: register one by its path"
    elif graphs:
        try:
            return _onnx(source, graphs[0], scratch / "onnx")
        except NotServableError as error:
            problem = f"{error}; registered as it is"
    else:
        problem = None
    return _as_it_is(source, problem, scratch / "files")


def _below(source: Source, name: str) -> str:
    inner = name.removesuffix("/MLmodel")
    return f"{source.path}/{inner}" if source.path else inner


def _mlflow_problem(source: Source, scratch: Path) -> str | None:
    source.fetch(["MLmodel"], scratch / "looked_at")
    try:
        content = yaml.safe_load((scratch / "looked_at" / "MLmodel").read_text(encoding="utf-8"))
        flavors = content["flavors"]
        known = "python_function" in flavors
    except (ValueError, KeyError, TypeError, yaml.YAMLError, RecursionError) as error:
        return f"its MLmodel file cannot be read ({type(error).__name__}): save the model again"
    return (
        None if known else f"its MLmodel file has no python_function flavor, only {some(sorted(map(str, flavors)), 5)}"
    )


def _onnx(source: Source, graph: str, folder: Path) -> Plan:
    onnx_graph.require_onnx(graph)
    source.fetch([graph], folder)
    data = onnx_graph.data_files(folder / graph, graph)
    missing = [name for name in data if name not in source.names]
    if missing:
        raise NotServableError(f"{graph!r} needs {some(missing, 5)}, which is not there")
    source.fetch(data, folder)
    onnx_graph.check(folder / graph, graph)
    rest = [name for name in source.chosen if name not in {graph, *data}]
    source.fetch(rest, folder)
    for name in rest:
        place = folder / onnx_flavor.own_place(name, source.names)
        place.parent.mkdir(parents=True, exist_ok=True)
        (folder / name).replace(place)

    def finish(run_id: str | None, model_id: str) -> None:
        onnx_flavor.write_flavor(folder, graph, run_id, model_id)

    return Plan(ONNX, None, folder, finish)


def _as_it_is(source: Source, problem: str | None, scratch: Path) -> Plan:
    if source.single is None:
        return _in_place_or_copied(source, FOLDER, problem or _folder_problem(source), scratch)
    source.fetch([source.single], scratch)
    return Plan(FILE, problem or _file_problem(source.path, scratch / source.single), scratch)


def _in_place_or_copied(source: Source, kind: str, problem: str | None, scratch: Path) -> Plan:
    if source.place is not None:
        return Plan(kind, problem)
    source.fetch(source.names, scratch / "all")
    return Plan(kind, problem, scratch / "all")


def _folder_problem(source: Source) -> str:
    weights = [name for name in source.names if name.lower().endswith(_TORCH)]
    if weights:
        return f"{source.path!r} holds {some(weights, 3)}, which MLflow cannot serve: {_WAY_OUT}"
    return f"{source.path!r} holds neither an MLmodel nor an .onnx file, so MLflow cannot serve it: {_WAY_OUT}"


def _file_problem(shown: str, path: Path) -> str:
    what = _torch_kind(path) if path.name.lower().endswith(_TORCH) else "no model that MLflow knows"
    return f"{shown!r} is {what}, which MLflow cannot serve: {_WAY_OUT}"


def _torch_kind(path: Path) -> str:
    """Told by the names in the archive; its pickles are never opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            names: list[Any] = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):  # what zipfile raises for what is no zip
        return "a pickle of an old torch.save, or no PyTorch file"
    if any("exported_program" in name or name.endswith("/archive_format") for name in names):
        return "an exported program (torch.export.save)"
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        return "a TorchScript program"
    return "a state dict or a pickled model (torch.save)"
