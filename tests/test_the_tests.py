"""No test may pass without asserting anything."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FILES = sorted(Path(__file__).parent.glob("test_*.py"))
_CHECKING_CALLS = {"raises", "warns", "fail", "wait_until"}


def _asserts(function: ast.AST, helpers: dict[str, ast.AST], seen: frozenset[str] = frozenset()) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in _CHECKING_CALLS:
                return True
            if name in helpers and name not in seen and _asserts(helpers[name], helpers, seen | {name}):
                return True
    return False


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_test_asserts(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    silent = [
        name
        for name, function in functions.items()
        if name.startswith("test_") and not _asserts(function, dict(functions))
    ]
    assert silent == []
