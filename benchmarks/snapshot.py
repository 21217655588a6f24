"""What a source snapshot costs: 20,000 small files, 2 GB in 20 files, and both, against ``cp -r`` and ``tar``.

Each round measures, on the same files and in an order that is turned round every time: the first submission (an empty
store), the second one (nothing has changed), ``cp -r``, ``tar`` into a file, and the working copy that the node makes.
Everything is warm in the page cache and nothing is synced, on either side. Prints medians, their ratios to ``cp -r``,
and the ratios of the fastest rounds, which say more on a machine with other work.
Usage: ``python benchmarks/snapshot.py [--rounds 5] [--folder /var/tmp] [--scale 1.0]``.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlflow_pytorch_estimator.snapshots import restore, take

SMALL_FILES, FOLDERS, LARGE_FILES, LARGE_BYTES = 20_000, 400, 20, 100 * 2**20
SETTLE_SECONDS = 4
IGNORE = "*.pyc\n__pycache__/\n/data/\n.env\n*.egg-info/\nbuild/\ndist/\n/docs/_build\n*.log\n.DS_Store\n"
GOALS = {"first": 1.3, "second": 0.1}


def create(top: Path, scale: float) -> None:
    """Write the files: sources of 0.5 to 8 KB in packages of two levels, and data that nothing can compress."""
    drawn = random.Random(0)
    for number in range(round(SMALL_FILES * scale)):
        module = number % FOLDERS
        path = top / "small" / f"package_{module // 20}" / f"module_{module}" / f"file_{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn.randbytes(drawn.randint(500, 8_000)))
    (top / "large").mkdir()
    for number in range(LARGE_FILES):
        (top / "large" / f"shard_{number}.bin").write_bytes(drawn.randbytes(round(LARGE_BYTES * scale)))
    for folder in (top, top / "small", top / "large"):
        (folder / ".gitignore").write_text(IGNORE, encoding="utf-8")


def seconds(action: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


class Round:
    """One round on one project, with everything that it writes in a folder of its own."""

    def __init__(self, project: Path, folder: Path) -> None:
        folder.mkdir()
        self.project = project
        self.folder = folder
        self.store = folder / "home" / "snapshots"

    def submissions(self) -> dict[str, float]:
        """First and second submission, then the working copy."""
        first = seconds(lambda: take(self.project, self.store))
        second = seconds(lambda: take(self.project, self.store))
        snapshot = take(self.project, self.store)
        assert snapshot.reused
        return {
            "first": first,
            "second": second,
            "restore": seconds(lambda: restore(self.store, snapshot.digest, self.folder / "restored")),
        }

    def copy(self) -> dict[str, float]:
        """``cp -r``."""
        return {"cp -r": _command(["cp", "-r", str(self.project), str(self.folder / "copied")])}

    def tar(self) -> dict[str, float]:
        """``tar`` into a file; /dev/null it would notice, and not read anything."""
        return {"tar": _command(["tar", "-cf", str(self.folder / "project.tar"), "-C", str(self.project), "."])}

    def run(self, number: int) -> dict[str, float]:
        """All three, beginning with another one each time."""
        steps = [self.submissions, self.copy, self.tar]
        turned = steps[number % 3 :] + steps[: number % 3]
        return {name: value for step in turned for name, value in step().items()}


def _command(command: list[str]) -> float:
    return seconds(lambda: subprocess.run(command, check=True))


def show(what: str, timings: list[dict[str, float]]) -> None:
    """Print one table."""
    print(f"\n{what:<16}{'seconds':>9} {'(min to max)':<18}{'to cp -r':>9}{'fastest':>9}{'goal':>6}")
    copied = [timing["cp -r"] for timing in timings]
    for name in ("cp -r", "tar", "first", "second", "restore"):
        values = [timing[name] for timing in timings]
        middle = statistics.median(values)
        spread = f"({min(values):.3f} to {max(values):.3f})"
        ratios = f"{middle / statistics.median(copied):9.2f}{min(values) / min(copied):9.2f}"
        goal = f"{GOALS[name]:6.1f}" if name in GOALS else ""
        print(f"{name:<16}{middle:9.3f} {spread:<18}{ratios}{goal}")


def measure(source: Path, folder: Path, rounds: int) -> None:
    """Measure each project, and print."""
    projects = {"small files": source / "small", "large files": source / "large", "both": source}
    timings: dict[str, list[dict[str, float]]] = {what: [] for what in projects}
    for number in range(rounds + 1):
        for what, project in projects.items():
            place = folder / f"{number}-{project.name}"
            timing = Round(project, place).run(number)
            if number:  # the first round warms the page cache
                timings[what].append(timing)
            _remove_large(place)
    for what in projects:
        show(what, timings[what])


def _remove_large(folder: Path) -> None:
    # The small ones stay to the end: ext4 avoids inodes that were freed in the last minute, and would spend more time
    # on stepping over them than on the copy.
    for root, _, names in os.walk(folder):
        for path in (Path(root, name) for name in names):
            if path.lstat().st_size > 2**20:
                path.unlink()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work; needs about 10 GB")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of small and the size of large files")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="snapshot-", dir=arguments.folder))
    try:
        (folder / "project").mkdir()
        create(folder / "project", arguments.scale)
        time.sleep(SETTLE_SECONDS)  # a file that was just written is read again by the next submission, on purpose
        print(f"{arguments.rounds} rounds, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}; page cache warm")
        print("and nothing synced on both sides; seconds, median (min to max)")
        measure(folder / "project", folder, arguments.rounds)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    import logging

    logging.disable(logging.WARNING)  # that the project is large is known
    main()
