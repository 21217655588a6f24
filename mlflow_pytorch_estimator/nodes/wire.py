"""Messages between the agents of a job: JSON lines on one TCP connection for each node.

The connection is also the sign of life: it closes with the process at its other end, however that ended, and TCP
finds out within half a minute if the whole machine has gone.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import select
import socket
import time
from collections.abc import Mapping
from typing import Any

SECRET_VARIABLE = "GPU_CLUSTER_JOIN_SECRET"  # noqa: S105 - the name of a variable
_IDLE_SECONDS, _PROBE_SECONDS, _PROBES = 10, 5, 3
_PIECE = 1 << 16
_LONGEST_GREETING = 4096


class Channel:
    """One end of a connection. Reading never blocks; sending does, for at most ``_SEND_SECONDS``.

    What is no message closes it: anybody on the network may knock at the door, and must not end a job with noise.
    """

    _SEND_SECONDS = 20.0

    def __init__(self, connection: socket.socket, longest: int | None = None) -> None:
        self._socket = connection
        self._received = b""
        self.longest = longest
        """Bytes that the other end may send without an end of line; None for any number."""
        self.closed = False
        _keep_alive(connection)

    def fileno(self) -> int:
        """For ``select``."""
        return self._socket.fileno()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; a connection that takes none any more is closed."""
        if self.closed:
            return
        try:
            self._socket.settimeout(self._SEND_SECONDS)
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.close()

    def receive(self, seconds: float = 0.0) -> list[dict[str, Any]]:
        """The messages that have come, waiting for the first of them so long."""
        messages: list[dict[str, Any]] = []
        deadline = time.monotonic() + seconds
        while not self.closed and _readable(self, 0.0 if messages else max(0.0, deadline - time.monotonic())):
            try:
                piece = self._socket.recv(_PIECE)
            except OSError:
                piece = b""
            *lines, self._received = (self._received + piece).split(b"\n")
            for line in lines:
                message = _message(line)
                if message is None:
                    self.close()
                    break
                messages.append(message)
            if not piece or (self.longest is not None and len(self._received) > self.longest):
                self.close()
        return messages

    def close(self) -> None:
        """Close it; the other end sees that."""
        self.closed = True
        self._socket.close()


class Door:
    """Where the other nodes' agents of a job come in. ``host`` is this node's address for them."""

    def __init__(self, host: str) -> None:
        self.secret = secrets.token_hex(32)
        self._listening = socket.create_server((host, 0), backlog=1024)
        self.address = f"{host}:{self._listening.getsockname()[1]}"

    def admit(self, seconds: float) -> tuple[Channel, dict[str, Any]] | None:
        """The next one that knows the job's secret, with its greeting; None if there is none within so long."""
        if not _readable(self._listening, seconds):
            return None
        connection, _ = self._listening.accept()
        channel = Channel(connection, _LONGEST_GREETING)
        challenge = secrets.token_hex(32)
        channel.send({"challenge": challenge})
        deadline = time.monotonic() + 5.0
        while not channel.closed and time.monotonic() < deadline:
            for greeting in channel.receive(0.1)[:1]:
                answer = str(greeting.pop("answer", ""))
                if hmac.compare_digest(answer.encode(), _answer(self.secret, challenge).encode()):
                    channel.longest = None
                    return channel, greeting
                channel.close()
        channel.close()
        return None

    def close(self) -> None:
        """Nobody comes in any more."""
        self._listening.close()


def join(address: str, greeting: Mapping[str, Any], seconds: float) -> tuple[Channel, str]:
    """Go to the door of a job and greet; also returns the address under which the door sees this node.

    Raises OSError when there is nobody, or nobody who knows the secret.
    """
    host, _, port = address.rpartition(":")
    channel = Channel(socket.create_connection((host, int(port)), timeout=seconds))
    here = str(channel._socket.getsockname()[0])
    challenge = next(iter(channel.receive(seconds)), None)
    if challenge is None:
        raise OSError("the first node's agent does not answer")
    secret = os.environ.get(SECRET_VARIABLE, "")
    channel.send({**greeting, "seen_as": here, "answer": _answer(secret, str(challenge["challenge"]))})
    return channel, here


def _message(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _readable(source: Channel | socket.socket, seconds: float) -> bool:
    poll = select.poll()  # unlike `select` it takes any descriptor
    poll.register(source, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _answer(secret: str, challenge: str) -> str:
    return hmac.new(secret.encode(), challenge.encode(), "sha256").hexdigest()


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
