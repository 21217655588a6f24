"""What log_model registers, served over HTTP by ``mlflow models serve``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import requests
import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow's own, while it is imported
    import mlflow
    import mlflow.onnx
    import mlflow.pyfunc
    import mlflow.pytorch

from mlflow_pytorch_estimator import log_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.features = nn.Linear(4, 8)

    def forward(self, ids: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.words(ids).mean(1) + self.features(features)
        return hidden, hidden.argmax(-1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    created = mlflow.create_experiment("serving", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment(experiment_id=created)
    yield uri
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One ``mlflow models serve`` in a session of its own, so that its workers can be stopped with it."""

    def __init__(self, model_uri: str, store: str, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.log = folder / "serve.log"
        command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", model_uri]
        command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                # the server starts uvicorn by name
                env={
                    **os.environ,
                    "MLFLOW_TRACKING_URI": store,
                    "PATH": f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}",
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if requests.get(f"{self.url}/ping", timeout=5).ok:
                    return
            except requests.ConnectionError:
                time.sleep(0.3)
        raise AssertionError(f"no server after {seconds} s: {self.log.read_text()}")

    def predict(self, inputs: Any) -> Any:
        answer = requests.post(f"{self.url}/invocations", json={"inputs": inputs}, timeout=60)
        assert answer.ok, answer.text
        return answer.json()["predictions"]

    def stop(self) -> None:
        if self.process.poll() is not None:
            return
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.mark.parametrize("several", [False, True])
def test_served_answers_are_the_models(store: str, tmp_path: Path, several: bool) -> None:
    torch.manual_seed(0)
    model: nn.Module = Pair() if several else nn.Linear(4, 2)
    ids, features = torch.randint(0, 11, (3, 5)), torch.rand(3, 4)
    with mlflow.start_run():
        log_model(model, (ids[:1], features[:1]) if several else features[:1], registered_model_name="served")
    server = Server("models:/served/1", store, tmp_path)
    try:
        server.wait()
        if several:
            answer = server.predict({"ids": ids.tolist(), "features": features.tolist()})
            expected = model(ids, features)
            np.testing.assert_allclose(answer["output_0"], expected[0].detach(), atol=1e-5)
            assert answer["output_1"] == expected[1].tolist()
        else:
            answer = server.predict(features.tolist())
            np.testing.assert_allclose(answer["output"], model(features).detach(), atol=1e-5)
    finally:
        server.stop()
