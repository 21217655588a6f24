"""Train PyTorch on a GPU cluster from MLflow: ``mlflow run . -b gpu-cluster``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_pytorch_estimator._version import __version__

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.models import LoggedOnnxModel, log_model

__all__ = ["LoggedOnnxModel", "__version__", "log_model"]

_HOMES = {
    "LoggedOnnxModel": "mlflow_pytorch_estimator.models",
    "log_model": "mlflow_pytorch_estimator.models",
}


def __getattr__(name: str) -> Any:
    # Loaded on use: importing the package must cost neither MLflow (1.5 s) nor torch.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
