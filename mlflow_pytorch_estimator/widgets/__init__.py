"""``RunDetails``: a run in a notebook, kept up to date, as ``azureml.widgets`` had it."""

from mlflow_pytorch_estimator.widgets.run_details import RunDetails

__all__ = ["RunDetails"]
