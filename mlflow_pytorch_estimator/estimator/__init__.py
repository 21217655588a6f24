"""The estimator's vocabulary: workspace, experiment, compute target, PyTorch estimator, run, model.

The names are those of Azure ML's SDK v1; everything they do is done with MLflow and with this package's own jobs.
``docs/estimator.md`` has one row for each name.
"""

from mlflow_pytorch_estimator.estimator import notes

notes.install()
