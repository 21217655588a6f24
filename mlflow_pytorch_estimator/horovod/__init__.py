"""Horovod for the torch of a given environment: planned without a process, built once, kept as a wheel.

``plan`` says in milliseconds what would be built, ``obtain`` returns the wheel. Imports neither MLflow nor torch.
"""

from mlflow_pytorch_estimator.horovod.install import check_build, put
from mlflow_pytorch_estimator.horovod.obtain import obtain
from mlflow_pytorch_estimator.horovod.options import Options
from mlflow_pytorch_estimator.horovod.planning import Plan, Target, plan
from mlflow_pytorch_estimator.horovod.release import VERSION, runtime_requirements

__all__ = ["VERSION", "Options", "Plan", "Target", "check_build", "obtain", "plan", "put", "runtime_requirements"]
