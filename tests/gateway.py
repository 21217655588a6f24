"""A tracking server that can be away, or slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
import requests

if TYPE_CHECKING:
    from conftest import Server


class Gateway:
    """Before a real tracking server: it can be away, or answer what it is told to."""

    def __init__(self, real: str) -> None:
        self.away = False
        self.seconds = 0.0
        """So long each answer takes."""
        self.status: dict[str, int] = {}
        """End of a path -> what it is answered."""
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if outer.away:
                    self.close_connection = True
                    return
                name = self.path.partition("?")[0].rpartition("/")[2]
                outer.asked.append(name)
                time.sleep(outer.seconds)
                if name in outer.status:
                    self._send(outer.status[name], b"{}")
                    return
                kept = {"Content-Type": self.headers.get("Content-Type", "application/json")}
                said = requests.request(self.command, real + self.path, data=body, headers=kept, timeout=60)
                self._send(said.status_code, said.content)

            do_GET = do_POST = do_PUT = do_any  # noqa: N815 - the names in the base class

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def gateway(server: Server) -> Iterator[Gateway]:
    made = Gateway(server.uri)
    yield made
    made.close()


@pytest.fixture
def through(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Gateway]:
    """MLflow's current store is the server behind the gateway; its client does not wait for minutes."""
    for name, value in {
        "MLFLOW_TRACKING_URI": gateway.uri,
        "MLFLOW_REGISTRY_URI": gateway.uri,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    }.items():
        monkeypatch.setenv(name, value)
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(gateway.uri)
    mlflow.set_registry_uri(gateway.uri)
    yield gateway
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])
