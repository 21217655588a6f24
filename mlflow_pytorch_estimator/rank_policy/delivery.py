"""The folder that makes MLflow load the policy: metadata only, the code is this package's."""

from __future__ import annotations

from pathlib import Path

from mlflow_pytorch_estimator._version import __version__

_NAME = "gpu_cluster_ranks"
# The name of an entry point is a URI scheme to MLflow. Nobody writes this one; it is there to be loaded.
_ENTRY_POINTS = """\
[mlflow.tracking_store]
gpu-cluster-ranks = mlflow_pytorch_estimator.rank_policy.plugin:tracking_store

[mlflow.model_registry_store]
gpu-cluster-ranks = mlflow_pytorch_estimator.rank_policy.plugin:model_registry_store

[mlflow.artifact_repository]
gpu-cluster-ranks = mlflow_pytorch_estimator.rank_policy.plugin:artifact_repository
"""


def deliver(target: Path) -> None:
    """Write the folder; it works on the ``PYTHONPATH`` of ranks that can import this package as well."""
    info = target / f"{_NAME}-{__version__}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {_NAME.replace('_', '-')}\nVersion: {__version__}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    (info / "entry_points.txt").write_text(_ENTRY_POINTS, encoding="utf-8")
