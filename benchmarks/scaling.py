"""What running under this backend costs: training speed, and a flood of log lines.

``training``: a small convolutional network on random pictures, one thread for each rank, on 1 and 2 ranks, started by
``torchrun`` and by a job with ``"torchrun"``, by ``horovodrun`` and by a job with ``"horovod"``. Every rank counts its
pictures per second after a warm-up of ten seconds; the sum over the ranks counts. Goal: a job at least 0.98 of the bare
launcher. The warm-up hides one cost of a job: its agent loads MLflow beside the ranks, which takes about two seconds of
the ranks' time where they use all cores.

``lines``: two ranks print half a million lines each, in a job and below ``torchrun`` with its output in files
(``--redirects 3``). Goals: the job's ranks take at most 1.05 of the time, the agent less than 200 MB.

Needs an interpreter with torch, Horovod and this package:
``python benchmarks/scaling.py --python ENV/bin/python [--rounds 5] [--steps 400] [--lines 1000000]``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

TRAIN = """
import json, os, sys, time
import torch
if "HOROVOD_SIZE" in os.environ:
    import horovod.torch as hvd
    hvd.init()
    rank = hvd.rank()
elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
    import torch.distributed as dist
    dist.init_process_group("gloo")
    rank = dist.get_rank()
else:
    rank = 0
torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 16, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, stride=2), torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 2),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
if "HOROVOD_SIZE" in os.environ:
    optimizer = hvd.DistributedOptimizer(optimizer, model.named_parameters())
elif "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1:
    model = torch.nn.parallel.DistributedDataParallel(model)
pictures, labels = torch.randn(16, 3, 64, 64), torch.randint(0, 2, (16,))
def step():
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(pictures), labels).backward()
    optimizer.step()
warm = time.perf_counter() + 10
goes_on = torch.ones(1)
while goes_on:
    step()
    goes_on = torch.tensor([float(time.perf_counter() < warm)])
    if "HOROVOD_SIZE" in os.environ:
        goes_on = hvd.broadcast(goes_on, root_rank=0, name="warm")
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.broadcast(goes_on, 0)
count, began = 0, time.perf_counter()
while count < {steps}:
    step()
    count += 1
speed = 16 * count / (time.perf_counter() - began)
with open(os.path.join({results!r}, f"{{rank}}.json"), "w") as handle:
    json.dump(speed, handle)
if isinstance(model, torch.nn.parallel.DistributedDataParallel):
    dist.barrier()
    dist.destroy_process_group()
"""
PRINT = """
import json, os, time
rank = os.environ["RANK"]
began = time.perf_counter()
for number in range({lines}):
    print("step", number, "loss 0.123456 accuracy 0.9876 learning rate 0.001", flush=True)
with open(os.path.join({results!r}, f"{{rank}}.json"), "w") as handle:
    json.dump(time.perf_counter() - began, handle)
"""


class Bench:
    """Runs a script bare and as a job, and reads what its ranks have measured."""

    def __init__(self, folder: Path, python: Path) -> None:
        self._folder = folder
        self._python = python
        self.results = folder / "results"
        self.results.mkdir()
        self.agent_megabytes = 0.0

    def bare(self, script: str, *command: str) -> list[float]:
        """Below a launcher's command line."""
        path = self._folder / "script.py"
        path.write_text(script, encoding="utf-8")
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environ["OMP_NUM_THREADS"] = "1"
        with (self._folder / "bare.log").open("wb") as log:
            subprocess.run([*command, str(path)], cwd=self._folder, env=environ, stdout=log, stderr=log, check=True)
        return self._measured()

    def job(self, script: str, kind: str, ranks: int) -> list[float]:
        """As a job."""
        from mlflow.tracking import MlflowClient

        from mlflow_pytorch_estimator.jobdir import JobDir
        from mlflow_pytorch_estimator.schedulers import load_scheduler
        from mlflow_pytorch_estimator.spec import Distribution, InterpreterSpec, JobSpec
        from mlflow_pytorch_estimator.status import Phase

        staged, lock = JobDir.stage()
        staged.source.mkdir()
        (staged.source / "script.py").write_text(script, encoding="utf-8")
        run_id = MlflowClient().create_run("0").info.run_id
        directory = staged.settle(run_id)
        interpreter = InterpreterSpec("local", python=str(self._python))
        distribution = Distribution(kind, ranks)
        job = JobSpec(run_id, "0", "bench", "main", "python script.py", {}, interpreter, distribution=distribution)
        directory.write_job(job)
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        load_scheduler("local").submit(job, directory, lock, environ)
        lock.close()
        watcher = threading.Thread(target=self._watch, args=(directory.agent, run_id), daemon=True)
        watcher.start()
        while directory.outcome is None:
            time.sleep(0.1)
        while directory.alive:
            time.sleep(0.1)
        if directory.outcome.phase is not Phase.COMPLETED:
            raise RuntimeError(f"{kind}: {directory.outcome}")
        return self._measured()

    def _watch(self, record: Path, _run_id: str) -> None:
        """The agent's largest resident size, from /proc."""
        while not record.exists():
            time.sleep(0.05)
        pid = json.loads(record.read_text(encoding="utf-8"))["pid"]
        while True:
            try:
                lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
            except OSError:
                return
            for line in lines:
                if line.startswith("VmHWM:"):
                    self.agent_megabytes = max(self.agent_megabytes, int(line.split()[1]) / 1024)
            time.sleep(0.2)

    def _measured(self) -> list[float]:
        found = sorted(self.results.glob("*.json"))
        values = [float(json.loads(path.read_text(encoding="utf-8"))) for path in found]
        for path in found:
            path.unlink()
        if not values:
            raise RuntimeError("no rank has measured anything")
        return values


