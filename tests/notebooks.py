"""A JupyterLab in a browser without a window, with notebooks of the tests' own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from conftest import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

_START_SECONDS = 120.0
_PATIENCE = 90_000
_PLUGINS = "@jupyterlab/apputils-extension"


def browser() -> str:
    """The path of a Chromium; skips the test with the reason where there is none."""
    found = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no chromium: apt install chromium")
    return found


def write(path: Path, cells: Sequence[str]) -> None:
    """A notebook file."""
    empty: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    sources = [{**empty, "id": f"cell-{place}", "source": text} for place, text in enumerate(cells)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": sources}
    path.write_text(json.dumps(content), encoding="utf-8")


def environment(folder: Path) -> dict[str, str]:
    """Variables that keep Jupyter's files in a folder."""
    places = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython",
    }  # fmt: skip
    return {**os.environ, **{name: str(folder / part) for name, part in places.items()}, "PYTHONWARNINGS": ""}


def _settings(folder: Path, theme: str) -> None:
    own = folder / "settings" / _PLUGINS
    own.mkdir(parents=True)
    (own / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    (own / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme}))


@contextmanager
def lab(folder: Path, theme: str = "JupyterLab Light") -> Iterator[str]:
    """The address of a JupyterLab whose files are those of ``folder``/work; a name of a notebook goes behind it."""
    state = folder / "jupyter"
    _settings(state, theme)
    (folder / "work").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"),
        *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder / 'work'}", "--ServerApp.port_retries=0"),
    ]
    with (folder / "lab.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment(state), stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
        try:
            wait_until(lambda: _answers(port) or process.poll() is not None, _START_SECONDS, "JupyterLab")
            assert process.poll() is None, (folder / "lab.log").read_text()
            yield f"http://127.0.0.1:{port}/doc/tree/{{}}?token={token}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/api", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def page(width: int = 1100, height: int = 1100) -> Iterator[Page]:
    """A page of a browser."""
    from playwright.sync_api import sync_playwright

    path = browser()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            made = started.new_page(viewport={"width": width, "height": height})
            made.set_default_timeout(_PATIENCE)
            yield made
        finally:
            started.close()


@dataclass
class Notebook:
    """An open notebook."""

    page: Page

    @classmethod
    def opened(cls, page: Page, address: str) -> Notebook:
        page.goto(address)
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        # What is executed before the kernel answers is forgotten.
        page.wait_for_selector("#jp-main-statusbar >> text=/ipykernel.*Idle/")
        return cls(page)

    def cell(self, number: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(number)

    def execute(self, number: int, *, wait: bool = True) -> Locator:
        """Run a cell; returns its output."""
        cell = self.cell(number)
        cell.locator(".jp-InputArea-editor").click()
        self.page.keyboard.press("Shift+Enter")
        if wait:
            self.page.wait_for_function(
                "number => { const prompt = document.querySelectorAll('.jp-Notebook .jp-CodeCell')[number]"
                ".querySelector('.jp-InputPrompt'); return /\\[\\d+\\]/.test(prompt.textContent); }",
                arg=number,
            )
        return cell.locator(".jp-OutputArea-output")
