"""The submit side: what the ranks of a job have said, sent on to the run's store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.rest_utils import http_request

from mlflow_pytorch_estimator import locks
from mlflow_pytorch_estimator.errors import GpuClusterError, one_line
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.relay.batches import Group, groups
from mlflow_pytorch_estimator.relay.calls import Answer, Call, Inbox, inboxes
from mlflow_pytorch_estimator.relay.local_store import LocalStore
from mlflow_pytorch_estimator.tracking import Stores

_AWAY = frozenset({429, 502, 503, 504})
_TRIES = 5
"""After so many answers of 500 it is the request that the store cannot take."""
_SERVER_ERROR = 500
_REFUSED = 400
_PIECE = 1 << 20
_KEPT_HEADERS = ("Content-Type", "Content-Range")
_LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
_JSON = {"content-type": "application/json"}


class StoreAwayError(GpuClusterError):
    """The store does not answer; what was not sent is still there."""


class Forwarder:
    """Sends on what the ranks of one job say. Several may work on a job: they take turns."""

    def __init__(self, directory: JobDir, stores: Stores) -> None:
        self._directory = directory
        self._store = _Store(stores)
        self._failures = 0

    def pump(self) -> int:
        """Send all that is there, and say how many requests it was. StoreAwayError when the store is."""
        if not self._directory.relay.is_dir():
            return 0
        with locks.holding(self._directory.relay / "lock"):
            return sum(self._empty(inbox) for inbox in inboxes(self._directory.relay) if not inbox.empty)

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    def _empty(self, inbox: Inbox) -> int:
        sent = 0
        while True:
            before = sent
            for group in groups(inbox.unsent()):
                self._send(inbox, group)
                inbox.done(group.calls, group.end)
                sent += len(group.calls)
            if sent == before:
                return sent

    def _send(self, inbox: Inbox, group: Group) -> None:
        if len(group.calls) > 1:
            call = Call("", "POST", _LOG_BATCH, _JSON, json.dumps(group.body), answered=True)
            status, _ = self._try(inbox, call)
            if status < _REFUSED:
                return
        for call in group.calls:  # one by one, so that what the store refuses takes nothing else along
            status, words = self._try(inbox, call)
            if status >= _REFUSED and call.answered:
                self._note(f"{call.method} {call.path}: {status} {words}")

    def _try(self, inbox: Inbox, call: Call) -> tuple[int, str]:
        """Send one request, hand the answer to whoever waits for it; its status, and the words of a refusal."""
        try:
            with self._store.asked(call, inbox.body(call)) as (answer, pieces):
                gives_up = answer.status == _SERVER_ERROR and self._failures >= _TRIES
                if answer.status in _AWAY or (answer.status == _SERVER_ERROR and not gives_up):
                    self._failures += 1
                    raise StoreAwayError(f"the tracking store answers {answer.status}")
                self._failures = 0
                if not call.answered:
                    inbox.reply(call, answer, pieces)
                    return answer.status, ""
                return answer.status, b"".join(pieces)[:300].decode(errors="replace")
        except (OSError, MlflowException) as error:
            raise StoreAwayError(f"the tracking store does not answer: {one_line(error)}") from error

    def _note(self, words: str) -> None:
        """What a rank has not been told: its request was refused after it had gone on."""
        with self._directory.relay_log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%F %T')} {one_line(words)}\n")


class _Store:
    """A tracking store, asked in the words of MLflow's REST API."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        store = stores.client()._tracking_client.store
        self._rest: Any = store if isinstance(store, RestStore) else None
        self._local: LocalStore | None = None

    @contextmanager
    def asked(self, call: Call, body: bytes | Path) -> Iterator[tuple[Answer, Iterable[bytes]]]:
        """The answer, and its body in pieces."""
        if self._rest is None:
            yield self._locally(call, body)
            return
        with ExitStack() as stack:
            response = http_request(
                self._rest.get_host_creds(),
                call.path,
                call.method,
                max_retries=0,
                raise_on_status=False,
                extra_headers=call.headers,
                data=stack.enter_context(body.open("rb")) if isinstance(body, Path) else body,
                stream=True,
            )
            stack.enter_context(closing(response))
            kept = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
            yield Answer(response.status_code, kept), response.iter_content(_PIECE)

    def close(self) -> None:
        """End what serves a local store."""
        if self._local is not None:
            self._local.close()
            self._local = None

    def _locally(self, call: Call, body: bytes | Path) -> tuple[Answer, Iterable[bytes]]:
        if self._local is None or not self._local.alive:
            self.close()
            self._local = LocalStore(self._stores.tracking_uri, self._stores.registry_uri)
        content = body.read_bytes() if isinstance(body, Path) else body
        answer, said = self._local.call(call.method, call.path, call.headers, content)
        return answer, [said]


def refusals(path: Path) -> int:
    """How many requests the store has refused after their ranks had gone on."""
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0
