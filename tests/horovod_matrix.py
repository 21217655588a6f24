"""Horovod on old and new PyTorch: each built as for a job, then all checks of ``horovod_checks.py`` on two ranks.

Takes minutes and gigabytes for each version, so it is no part of ``make test``: ``make test-horovod-matrix``, or
``python tests/horovod_matrix.py [--folder FOLDER] [--keep] [VERSION ...]``. Prints a table; exit 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import astuple, dataclass
from pathlib import Path

from horovod_checks import CHECKS
from horovod_ranks import prove

from mlflow_pytorch_estimator.environments import EnvironmentSpec, ReadyEnvironment, cache, prepare
from mlflow_pytorch_estimator.environments.description.framework import framework_python, framework_requirements
from mlflow_pytorch_estimator.environments.extras import wheels
from mlflow_pytorch_estimator.errors import GpuClusterError

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("1.13", "2.0", "2.4", "2.9", "2.14", "2.15")
MEET_AGAIN = ("starting_again", "elastic_run")


@dataclass
class Row:
    """One version of PyTorch."""

    torch: str
    python: str = ""
    cuda: str = ""
    standard: str = ""
    operations: str = ""
    minutes: str = ""
    result: str = ""


def build(version: str, folder: Path) -> ReadyEnvironment:
    """The environment of a job that names this version."""
    lines = framework_requirements(version)
    spec = EnvironmentSpec("uv", framework_python(lines), lines, (), "matrix", horovod=True)
    with (folder / f"torch-{version}.log").open("w", encoding="utf-8") as log:
        return prepare(spec, ROOT, folder, log=log, cancelled=lambda: False, say=_say)


def fill(row: Row, ready: ReadyEnvironment, folder: Path) -> None:
    """What the wheel's record says, and ``horovodrun --check-build``."""
    exact = next(line.partition("==")[2] for line in ready.freeze.splitlines() if line.startswith("torch=="))
    python = ready.freeze.splitlines()[0].split()[-1]
    for file in sorted(wheels(folder).glob("*/wheel.json"), key=lambda path: path.stat().st_mtime):
        record = json.loads(file.read_text())
        target = record["target"]
        if target["torch"] == exact.partition("+")[0] and python.startswith(f"{target['python']}."):
            row.cuda, row.standard = target["torch_cuda"] or "none", record["standard"]
            row.minutes = f"{record['seconds'] / 60:.1f}"
    row.torch, row.python = exact, python
    has = [name for name in ("NCCL", "MPI", "Gloo") if f"[X] {name}" in ready.horovod]
    row.operations = ", ".join(has)


def checked(python: Path) -> str:
    """Run all checks; the names of those that failed, with the reasons on the terminal."""
    failed = []
    together = [check.__name__ for check in CHECKS if check.__name__ not in MEET_AGAIN]
    for names in (together, *([name] for name in MEET_AGAIN)):
        with tempfile.TemporaryDirectory(prefix="horovod-matrix-") as folder:
            proof = prove(python, Path(folder), names, seconds=600)
        wrong = [name for name in names if proof.reason(name)]
        for name in wrong[:1]:  # those after it were not reached
            _say(f"{name}: {proof.reason(name)}")
        failed += wrong
    return f"failed: {', '.join(failed)}" if failed else f"{len(CHECKS)} checks passed"


def proven(version: str, folder: Path, *, keep: bool) -> Row:
    """Build and check one version."""
    row = Row(version)
    _say(f"torch {version}")
    try:
        ready = build(version, folder)
        fill(row, ready, folder)
        row.result = checked(ready.python)
    except GpuClusterError as error:
        _say(str(error))
        row.result = f"not built: {str(error).splitlines()[0]}"
    else:
        if not (keep or ready.reused):
            cache.remove(folder / ready.key)
    return row


def main() -> None:
    """Print one row for each version."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("versions", nargs="*", default=VERSIONS, metavar="VERSION")
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv-horovod", help="Cache of environments and wheels.")
    parser.add_argument("--keep", action="store_true", help="Keep new environments; wheels are kept anyway.")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.nice(10)
    rows = [proven(version, options.folder, keep=options.keep) for version in options.versions]
    print("| torch | Python | CUDA of torch | standard | operations | minutes | two ranks |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(astuple(row))} |")
    sys.exit(any("passed" not in row.result for row in rows))


def _say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
