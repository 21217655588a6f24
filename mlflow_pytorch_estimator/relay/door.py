"""The tracking server of the ranks on this node: takes their requests down for the submit side to send on.

It listens on the loopback interface and answers only to who has its token, which the ranks get in their environment.
Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

from mlflow_pytorch_estimator.relay import batches
from mlflow_pytorch_estimator.relay.calls import LARGEST_IN_LINE, Call, Outbox

FOLDER_VARIABLE = "GPU_CLUSTER_RELAY"
"""Tells the agents of a job that there is a relay, and where its files are."""
TOLD = (
    *(FOLDER_VARIABLE, "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN", "MLFLOW_HTTP_REQUEST_TIMEOUT"),
    *("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "NO_PROXY", "no_proxy"),
)
"""What ranks are told by it."""
_CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_AUTH")
_PATIENCE_SECONDS = 86_400
_LONGEST_POLL_SECONDS = 0.2
_PIECE = 1 << 20
_PASSED_ON = ("content-type", "range")
_PASSED_PREFIX = "x-mlflow"


def serve(node: str) -> None:
    """Be the tracking server of the ranks that this process will start, if their job has a relay."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder:
        told = Door(Path(folder) / node).environment(os.environ)
        os.environ.clear()
        os.environ.update(told)


def passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """What ranks keep of an environment when a relay is their server."""
    kept = {name: value for name, value in environ.items() if name not in _CREDENTIALS}
    if kept.get("MLFLOW_REGISTRY_URI") == kept.get("MLFLOW_TRACKING_URI"):
        kept.pop("MLFLOW_REGISTRY_URI", None)
    return kept


class Door:
    """Open from its creation until ``close``."""

    def __init__(self, folder: Path) -> None:
        self._token = secrets.token_urlsafe(24)
        self._outbox = Outbox(folder)
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="relay", daemon=True)
        self._thread.start()

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """``environ`` for ranks, whose tracking server this is."""
        told = passed_on(environ)
        told["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{self._server.server_address[1]}"
        told["MLFLOW_TRACKING_TOKEN"] = self._token
        # A store that is away is waited for; a client that gives up would ask again and crash in the end.
        told.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_PATIENCE_SECONDS))
        told.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # this address leads nobody to a page
        for name in ("no_proxy", "NO_PROXY"):
            told[name] = ",".join(filter(None, [told.get(name), "127.0.0.1"]))
        return told

    def close(self) -> None:
        """Answer nobody any more; what was taken down stays."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._outbox.close()

    @property
    def _handler(self) -> type[BaseHTTPRequestHandler]:
        return type("Handler", (_Handler,), {"outbox": self._outbox, "token": self._token, "closed": self._closed})


class _Handler(BaseHTTPRequestHandler):
    outbox: Outbox
    token: str
    closed: threading.Event
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_any(self) -> None:
        """Take one request down, and answer it."""
        call_id = self.outbox.next_id()
        given = self.headers.get("Authorization", "")
        try:
            if not secrets.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
                self.close_connection = True  # whatever body it has is not read
                self._refuse(401, "UNAUTHENTICATED", "the tracking server of a job: MLFLOW_TRACKING_TOKEN is wrong")
                return
            self._take(call_id, self._body(call_id))
        except OSError as error:
            with contextlib.suppress(OSError):  # the rank itself may have gone
                self._refuse(503, "TEMPORARILY_UNAVAILABLE", f"the job directory: {error.strerror or error}")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any  # noqa: N815 - the names in the base class

    def _take(self, call_id: str, body: bytes | None) -> None:
        prompt = batches.prompt_answer(self.command, self.path, body) if body is not None else None
        headers = {
            name.lower(): value
            for name, value in self.headers.items()
            if name.lower() in _PASSED_ON or name.lower().startswith(_PASSED_PREFIX)
        }
        text = None if body is None else _text(body)
        if body is not None and text is None:
            self.outbox.body_file(call_id).write_bytes(body)
        self.outbox.put(Call(call_id, self.command, self.path, headers, text, prompt is not None))
        if prompt is not None:
            self._send(200, {"Content-Type": "application/json"}, json.dumps(prompt).encode())
            return
        self._wait(call_id)

    def _wait(self, call_id: str) -> None:
        pause = 0.01
        while (found := self.outbox.answer(call_id)) is None:
            if self.closed.wait(pause):
                self._refuse(503, "TEMPORARILY_UNAVAILABLE", "the job is over")
                return
            pause = min(_LONGEST_POLL_SECONDS, pause * 1.3)
        answer, file = found
        with file:
            start = file.tell()
            size = file.seek(0, os.SEEK_END) - start
            file.seek(start)
            self._send(answer.status, answer.headers, file, size)

    def _send(self, status: int, headers: Mapping[str, str], body: bytes | BinaryIO, size: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if isinstance(body, bytes) else size))
        self.end_headers()
        if self.command != "HEAD":
            if isinstance(body, bytes):
                self.wfile.write(body)
            else:
                shutil.copyfileobj(body, self.wfile, _PIECE)

    def _refuse(self, status: int, code: str, words: str) -> None:
        self._send(
            status,
            {"Content-Type": "application/json"},
            json.dumps({"error_code": code, "message": words}).encode(),
        )

    def _body(self, call_id: str) -> bytes | None:
        """The body, or None if it is large and was written into its file."""
        held = bytearray()
        pieces = self._pieces()
        for piece in pieces:
            held += piece
            if len(held) > LARGEST_IN_LINE:
                with self.outbox.body_file(call_id).open("wb") as file:
                    file.write(held)
                    file.writelines(pieces)
                return None
        return bytes(held)

    def _pieces(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read(min(left, _PIECE))
            if not piece:
                raise ConnectionError("the request broke off")
            left -= len(piece)
            yield piece

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """Say nothing: these are the ranks' own requests."""


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
