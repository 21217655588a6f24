"""``python -m mlflow_pytorch_estimator``: ``gpu-cluster`` where its own name is not on the PATH."""

from mlflow_pytorch_estimator.cli.program import run

run()
