"""On the submit host, one for each running job without a shared file system: sends it, fetches what it leaves.

    python -m mlflow_pytorch_estimator.schedulers.slurm.courier JOBDIR NODE...

It may be killed at any time: the watcher starts another one, which goes on from what is in the job directory.
"""

from __future__ import annotations

import os
import selectors
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from mlflow_pytorch_estimator import locks
from mlflow_pytorch_estimator.errors import ConfigError, GpuClusterError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.slurm import broadcast, client, queries
from mlflow_pytorch_estimator.schedulers.slurm.broadcast import Nodes
from mlflow_pytorch_estimator.schedulers.slurm.far import FarFiles
from mlflow_pytorch_estimator.schedulers.slurm.receiving import Books, Line
from mlflow_pytorch_estimator.status import Phase

_TELLER = "mlflow_pytorch_estimator.schedulers.slurm.teller"
_ROUND_SECONDS = 0.2
_OTHERS_SECONDS = 60.0  # without a word, for the other nodes to hand over what they have
_ASK_SECONDS = 10.0
_TRIES = 3
_PAUSE_SECONDS = 5.0


class Courier:
    """Serves one job on its nodes."""

    def __init__(self, directory: JobDir, nodes: Nodes) -> None:
        self._directory = directory
        self._files = FarFiles(directory)
        self._nodes = nodes

    def run(self) -> None:
        """Send the job if that has not been done, and see it through."""
        if not self._files.sent.exists() and not self._send():
            return
        self._fetch()

    def _send(self) -> bool:
        for number in range(1, _TRIES + 1):
            try:
                broadcast.send(self._directory, self._nodes, self._say)
            except GpuClusterError as error:
                print(f"{time.strftime('%F %T')} {error}", file=sys.stderr, flush=True)
                if self._ended():
                    return False
                if number == _TRIES or isinstance(error, ConfigError) or self._directory.cancel_requested:
                    self._give_up(str(error))
                    return False
                time.sleep(_PAUSE_SECONDS)
            else:
                return True
        return False

    def _say(self, words: str) -> None:
        self._directory.enter(Phase.SCALING, words)

    def _give_up(self, reason: str) -> None:
        if self._directory.cancel_requested:
            self._directory.conclude(Phase.CANCELED, "canceled by request")
        else:
            self._directory.conclude(Phase.FAILED, f"the job could not be sent to its nodes: {reason}")
        client.run("scancel", self._nodes.job_id, patient=True)

    def _ended(self) -> bool:
        """Whether the job needs nobody any more, as far as Slurm tells."""
        try:
            said = queries.active([self._nodes.job_id]).get(self._nodes.job_id)
        except GpuClusterError:
            return False
        return said is None or (said.meaning is not None and said.meaning.over)

    def _fetch(self) -> None:
        books = Books(self._directory)
        with self._files.log.open("ab") as log, selectors.DefaultSelector() as selector:
            lines = [Line(name, self._teller(name), books, log) for name in self._nodes.names]
            try:
                if self._attend(lines, books, selector):
                    self._conclude(lines, books)
            finally:
                for line in lines:
                    line.close()

    def _teller(self, name: str) -> list[str]:
        role = "first" if name == self._nodes.names[0] else "other"
        python = self._directory.job.interpreter.python or "python3"
        command = ("env", f"PYTHONPATH={self._directory.library}", python, "-m", _TELLER)
        return self._nodes.step(*command, str(self._directory.path), role, only=name)

    def _attend(self, lines: Sequence[Line], books: Books, selector: selectors.BaseSelector) -> bool:
        """Enter what the nodes tell until they have told everything; False when the job has gone before that."""
        first, *others = lines
        over_since: float | None = None
        ask_at = time.monotonic() + _ASK_SECONDS
        while True:
            for line in lines:
                line.tend(selector)
            for key, _ in selector.select(_ROUND_SECONDS):
                key.data.hear(selector)
            books.forget(self._nodes.names)
            if self._directory.cancel_requested:
                first.order_once("cancel")
            now = time.monotonic()
            if first.over:
                over_since = over_since or now
                for line in others:
                    line.order_once("finish")
                late = [line for line in others if not line.over and line.silent(over_since) < _OTHERS_SECONDS]
                if not late and first.connected:
                    return True
            if now > ask_at and not all(line.connected for line in lines):
                ask_at = now + _ASK_SECONDS
                if self._ended():
                    return False

    def _conclude(self, lines: Sequence[Line], books: Books) -> None:
        books.close()
        text = lines[0].outcome
        if text is not None:
            self._directory.receive_outcome(text)
        for line in lines:
            line.order_once("fetched")


def main(argv: list[str]) -> int:
    """Serve the job, unless somebody does."""
    directory = JobDir(Path(argv[0]))
    lock = locks.try_acquire(FarFiles(directory).lock)
    if lock is None or directory.outcome is not None or directory.job_id is None:
        return 0
    try:
        Courier(directory, Nodes(directory.job_id, tuple(argv[1:]))).run()
    except GpuClusterError as error:
        print(f"{time.strftime('%F %T')} {error}", file=sys.stderr, flush=True)
        return 1
    except Exception:  # noqa: BLE001 - the outer edge of the process: the watcher starts another one
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    exit_status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(exit_status)
