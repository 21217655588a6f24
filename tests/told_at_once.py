"""Failures are printed when they happen: a session that its time limit ends prints no summary."""

from __future__ import annotations

import pytest


class ToldAtOnce:
    """Prints each failed test's name, phase and last lines."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if not report.failed or terminal is None:
            return
        terminal.ensure_newline()
        terminal.write_line(f"FAILED {report.nodeid} ({report.when}, {report.duration:.0f} s)", red=True)
        for line in report.longreprtext.splitlines()[-25:]:
            terminal.write_line(f"    {line}")


def pytest_configure(config: pytest.Config) -> None:
    """Register where there is a terminal: not in the processes of pytest-xdist."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(ToldAtOnce(config), "told-at-once")
