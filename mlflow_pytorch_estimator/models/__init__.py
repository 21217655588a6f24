"""Log a PyTorch model together with the ONNX graph that was proven against it."""

from __future__ import annotations

from mlflow_pytorch_estimator.models.log import LoggedOnnxModel, log_model

__all__ = ["LoggedOnnxModel", "log_model"]
