"""The environment with torch, MLflow and Horovod that tests share.

``make test`` runs this file first: a compiler on all cores beside tests would upset those that look at the clock.
"""

from __future__ import annotations

from pathlib import Path

from mlflow_pytorch_estimator.environments import EnvironmentSpec, ReadyEnvironment, prepare

_ROOT = Path(__file__).resolve().parents[1]
HOROVOD_ENVIRONMENTS = _ROOT / ".venv-horovod"


def build() -> ReadyEnvironment:
    """Build it, or find it."""
    HOROVOD_ENVIRONMENTS.mkdir(exist_ok=True)
    spec = EnvironmentSpec("uv", None, ("torch", "torchvision"), (), "tests", horovod=True)
    with (HOROVOD_ENVIRONMENTS / "build.log").open("a", encoding="utf-8") as log:
        return prepare(spec, _ROOT, HOROVOD_ENVIRONMENTS, log=log, cancelled=lambda: False, say=print)


if __name__ == "__main__":
    build()
