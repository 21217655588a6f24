"""MLflow's REST API over a store that has no server, such as SQLite: for ranks that only speak HTTP.

    python -m mlflow_pytorch_estimator.relay.local_store

A process of its own, because MLflow's handlers keep their store in the process. It is spoken to over its standard
streams and listens nowhere, so nobody else on the machine gets at the store.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from typing import Any, BinaryIO, cast

from mlflow_pytorch_estimator.relay.calls import Answer

_WAIT_SECONDS = 10.0


class LocalStore:
    """The store of ``tracking_uri`` and ``registry_uri``, served by a child process until ``close``."""

    def __init__(self, tracking_uri: str, registry_uri: str) -> None:
        self._lock = threading.Lock()
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__, tracking_uri, registry_uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
        )
        self._requests, self._answers = cast(BinaryIO, self._child.stdin), cast(BinaryIO, self._child.stdout)

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._child.poll() is None

    def call(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[Answer, bytes]:
        """Ask. OSError when the child has gone."""
        head = {"method": method, "path": path, "headers": headers, "size": len(body)}
        with self._lock:
            self._requests.write(json.dumps(head).encode() + b"\n" + body)
            self._requests.flush()
            line = self._answers.readline()
            if not line:
                raise BrokenPipeError("the process with the tracking store has ended")
            said = json.loads(line)
            return Answer(said["status"], said["headers"]), self._answers.read(said["size"])

    def close(self) -> None:
        """End the child."""
        with contextlib.suppress(BrokenPipeError):  # what was written for a child that has gone
            self._requests.close()
        self._answers.close()
        try:
            self._child.wait(_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def _serve(app: Any, requests: BinaryIO, answers: BinaryIO) -> None:
    client = app.test_client()
    while line := requests.readline():
        asked = json.loads(line)
        body = requests.read(asked["size"])
        said = client.open(asked["path"], method=asked["method"], headers=asked["headers"], data=body)
        content = said.get_data()
        kept = {"Content-Type": said.headers.get("Content-Type", "application/json")}
        head = {"status": said.status_code, "headers": kept, "size": len(content)}
        answers.write(json.dumps(head).encode() + b"\n" + content)
        answers.flush()


def main(argv: list[str]) -> int:
    """Serve until the standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed is no answer
    from mlflow import server

    os.environ[server.BACKEND_STORE_URI_ENV_VAR] = argv[0]
    os.environ[server.REGISTRY_STORE_URI_ENV_VAR] = argv[1]
    _serve(server.app, sys.stdin.buffer, answers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
