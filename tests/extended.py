"""Tests that `make test` leaves to `make test-extended`: the other half of a pair whose one half it runs.

`extended.txt` names them, one a line. What stands there has a sibling that tests the same code with another value, such
as the other launcher or the other kind of store, so that nothing goes untested for being here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

_LIST = Path(__file__).with_name("extended.txt")


def names() -> list[str]:
    """The names as they stand in the list, each ``FILE::TEST``."""
    lines = (line.strip() for line in _LIST.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give them the marker; refuse a name that no test has any more."""
    left = set(names())
    for item in items:
        name = f"{item.path.name}::{item.nodeid.partition('::')[2]}"
        if name in left:
            left.discard(name)
            item.add_marker(pytest.mark.extended)
    whole = {item.path.name for item in items}
    if not any("::" in argument for argument in config.args):
        gone = sorted(name for name in left if name.partition("::")[0] in whole)
        if gone:
            raise pytest.UsageError(f"{_LIST.name} names tests that are not there: {', '.join(gone)}")
