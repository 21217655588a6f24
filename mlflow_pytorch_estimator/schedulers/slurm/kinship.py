"""Whether the watcher may report for a job that still has an agent: with the same credentials and the same secrets.

The watcher has the environment of the submission that started it. What another job must conceal, and how its server is
reached, it would not know; so each job has a digest of that beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from mlflow_pytorch_estimator.files import write_atomic
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.secretvalues import Concealer

_FILE = "reporting"
_OF_MLFLOW = "MLFLOW_"
_OF_ONE_RUN = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


def note(directory: JobDir, environ: Mapping[str, str]) -> None:
    """Write down with what the job is reported."""
    write_atomic(directory.path / _FILE, _digest(directory, environ))


def shared(directory: JobDir, environ: Mapping[str, str]) -> bool:
    """Whether a process with this environment can report the job as its agent does."""
    path = directory.path / _FILE
    return path.exists() and path.read_text(encoding="ascii") == _digest(directory, environ)


def _digest(directory: JobDir, environ: Mapping[str, str]) -> str:
    known = {name: value for name, value in environ.items() if name.startswith(_OF_MLFLOW) and name not in _OF_ONE_RUN}
    words = json.dumps([sorted(known.items()), sorted(Concealer.from_environ(environ).values.items())])
    # Slow to guess, with a salt of its own: a file says nothing about a password, not even to whoever has a copy of it.
    found = hashlib.scrypt(words.encode("utf-8", "surrogateescape"), salt=directory.path.name.encode(), n=256, r=8, p=1)
    return found.hex()
