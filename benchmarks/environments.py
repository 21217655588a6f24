"""What an environment costs: torch, torchvision, MLflow and ONNX, built here, by plain uv, and by MLflow's managers.

The download caches of uv and pip are warm; environments are new each time. Three tables:

environment  ``uv venv`` and ``uv pip install`` of the same lines, against ``prepare`` as a job calls it, new (it
             resolves, installs and lists), from a kept lock, and the same specification again;
command      ``mlflow run`` of a project that does nothing, with MLflow's own backend and its managers virtualenv and
             uv, against ``-b gpu-cluster``, each with a new environment;
again        the same commands once more, with the environment there.

The ways take turns, the order is turned round every time, and the ratios are of medians.
Usage: ``python benchmarks/environments.py [--rounds 5] [--commands 1]``.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlflow_pytorch_estimator.environments import EnvironmentSpec, base, find_ready, prepare

PACKAGES = ("torch", "torchvision", "onnx", "onnxruntime", "onnxscript")
Way = Callable[[Path], float]


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def execute(*command: str, **variables: str) -> None:
    """Run a command; RuntimeError with its last lines when it fails."""
    done = subprocess.run(
        command,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-2000:]}")


class Environments:
    """The same packages with plain uv and as a job gets them."""

    def __init__(self) -> None:
        self._spec = EnvironmentSpec("uv", None, PACKAGES, (), "benchmark")
        self._lines = base.job_packages(self._spec, base.default_base())[0]

    def uv(self, folder: Path) -> float:
        """What anybody would type."""
        from uv import find_uv_bin

        target = folder / "uv"
        file = folder / "requirements.txt"
        file.write_text("\n".join(self._lines) + "\n", encoding="utf-8")

        def work() -> None:
            execute(find_uv_bin(), "venv", "--no-project", "--python", sys.executable, str(target))
            execute(find_uv_bin(), "pip", "install", "--python", str(target / "bin/python"), "-r", str(file))

        return timed(work)

    def new(self, folder: Path) -> float:
        """Nothing is known: resolve, install, list."""
        return timed(lambda: self._prepare(folder / "cache"))

    def locked(self, folder: Path) -> float:
        """The versions are kept, the environment has gone."""
        self._prepare(folder / "cache")
        for path in (folder / "cache").iterdir():
            if (path / "bin").is_dir():
                shutil.rmtree(path)
        return timed(lambda: self._prepare(folder / "cache"))

    def again(self, folder: Path) -> float:
        """The environment is there."""
        self._prepare(folder / "cache")
        found = []
        seconds = timed(lambda: found.append(find_ready(self._spec, folder, folder / "cache")))
        if found == [None]:
            raise RuntimeError("the environment was not found again")
        return seconds

    def _prepare(self, cache: Path) -> None:
        with open(os.devnull, "w", encoding="utf-8") as log:  # noqa: PTH123 - no path of ours
            prepare(self._spec, cache.parent, cache, log=log, cancelled=lambda: False, say=lambda _: None)


class Commands:
    """A project that does nothing, run by the command line."""

    def __init__(self, folder: Path) -> None:
        self._project = folder / "project"
        self._project.mkdir()
        (self._project / "MLproject").write_text(
            "name: empty\npython_env: python_env.yaml\nentry_points:\n  main:\n    command: python -c 'import torch'\n",
            encoding="utf-8",
        )
        listed = "".join(f"  - {line}\n" for line in ("mlflow", *PACKAGES))
        python = ".".join(map(str, sys.version_info[:3]))
        (self._project / "python_env.yaml").write_text(f'python: "{python}"\ndependencies:\n{listed}', encoding="utf-8")

    def run(self, home: Path, *options: str) -> float:
        """Seconds of the whole command; ``home`` is where environments go."""
        home.mkdir(exist_ok=True)
        variables = {
            "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
            "GPU_CLUSTER_HOME": str(home / "gpu-cluster"),
            "MLFLOW_ENV_ROOT": str(home / "mlflow"),
        }
        command = (sys.executable, "-m", "mlflow", "run", str(self._project), *options)
        return timed(lambda: execute(*command, **variables))


def missing_for_virtualenv() -> str:
    """What MLflow's virtualenv manager would miss; empty when it can run."""
    if importlib.util.find_spec("virtualenv") is None:
        return "the package virtualenv is not installed"
    return "" if shutil.which("pyenv") else "pyenv is not on PATH"


def in_turn(ways: dict[str, Way], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, after a round that warms caches and is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items() if number % 2 else reversed(ways.items()):
            with tempfile.TemporaryDirectory(prefix="environments-", dir=Path.home()) as folder:
                seconds = way(Path(folder))
            if number:
                found[name].append(seconds)
    return found


def report(title: str, found: dict[str, list[float]], reference: str) -> None:
    """Print medians, and ratios to one of the ways."""
    whole = statistics.median(found[reference])
    for name, seconds in found.items():
        middle = statistics.median(seconds)
        spread = f"{middle:8.3f} ({min(seconds):.3f} to {max(seconds):.3f})"
        print(f"{title:<12} {name:<12} {spread:<30} {middle / whole:.2f} of {reference}", flush=True)


def measure_commands(rounds: int) -> None:
    """Print the tables of whole commands."""
    options = {
        "gpu-cluster": ("-b", "gpu-cluster"),
        "virtualenv": ("--env-manager", "virtualenv"),
        "uv": ("--env-manager", "uv"),
    }
    problem = missing_for_virtualenv()
    if problem:
        print(f"command      virtualenv   not measured: {problem}")
        del options["virtualenv"]
    new: dict[str, list[float]] = {name: [] for name in options}
    again: dict[str, list[float]] = {name: [] for name in options}
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory(prefix="environments-", dir=Path.home()) as name:
            folder = Path(name)
            commands = Commands(folder)
            for way, words in options.items() if number % 2 else reversed(options.items()):
                first, second = (commands.run(folder / way, *words) for _ in range(2))
                if number:
                    new[way].append(first)
                    again[way].append(second)
    for title, found in (("command", new), ("again", again)):
        report(title, found, "gpu-cluster")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--commands", type=int, default=1, help="rounds of whole commands, which take minutes")
    given = parser.parse_args()
    print(
        f"{given.rounds} rounds, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}; seconds, median (min to max)"
    )
    ways = Environments()
    environment: dict[str, Way] = {"uv": ways.uv, "new": ways.new, "locked": ways.locked, "again": ways.again}
    report("environment", in_turn(environment, given.rounds), "uv")
    if given.commands:
        measure_commands(given.commands)


if __name__ == "__main__":
    main()
