"""MLflow's ``pytorch`` flavor of a model, written so that a stranger can load it."""

from __future__ import annotations

import inspect
import logging
import sys
import sysconfig
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import cloudpickle  # type: ignore[import-untyped]
import mlflow.pytorch

from mlflow_pytorch_estimator.errors import OnnxExportError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch


def save_pytorch(model: torch.nn.Module, folder: Path, *, by_value: bool) -> None:
    """Write the flavor to ``folder``; ``by_value`` puts the project's own classes into the pickle."""
    format_known = "serialization_format" in inspect.signature(mlflow.pytorch.save_model).parameters
    # Pickle rather than pt2, the default of newer MLflow: every MLflow 3 reads it, and what comes back is the
    # module itself, to train on or to move to a GPU. Who must not unpickle has the ONNX flavor.
    chosen = {"serialization_format": "pickle"} if format_known else {}
    try:
        with _project_code_by_value() if by_value else nullcontext(), _without_pickle_advice():
            mlflow.pytorch.save_model(model, str(folder), pip_requirements=["torch"], **chosen)
    except Exception as error:  # pickling runs foreign __reduce__ methods
        raise OnnxExportError(
            f"{type(model).__name__} cannot be pickled: {error}. Take out of the model what cannot travel, "
            "or give the files of its classes as code_paths"
        ) from error


def packages_of(model: torch.nn.Module) -> list[str]:
    """Pinned requirements for the installed packages, besides torch, whose modules ``model`` is made of."""
    tops = {type(module).__module__.partition(".")[0] for module in model.modules()} - {"torch", "__main__"}
    installed = {top for top in tops if top in sys.modules and not _is_project_code(sys.modules[top])}
    if not installed:
        return []
    owners = metadata.packages_distributions()
    names = {name for top in installed for name in owners.get(top, ())}
    return sorted(f"{name}=={metadata.version(name).partition('+')[0]}" for name in names)


@contextmanager
def _project_code_by_value() -> Iterator[None]:
    known = cloudpickle.list_registry_pickle_by_value()
    loaded = [module for module in sys.modules.values() if isinstance(module, ModuleType)]
    chosen = [m for m in loaded if m.__name__ in sys.modules and m.__name__ not in known and _is_project_code(m)]
    for module in chosen:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for name in {module.__name__ for module in chosen}:
            cloudpickle.unregister_pickle_by_value(sys.modules[name])


def _is_project_code(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return False
    path = Path(file)
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return not installed and not path.is_relative_to(sysconfig.get_path("stdlib"))


@contextmanager
def _without_pickle_advice() -> Iterator[None]:
    # MLflow advises to set serialization_format, which is not for our caller to set.
    logger = logging.getLogger("mlflow.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
