"""What ``envs`` prints: tables for people, JSON for scripts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.tending.disk import joined
from mlflow_pytorch_estimator.environments.tending.quantities import show_age, show_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mlflow_pytorch_estimator.environments.tending.checkup import Diagnosis
    from mlflow_pytorch_estimator.environments.tending.disk import Usage
    from mlflow_pytorch_estimator.environments.tending.prune import Pruned
    from mlflow_pytorch_estimator.environments.tending.survey import Entry, Survey

_ENVIRONMENTS = ("KEY", "SIZE", "FREES", "PYTHON", "PACKAGES", "TORCH", "LAST USED", "STATE", "USED BY")
_WHEELS = ("HOROVOD WHEEL", "SIZE", "LAST USED", "STATE", "BUILT AS")


def survey_lines(folder: Path, found: Survey) -> Iterator[str]:
    """Yield a table of environments, one of wheels, and the totals."""
    for headings, rows in (
        (_ENVIRONMENTS, [_environment(entry) for entry in found.environments]),
        (_WHEELS, [_wheel(entry) for entry in found.wheels]),
    ):
        if rows:
            yield from _table([headings, *rows])
            yield ""
    counts = [
        _count(len(found.environments), "environment"),
        _count(len(found.wheels), "Horovod wheel"),
        f"chosen versions for {_count(len(found.locks), 'request')}",
    ]
    together = joined(entry.usage for entry in found.entries)
    yield f"{folder}: {', '.join(counts)}; {show_size(together.size)} on disk, {show_size(together.alone)} only here"


def survey_json(folder: Path, found: Survey) -> dict[str, object]:
    """Return all that is in the cache; sizes in bytes, times in Unix seconds."""
    return {
        "folder": str(folder),
        "bytes": joined(entry.usage for entry in found.entries).size,
        "environments": [_json(entry) for entry in found.environments],
        "wheels": [_json(entry) for entry in found.wheels],
        "requests": [lock.stem for lock in found.locks],
    }


def diagnosis_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield what was found in one entry."""
    name = f"{diagnosis.name}  {diagnosis.what}"
    if not diagnosis.problems:
        yield f"{name}: {diagnosis.advice or 'as it was installed'}"
        return
    yield f"{name}: damaged"
    yield from (f"    {problem}" for problem in diagnosis.problems)
    yield f"    {diagnosis.advice}"


def pruned_line(item: Pruned, *, dry_run: bool) -> str:
    """Return what happened to one thing."""
    if item.kept:
        return f"kept {item.name}, {item.what}: {item.kept}"
    verb = "would remove" if dry_run else "removed"
    size = f", {show_size(item.usage.size)}" if item.usage.size else ""
    used = "" if item.used is None else f", last used {_age(item.used)}"
    return f"{verb} {item.name}, {item.what}{size}{used}"


def freed(taken: Usage) -> str:
    """Return how much of what was removed is gone from the disk, and where the rest is."""
    shared = taken.size - taken.alone
    rest = f" ({show_size(shared)} stay: uv's cache or other environments have them)" if shared else ""
    return f"{show_size(taken.alone)} freed{rest}"


def _environment(entry: Entry) -> tuple[str, ...]:
    return (
        entry.key,
        show_size(entry.usage.size),
        show_size(entry.usage.alone),
        entry.python or "-",
        "-" if entry.packages is None else str(entry.packages),
        entry.torch or "-",
        _age(entry.used),
        str(entry.state),
        ", ".join(entry.users) or "-",
    )


def _wheel(entry: Entry) -> tuple[str, ...]:
    return (
        entry.key,
        show_size(entry.usage.size),
        _age(entry.used),
        str(entry.state),
        entry.description.removeprefix("Horovod ") or "-",
    )


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _json(entry: Entry) -> dict[str, object]:
    return {
        "key": entry.key,
        "state": str(entry.state),
        "bytes": entry.usage.size,
        "bytes_freed": entry.usage.alone,
        "python": entry.python or None,
        "packages": entry.packages,
        "torch": entry.torch or None,
        "description": entry.description or None,
        "last_used": round(entry.used, 3),
        "used_by": list(entry.users),
    }


def _age(used: float) -> str:
    return show_age(time.time() - used)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
