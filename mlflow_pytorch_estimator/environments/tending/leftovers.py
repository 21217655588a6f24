"""What nobody needs any more: scratch folders of killed builds, and files about environments that have gone."""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import leases
from mlflow_pytorch_estimator.environments.extras import wheels
from mlflow_pytorch_estimator.environments.tending.disk import Usage, usage
from mlflow_pytorch_estimator.environments.tending.removal import forget, held

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_RESOLVING = re.compile(r"\.resolving-([0-9a-f]{16})")
_BUILDING = re.compile(r"([0-9a-f]{16})\.build")
_BESIDE = re.compile(r"([0-9a-f]{16})\.(?:used|jobs|lock)")
_BESIDE_LOCK = re.compile(r"\.?([0-9a-f]{16}\.json)\.(?:lock|\d+)")


def leftovers(cache_dir: Path) -> dict[Path, list[Path]]:
    """Return entry -> what it has left; the entry's lock guards them, and some may be in use."""
    locks, built = cache_dir / "locks", wheels(cache_dir)
    found: dict[Path, list[Path]] = defaultdict(list)
    for path, name in _matching(cache_dir, _RESOLVING):
        found[locks / f"{name}.json"].append(path)
    for path, name in _matching(built, _BUILDING):
        found[built / name].append(path)
    for pattern, parent in ((_BESIDE, cache_dir), (_BESIDE, built), (_BESIDE_LOCK, locks)):
        for path, name in _matching(parent, pattern):
            if not (parent / name).exists():
                found[parent / name].append(path)
    return found


def clear(entry: Path, paths: Iterable[Path]) -> Usage:
    """Remove what an entry has left; InUse, NotRemoved."""
    with held(entry):
        taken = sum(usage(path).alone for path in paths if path.is_dir())
        for path in paths:
            if path.is_dir() and not path.name.endswith(".jobs"):
                shutil.rmtree(path)
            elif path.suffix[1:].isdigit():
                path.unlink(missing_ok=True)
        if not entry.exists():
            forget(entry)
    return Usage(taken)


def is_needed(entry: Path) -> bool:
    """Tell whether a job that lives still counts on an environment that is not there."""
    return bool(leases.users(entry))


def is_readable(lock: Path) -> bool:
    """Tell whether a file of chosen versions is whole, as far as we may look at it."""
    try:
        return isinstance(json.loads(lock.read_bytes()), dict)
    except ValueError:
        return False
    except OSError:
        return True  # it has just gone, or somebody keeps it to himself


def _matching(parent: Path, pattern: re.Pattern[str]) -> Iterator[tuple[Path, str]]:
    for path in sorted(parent.glob("*")):
        found = pattern.fullmatch(path.name)
        if found:
            yield path, found[1]
