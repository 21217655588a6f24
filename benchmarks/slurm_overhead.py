"""What this backend costs on Slurm, against a bare ``sbatch`` of the same script in the same run.

Three questions, each on one real cluster, by default one of its own on this machine (``tests/slurm_cluster.py``):

- seconds from the submission, in a process that has MLflow loaded, to the first line of the user's script, in turn with
  ``sbatch``; with ``--commands`` also of the whole ``mlflow run`` against ``mlflow --version`` and then ``sbatch``;
- submissions per second of held jobs, in turn with a loop of ``sbatch``;
- how often the controller is asked while so many jobs are submitted, wait, and are all ended at once: programs of
  Slurm's names, first on PATH, count and start the real ones.

Usage: ``python benchmarks/slurm_overhead.py [--rounds 5] [--commands 3] [--jobs 200] [--seconds 60]``; with
``--here`` on the cluster of SLURM_CONF. Needs pytest, which the tests' cluster is a fixture of.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_COUNTED = ("squeue", "sacct", "scontrol", "sinfo", "sbatch", "scancel")
_QUERIES = ("squeue", "sacct", "scontrol", "sinfo")
_SCRIPT = (
    "import pathlib, sys, time\npathlib.Path({marks!r}, str(time.time_ns())).touch()\nprint('first', flush=True)\n"
)
_LIMIT_SECONDS = 120.0
_BATCH = 10


class Bench:
    """Submits the same script in both ways."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._marks = folder / "marks"
        self._marks.mkdir()
        self._calls = folder / "calls"
        self._project = folder / "project"
        self._project.mkdir()
        (self._project / "train.py").write_text(_SCRIPT.format(marks=str(self._marks)), encoding="utf-8")
        (self._project / "MLproject").write_text(
            "name: empty\nentry_points:\n  main:\n    command: python train.py\n", encoding="utf-8"
        )
        self._bare = folder / "bare.sh"
        self._bare.write_text(f"#!/bin/bash\nexec {sys.executable} {self._project}/train.py\n", encoding="utf-8")
        self._log = (folder / "commands.log").open("ab")

    def sbatch(self, *options: str) -> str:
        """Submit the bare way; returns the id."""
        fixed = ("--parsable", "--nodes=1", "--cpus-per-task=1", f"--output={self._folder}/bare.out")
        return _output("sbatch", *fixed, *options, str(self._bare))

    def submit(self, **options: object) -> object:
        """Submit by this backend, without waiting; returns the submitted run."""
        import mlflow

        config = {"scheduler": "slurm", "cpus_per_node": 1, "scheduler_options": options}
        return mlflow.projects.run(
            str(self._project), backend="gpu-cluster", backend_config=config, synchronous=False, env_manager="local"
        )

    def run_and_sbatch(self) -> None:
        """The least that shows in MLflow: a run that says that it waits, and the job."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient()
        client.update_run(client.create_run("0").info.run_id, status="SCHEDULED")
        self.sbatch("--hold", "--job-name=bare")

    def command(self) -> None:
        """Submit with a command of its own."""
        config = '{"scheduler": "slurm", "cpus_per_node": 1, "detach": true}'
        argv = ("run", str(self._project), "-b", "gpu-cluster", "-c", config, "--env-manager", "local")
        self._mlflow(*argv)

    def version_and_sbatch(self) -> None:
        """What a shell script would do that uses MLflow's command and Slurm's."""
        self._mlflow("--version")
        self.sbatch()

    def _mlflow(self, *argv: str) -> None:
        command = (sys.executable, "-m", "mlflow", *argv)
        subprocess.run(command, check=True, stdout=self._log, stderr=self._log, timeout=_LIMIT_SECONDS)

    def first_line(self, way: Callable[[], object]) -> float:
        """Seconds until the script's first line, from the call; waits until nothing of the job is left."""
        began = time.time()
        way()
        _until(lambda: any(self._marks.iterdir()), "the first line")
        (mark,) = self._marks.iterdir()
        mark.unlink()
        _until(lambda: not _output("squeue", "--noheader") and not self._watched(), "the end of the job")
        return int(mark.name) / 1e9 - began

    def _watched(self) -> bool:
        from mlflow_pytorch_estimator import jobdir, locks
        from mlflow_pytorch_estimator.schedulers.slurm import watcher

        return locks.is_held(watcher.folder() / "watcher.lock") if jobdir.home().exists() else False

    def rate(self, way: Callable[[], object], number: int) -> float:
        """Submissions per second."""
        began = time.perf_counter()
        for _ in range(number):
            way()
        return number / (time.perf_counter() - began)

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Have all calls of Slurm's programs counted, by this process and by those that it starts."""
        programs = self._folder / "bin"
        programs.mkdir()
        for name in _COUNTED:
            real = shutil.which(name)
            if real is not None:
                program = programs / name
                program.write_text(f'#!/bin/sh\necho {name} >>{self._calls}\nexec {real} "$@"\n', encoding="utf-8")
                program.chmod(0o755)
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{programs}:{before}"
        try:
            yield
        finally:
            os.environ["PATH"] = before

    @contextlib.contextmanager
    def queries(self, what: str) -> Iterator[None]:
        """Print how often Slurm is asked while the block runs."""
        self._calls.write_text("", encoding="utf-8")
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        calls = Counter(self._calls.read_text(encoding="utf-8").split())
        asked = sum(calls[name] for name in _QUERIES)
        said = ", ".join(f"{number} {name}" for name, number in sorted(calls.items())) or "none"
        print(f"queries     {what:<10} {asked / seconds:.2f} per second ({said} in {seconds:.0f} s)", flush=True)


