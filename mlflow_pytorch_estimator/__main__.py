"""``python -m mlflow_pytorch_estimator``."""

from mlflow_pytorch_estimator.cli import main

main(prog_name="python -m mlflow_pytorch_estimator")
