"""The files of a project that belong to its sources, each looked at with one ``lstat``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.snapshots import ignore

_SKIPPED = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        "__pycache__",
        ".ipynb_checkpoints",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".tox",
        ".nox",
        "node_modules",
        ".gpu-cluster",
    }
)
_RESULTS = frozenset({"mlruns", "mlartifacts", "outputs", "mlflow.db", "mlflow.db-shm", "mlflow.db-wal"})
_OURS = ("", "jobs", "envs", "queue", "compute", "snapshots")

Stats = dict[str, os.stat_result]
"""Path relative to the project -> what ``lstat`` said."""


@dataclass
class Found:
    """What a walk found; a folder comes before what is in it."""

    folders: Stats = field(default_factory=dict)
    files: Stats = field(default_factory=dict)
    links: Stats = field(default_factory=dict)


def walk(top: Path, home: Path, subdirectory: str = "") -> Found:
    """Find all files but version control, caches, virtual environments, old results and what is ignored.

    Old results lie in ``top`` or in its ``subdirectory``; ``home`` is our own directory, which may lie in the project.
    """
    walker = _Walker(top, home, subdirectory)
    pending: list[tuple[str, tuple[ignore.Rules, ...]]] = [("", ())]
    while pending:
        pending += reversed(walker.visit(*pending.pop()))
    return walker.found


def takes(top: Path, home: Path, script: str) -> bool:
    """Whether a file would be among the sources; looks along its path only."""
    walker, path = _Walker(top, home, ""), ""
    rules: dict[str, tuple[ignore.Rules, ...]] = {path: ()}
    for part in Path(script).parent.parts:
        rules = dict(walker.visit(path, rules[path]))
        path += f"{part}/"
        if path[:-1] in walker.found.links:
            return True
        if path not in rules:
            return False
    walker.visit(path, rules[path])
    return script in walker.found.files or script in walker.found.links


class _Walker:
    def __init__(self, top: Path, home: Path, subdirectory: str) -> None:
        self.found = Found()
        self._top = top
        self._ours = _identities(home / name for name in _OURS)
        self._with_results = _identities((top, top / subdirectory))

    def visit(self, path: str, above: tuple[ignore.Rules, ...]) -> list[tuple[str, tuple[ignore.Rules, ...]]]:
        """Look at one folder; returns the folders in it, with the rules that hold there, the deepest first."""
        folder = f"{self._top}/{path}"
        try:
            names = sorted(os.listdir(folder))  # noqa: PTH208 - paths cost as much as all the rest
            here = os.lstat(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise unreadable(path or folder, error) from error
        if path:
            if "pyvenv.cfg" in names:
                return []
            self.found.folders[path[:-1]] = here
        rules = (*_rules(folder, path, names), *above)
        skipped = _SKIPPED | _RESULTS if _identity(here) in self._with_results else _SKIPPED
        inner = self._sort(folder, path, [name for name in names if name not in skipped], rules)
        return [(f"{name}/", rules) for name in inner]

    def _sort(self, folder: str, path: str, names: list[str], rules: tuple[ignore.Rules, ...]) -> list[str]:
        """Put files and links where they belong; returns the folders."""
        files, links, inner = self.found.files, self.found.links, []
        for name in names:
            try:
                stats = os.lstat(f"{folder}{name}")
            except FileNotFoundError:
                continue  # an editor's temporary file
            except OSError as error:
                raise unreadable(f"{path}{name}", error) from error
            kind = stat.S_IFMT(stats.st_mode)
            where = f"{path}{name}"
            if rules and _is_ignored(rules, name, where, "/" if kind == stat.S_IFDIR else ""):
                continue
            if kind == stat.S_IFREG:
                files[where] = stats
            elif kind == stat.S_IFLNK:
                links[where] = stats
            elif kind == stat.S_IFDIR and _identity(stats) not in self._ours:
                inner.append(where)
        return inner  # sockets, pipes and devices are no sources


def unreadable(path: str, error: OSError) -> ProjectError:
    """The error about a file or folder of the project."""
    return ProjectError(
        f"cannot read {path!r} of the project: {error.strerror}; make it readable or name it in .amlignore"
    )


def _rules(folder: str, path: str, names: list[str]) -> tuple[ignore.Rules, ...]:
    texts = []
    for name in ignore.NAMES:
        if name in names:
            try:
                if stat.S_ISREG(os.lstat(f"{folder}{name}").st_mode):
                    texts.append(Path(f"{folder}{name}").read_bytes().decode(errors="surrogateescape"))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise unreadable(f"{path}{name}", error) from error
    found = ignore.parse(texts, len(path)) if texts else None
    return (found,) if found else ()


def _is_ignored(rules: tuple[ignore.Rules, ...], name: str, path: str, slash: str) -> bool:
    for rule in rules:
        verdict = rule.verdict(name, path, slash)
        if verdict is not None:
            return verdict
    return False


def _identity(stats: os.stat_result) -> tuple[int, int]:
    return stats.st_dev, stats.st_ino


def _identities(paths: Iterable[Path]) -> set[tuple[int, int]]:
    return {_identity(path.stat()) for path in paths if path.exists()}
