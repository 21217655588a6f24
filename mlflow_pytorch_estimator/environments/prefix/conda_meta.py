"""``conda-meta`` of a prefix: which packages are in it, where they came from, and which files are theirs."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FOLDER = "conda-meta"
INFO = ".dist-info"
# What installing a package again needs to know: conda itself reads it in the package, others want to be told.
_FACTS = (
    *("name", "version", "build", "build_number", "subdir", "noarch", "depends", "constrains"),
    *("md5", "sha256", "size", "python_site_packages_path"),
)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@|/t/[^/\s]+(?=/)")


@dataclass(frozen=True)
class CondaPackage:
    """A package as it was installed."""

    url: str
    """Where it came from, without credentials."""
    facts: dict[str, Any]
    """What its channel's index says about it."""

    @property
    def line(self) -> str:
        """Return its line in the explicit lists that all of conda's programs read."""
        md5 = self.facts.get("md5")
        return f"{self.url}#{md5}" if md5 else self.url


def packages(prefix: Path) -> tuple[CondaPackage, ...]:
    """Return the packages of a prefix, each after what it depends on."""
    try:
        records = [json.loads(file.read_bytes()) for file in sorted((prefix / FOLDER).glob("*.json"))]
    except (OSError, ValueError) as error:
        raise EnvironmentBuildError(f"cannot read what conda installed into {prefix}: {error}") from error
    if not records:
        raise EnvironmentBuildError(f"conda installed nothing into {prefix}")
    return tuple(_package(record, prefix) for record in _in_order(records))


def distributions(prefix: Path) -> dict[str, str]:
    """Return dist-info folder -> conda package, for what pip would call installed; unreadable records have none."""
    found = {}
    for file in sorted((prefix / FOLDER).glob("*.json")):
        for path in listed(file) or ():
            parent = PurePosixPath(path).parent.name
            if parent.endswith(INFO):
                found[parent] = file.stem
    return found


def kept_distributions(prefix: Path) -> dict[str, str]:
    """Return the same without those that pip has replaced, or that have been removed."""
    there = {info.name for info in prefix.glob(f"lib/python3*/site-packages/*{INFO}")}
    return {info: package for info, package in distributions(prefix).items() if info in there}


def listed(record: Path) -> dict[str, dict[str, Any]] | None:
    """Return path -> what is known of the file, for the files of one package; None when its record is unreadable."""
    try:
        return {str(item["_path"]): item for item in json.loads(record.read_bytes())["paths_data"]["paths"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget(prefix: Path, names: Iterable[str]) -> None:
    """Take packages out of conda's cache, where the files of a prefix are links to: they are as damaged there."""
    for name in names:
        try:
            source = json.loads((prefix / FOLDER / f"{name}.json").read_bytes())["extracted_package_dir"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(source, str) and (Path(source) / "info/index.json").is_file():
            shutil.rmtree(source, ignore_errors=True)  # another user's cache is not ours to repair


def _in_order(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sort by dependency; where packages depend on each other in a circle, by name."""
    by_name = {record["name"]: record for record in records}
    ordered: dict[str, Mapping[str, Any]] = {}
    open_names: set[str] = set()

    def add(name: str) -> None:
        if name in ordered or name in open_names or name not in by_name:
            return
        open_names.add(name)
        for line in by_name[name].get("depends", ()):
            add(re.split(r"[\s=<>!~\[]", line.strip(), maxsplit=1)[0])
        ordered[name] = by_name[name]

    for name in sorted(by_name):
        add(name)
    return [*ordered.values()]


def _package(record: Mapping[str, Any], prefix: Path) -> CondaPackage:
    url = record.get("url")
    if not url:
        raise EnvironmentBuildError(f"conda does not say where {record.get('name')} in {prefix} came from")
    facts = {name: record[name] for name in _FACTS if record.get(name) is not None}
    return CondaPackage(_CREDENTIALS.sub("", url), facts)
