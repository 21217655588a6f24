"""Requests of ranks to their tracking server, and the answers, as files that two machines share.

    relay/NODE/
      calls.jsonl   appended by the node, one line for each request, in their order
      ID.body       the body of a request that is too large for a line
      ID.answer     a line of JSON, then the body: what the store said
      sent          how many bytes of ``calls.jsonl`` have been sent on

Standard library only: the node's side is part of the agents.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from mlflow_pytorch_estimator.files import private_folder, write_atomic

LARGEST_IN_LINE = 256 << 10
"""Bytes of a body that still travels in its line."""
_CALLS, _SENT = "calls.jsonl", "sent"
_LARGEST_ROUND = 8 << 20


@dataclass(frozen=True)
class Call:
    """One request. ``path`` has the query with it."""

    id: str
    method: str
    path: str
    headers: dict[str, str]
    text: str | None
    """The body; None if it is in a file of its own."""
    answered: bool
    """Whether the rank has its answer already."""


@dataclass(frozen=True)
class Answer:
    """What the store said, without its body."""

    status: int
    headers: dict[str, str]


class Outbox:
    """The node's end."""

    def __init__(self, folder: Path) -> None:
        private_folder(folder)
        self._folder = folder
        self._prefix = secrets.token_hex(4)  # another attempt of the job goes on in the same file
        self._count = 0
        self._lock = threading.Lock()
        self._file = os.open(folder / _CALLS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def next_id(self) -> str:
        """A name that no other request has."""
        with self._lock:
            self._count += 1
            return f"{self._prefix}-{self._count}"

    def body_file(self, call_id: str) -> Path:
        """Where a large body goes, before its call is put."""
        return self._folder / f"{call_id}.body"

    def put(self, call: Call) -> None:
        """Append a request. OSError when there is no room; nothing of it counts then."""
        # The break before it ends what an earlier writer was killed in.
        line = b"\n" + json.dumps(asdict(call), ensure_ascii=False).encode() + b"\n"
        with self._lock:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])

    def answer(self, call_id: str) -> tuple[Answer, BinaryIO] | None:
        """The answer and its body, for the caller to close, or None while there is none."""
        path = self._folder / f"{call_id}.answer"
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        path.unlink()
        return Answer(**json.loads(file.readline())), file

    def close(self) -> None:
        """Put no more."""
        os.close(self._file)


class Inbox:
    """The submit side's end of one node's calls."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sent_file = folder / _SENT
        self._sent = int(self._sent_file.read_text()) if self._sent_file.exists() else 0

    @property
    def empty(self) -> bool:
        """Whether all has been sent on."""
        try:
            return (self._folder / _CALLS).stat().st_size <= self._sent
        except FileNotFoundError:
            return True

    def unsent(self) -> Iterator[tuple[Call, int]]:
        """The next calls, each with the offset behind it for ``done``; a part of them if there are very many."""
        try:
            with (self._folder / _CALLS).open("rb") as file:
                file.seek(self._sent)
                end = self._sent
                while (line := file.readline()).endswith(b"\n") and end < self._sent + _LARGEST_ROUND:
                    end += len(line)
                    call = _read(line)
                    if call is not None:
                        yield call, end
        except FileNotFoundError:
            return

    def body(self, call: Call) -> bytes | Path:
        """The body of a request, or the file it is in."""
        return self._folder / f"{call.id}.body" if call.text is None else call.text.encode()

    def reply(self, call: Call, answer: Answer, body: Iterable[bytes]) -> None:
        """Hand the answer to whoever waits for it."""
        part = self._folder / f"{call.id}.part"
        with part.open("wb") as file:
            file.write(json.dumps(asdict(answer)).encode() + b"\n")
            for piece in body:
                file.write(piece)
        part.rename(self._folder / f"{call.id}.answer")

    def done(self, calls: Iterable[Call], offset: int) -> None:
        """Remember that all up to ``offset`` has been sent; ``calls`` are those since the last time."""
        write_atomic(self._sent_file, str(offset))
        self._sent = offset
        for call in calls:
            if call.text is None:
                (self._folder / f"{call.id}.body").unlink(missing_ok=True)


def inboxes(folder: Path) -> list[Inbox]:
    """Those of all nodes that a job has had."""
    return [Inbox(path) for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []


def _read(line: bytes) -> Call | None:
    """A call, or None for a line whose writer was killed."""
    try:
        return Call(**json.loads(line))
    except (ValueError, TypeError):
        return None
