"""Checks of MLflow's stores."""

from __future__ import annotations

import email.utils
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow_pytorch_estimator.cli.doctor.findings import FAIL, OK, WARN, Finding
from mlflow_pytorch_estimator.errors import one_line

_SLOW_SECONDS = 2.0
_SKEW_SECONDS = 30.0
_TIMEOUT_SECONDS = 10


def check() -> Iterator[Finding]:
    """All of them."""
    import mlflow

    from mlflow_pytorch_estimator.tracking import absolute, without_credentials

    yield Finding(OK, "mlflow", mlflow.__version__)
    uri = absolute(mlflow.get_tracking_uri())
    shown = without_credentials(uri)
    finding, location = _tracking(uri, shown)
    yield finding
    if finding.state != FAIL:
        yield _artifacts(location)
    if urlsplit(uri).scheme in {"http", "https"}:
        yield _clock(uri)


def _tracking(uri: str, shown: str) -> tuple[Finding, str]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    try:
        with _impatient():
            client.search_experiments(max_results=1)  # the first question makes a data base that is not there yet
            begun = time.monotonic()
            found = client.search_experiments(max_results=1)
    except Exception as error:  # noqa: BLE001 - a store may fail in any way
        text = f"{shown} does not answer: {one_line(error)[:200]}"
        return Finding(FAIL, "tracking store", text, "set MLFLOW_TRACKING_URI, or start the server"), ""
    seconds = time.monotonic() - begun
    location = str(found[0].artifact_location) if found else ""
    text = f"{shown}, answers within {seconds:.1f} s"
    if seconds > _SLOW_SECONDS:
        return Finding(WARN, "tracking store", text, "metrics will come late; a server nearer by"), location
    return Finding(OK, "tracking store", text), location


@contextmanager
def _impatient() -> Iterator[None]:
    """MLflow asks an absent server again and again, for minutes, unless its user says otherwise."""
    wanted = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_TIMEOUT_SECONDS)}
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _artifacts(location: str) -> Finding:
    parts = urlsplit(location)
    if parts.scheme not in {"", "file"}:
        return Finding(OK, "artifact store", f"{location or 'that of the server'} (not tried)")
    folder = Path(unquote(parts.path))
    there = folder
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding(
            FAIL,
            "artifact store",
            f"cannot write to {folder}: {error.strerror}",
            "the experiment was made by somebody else, or on another machine: use another one",
        )
    return Finding(OK, "artifact store", str(folder))


def _clock(uri: str) -> Finding:
    import requests

    try:
        said = requests.head(uri, timeout=_TIMEOUT_SECONDS).headers.get("Date")
    except requests.RequestException as error:
        return Finding(WARN, "clock", f"cannot be compared with the server's: {type(error).__name__}")
    if said is None:
        return Finding(OK, "clock", "the server does not tell its time")
    skew = time.time() - email.utils.parsedate_to_datetime(said).timestamp()
    text = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server's"
    if abs(skew) > _SKEW_SECONDS:
        return Finding(WARN, "clock", text, "set the clock: times of metrics and of jobs are wrong")
    return Finding(OK, "clock", text)
