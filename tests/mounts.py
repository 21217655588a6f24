"""File systems of a test's own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """A function that mounts something over a folder, or skips the test with the reason."""
    mounted: list[Path] = []

    def do(folder: Path, *arguments: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", *arguments, folder], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
        if folder not in mounted:
            mounted.append(folder)
        return folder

    yield do
    for folder in reversed(mounted):
        _unmount(folder)


def _unmount(folder: Path) -> None:
    """Slurm's daemons let go of a job's folder some time after the job."""
    end = time.monotonic() + 30
    while (done := subprocess.run(["umount", folder], capture_output=True, text=True, check=False)).returncode:
        assert "target is busy" in done.stderr, done.stderr
        assert time.monotonic() < end, f"{folder} is in use by somebody whom the test has started"
        time.sleep(0.2)