def _output(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=_LIMIT_SECONDS)
    return done.stdout.strip()


def _until(condition: Callable[[], bool], what: str, seconds: float = _LIMIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} has not come within {seconds:.0f} s")
        time.sleep(0.02)


def _row(what: str, side: str, values: Sequence[float], unit: str) -> float:
    middle = statistics.median(values)
    print(f"{what:<11} {side:<26} {middle:.2f} ({min(values):.2f} to {max(values):.2f}) {unit}", flush=True)
    return middle


def first_lines(what: str, bench: Bench, rounds: int, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    """Both ways in turn; the first round fills caches and is not counted."""
    ways = {"gpu-cluster": ours, "sbatch": theirs}
    found: dict[str, list[float]] = {side: [] for side in ways}
    for number in range(rounds + 1):
        for side in ways if number % 2 else reversed(ways):
            seconds = bench.first_line(ways[side])
            print(f"# round {number} {side} {seconds:.2f}", file=sys.stderr, flush=True)
            if number:
                found[side].append(seconds)
    difference = _row(what, "gpu-cluster", found["gpu-cluster"], "s") - _row(what, "sbatch", found["sbatch"], "s")
    print(f"{what:<11} difference                 {difference:+.2f} s", flush=True)


def rates(bench: Bench, jobs: int) -> None:
    """Submit so many held jobs, and as many with ``sbatch`` alone, in turns."""
    found: dict[str, list[float]] = {"gpu-cluster": [], "run and sbatch": [], "sbatch": []}
    bench.submit(hold=True)  # the watcher starts, and what the first submission alone has to do is done
    for _ in range(0, jobs - 1, _BATCH):
        found["sbatch"].append(bench.rate(lambda: bench.sbatch("--hold", "--job-name=bare"), _BATCH))
        found["run and sbatch"].append(bench.rate(bench.run_and_sbatch, _BATCH))
        found["gpu-cluster"].append(bench.rate(lambda: bench.submit(hold=True), _BATCH))
    _output("scancel", "--name=bare")
    ours = _row("submissions", "gpu-cluster", found["gpu-cluster"], "per second")
    least = _row("submissions", "run and sbatch", found["run and sbatch"], "per second")
    theirs = _row("submissions", "sbatch", found["sbatch"], "per second")
    print(
        f"submissions ratio                      {ours / theirs:.2f}, {ours / least:.2f} of run and sbatch", flush=True
    )


def watching(bench: Bench, jobs: int, seconds: float) -> None:
    """Count questions while jobs come, wait and go."""
    from mlflow_pytorch_estimator.jobdir import JobDir, home

    with bench.counting():
        with bench.queries("submitting"):
            rates(bench, jobs)
        with bench.queries("waiting"):
            time.sleep(seconds)
        directories = [JobDir(path) for path in (home() / "jobs").iterdir()]
        with bench.queries("ending"):
            _output("scancel", "--state=PENDING", "--me")
            _until(lambda: all(item.delivered.exists() for item in directories), "the end of all jobs", 600)
    print(f"{len(directories)} job directories, all delivered")


@contextlib.contextmanager
def _cluster(here: bool) -> Iterator[None]:
    if here:
        yield
        return
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from slurm_cluster import cluster, missing

    if missing():
        raise SystemExit(f"Slurm is not installed: no {missing()} (apt install slurm-wlm munge)")
    with cluster(static=2) as slurm:
        os.environ["SLURM_CONF"] = str(slurm.conf)
        yield


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--commands", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--here", action="store_true", help="on the cluster of SLURM_CONF")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # the cluster ends with this process
    with tempfile.TemporaryDirectory() as name, _cluster(arguments.here):
        folder = Path(name)
        os.environ["GPU_CLUSTER_HOME"] = str(folder / "home")
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        os.chdir(folder)
        bench = Bench(folder)
        print(f"{os.cpu_count()} CPUs, {_output('sbatch', '--version')}; median (min to max)", flush=True)
        if arguments.rounds:
            first_lines("first line", bench, arguments.rounds, bench.submit, bench.sbatch)
        if arguments.commands:
            first_lines("command", bench, arguments.commands, bench.command, bench.version_and_sbatch)
        if arguments.jobs:
            watching(bench, arguments.jobs, arguments.seconds)


if __name__ == "__main__":
    main()