Way = Callable[[], float]


def in_turn(ways: dict[str, Way], rounds: int) -> dict[str, float]:
    """The medians of all ways, measured A B B A ...; the first round is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in ways if number % 2 else reversed(ways):
            value = ways[name]()
            if number:
                found[name].append(value)
    for name, values in found.items():
        print(f"{name:<24} {statistics.median(values):10.1f} ({min(values):.1f} to {max(values):.1f})")
    return {name: statistics.median(values) for name, values in found.items()}


def training(bench: Bench, python: Path, rounds: int, steps: int) -> None:
    """Pictures per second."""
    script = TRAIN.format(steps=steps, results=str(bench.results))
    bin_ = python.parent
    print(f"training, {rounds} rounds of {steps} steps; pictures per second of all ranks, median (range)")
    for ranks in (1, 2):
        found = in_turn(
            {
                f"torchrun, {ranks}": lambda n=ranks: sum(  # type: ignore[misc]  # a default binds it
                    bench.bare(script, str(bin_ / "torchrun"), "--standalone", "--nproc_per_node", str(n))
                ),
                f"job, torchrun, {ranks}": lambda n=ranks: sum(bench.job(script, "torch", n)),  # type: ignore[misc]
                f"horovodrun, {ranks}": lambda n=ranks: sum(  # type: ignore[misc]
                    bench.bare(script, str(bin_ / "horovodrun"), "-np", str(n), "--gloo", str(python))
                ),
                f"job, horovod, {ranks}": lambda n=ranks: sum(bench.job(script, "horovod", n)),  # type: ignore[misc]
            },
            rounds,
        )
        for job, bare in (("job, torchrun", "torchrun"), ("job, horovod", "horovodrun")):
            print(f"{job} / {bare}, {ranks}: {found[f'{job}, {ranks}'] / found[f'{bare}, {ranks}']:.3f}")


def lines(bench: Bench, python: Path, rounds: int, count: int) -> None:
    """Seconds for the slower rank to print its lines."""
    script = PRINT.format(lines=count // 2, results=str(bench.results))
    folder = str(bench.results.parent / "torchrun")
    command = (
        str(python.parent / "torchrun"),
        "--standalone",
        "--nproc_per_node",
        "2",
        "--log_dir",
        folder,
        "--redirects",
        "3",
    )
    print(f"{count} lines from two ranks, {rounds} rounds; seconds of the slower rank, median (range)")
    ways: dict[str, Way] = {
        "torchrun": lambda: max(bench.bare(script, *command)),
        "job": lambda: max(bench.job(script, "torch", 2)),
    }
    found = in_turn(ways, rounds)
    print(f"job / torchrun: {found['job'] / found['torchrun']:.3f}; agent: {bench.agent_megabytes:.0f} MB at most")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--only", choices=("training", "lines"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, python = Path(name), arguments.python.absolute()
        os.environ["GPU_CLUSTER_HOME"] = str(folder / "home")
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        bench = Bench(folder, python)
        print(f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}")
        if arguments.only != "lines":
            training(bench, python, arguments.rounds, arguments.steps)
        if arguments.only != "training":
            lines(bench, python, arguments.rounds, arguments.lines)


if __name__ == "__main__":
    main()
