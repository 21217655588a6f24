"""Files beside an ONNX graph that make a folder an MLflow model; the graph and its data files stay as they are."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from importlib import metadata
from pathlib import Path

from mlflow_pytorch_estimator.estimator.models.onnx_graph import signature

_WRITTEN = ("conda.yaml", "python_env.yaml", "requirements.txt")
RESERVED = (*_WRITTEN, "registered_model_meta")


def write_flavor(folder: Path, graph: str, run_id: str | None, model_id: str) -> None:
    """Add ``MLmodel`` and the environment files to a folder whose graph is ``graph``."""
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's advice to itself, while it is imported
        import mlflow.onnx
        import mlflow.pyfunc
        from mlflow.models import Model

    model = Model(run_id=run_id, model_id=model_id)
    with tempfile.TemporaryDirectory() as scratch:
        # An empty graph in the place of the real one, which is neither parsed nor written again.
        mlflow.onnx.save_model(
            onnx.ModelProto(),
            f"{scratch}/model",
            mlflow_model=model,
            signature=signature(folder / graph),
            pip_requirements=_requirements(),
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
        )
        for name in _WRITTEN:
            shutil.move(Path(scratch, "model", name), folder / name)
    for flavor in ("onnx", "python_function"):
        model.flavors[flavor]["data"] = graph
    model.model_size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    model.save(str(folder / "MLmodel"))
    if "/" in graph:
        # mlflow.pyfunc reads the settings beside the graph once more.
        shutil.copy2(folder / "MLmodel", (folder / graph).parent / "MLmodel")


def _requirements() -> list[str]:
    pinned = [f"{name}=={metadata.version(name).partition('+')[0]}" for name in ("mlflow", "numpy", "onnx")]
    try:
        return [*pinned, f"onnxruntime=={metadata.version('onnxruntime').partition('+')[0]}"]
    except metadata.PackageNotFoundError:
        return [*pinned, "onnxruntime"]


def own_place(name: str, taken: tuple[str, ...]) -> str:
    """Where a file of the user goes whose name MLflow needs for itself."""
    if name not in RESERVED:
        return name
    folder = "original"
    while any(other.startswith(f"{folder}/") or other == folder for other in taken):
        folder += "_"
    return f"{folder}/{name}"
