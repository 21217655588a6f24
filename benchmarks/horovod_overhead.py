"""What averaging gradients costs: Horovod as this project builds it, against torch.distributed, in the same processes.

A job of two ranks is submitted through the backend, which builds Horovod for its torch where that is not cached yet.
For tensors of the shapes of ResNet-18 and ResNet-50 each round averages all of them once with either library, in an
order that is turned round every time: Horovod with one asynchronous allreduce for each tensor, which it fuses, and
torch.distributed as DistributedDataParallel does it, copied into buckets of 25 MB and back. Both use Gloo, or NCCL
where there are two GPUs. Results are compared first. Prints medians of the slower rank, and their ratio.
Usage: ``python benchmarks/horovod_overhead.py [--rounds 20] [--ranks 2]``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODELS = ("resnet18", "resnet50")
BUCKET_BYTES = 25 * 2**20  # DistributedDataParallel's default
WARM_UP = 3
RESULT = "seconds.json"


class Averaging:
    """The gradients of one model on one rank, and both ways to average them."""

    def __init__(self, model: str, hvd: Any, device: str) -> None:
        import torch
        import torchvision

        self._hvd, self._torch = hvd, torch
        shapes = [parameter.shape for parameter in getattr(torchvision.models, model)().parameters()]
        generator = torch.Generator().manual_seed(hvd.rank())
        self._gradients = [torch.randn(shape, generator=generator).to(device) for shape in shapes]

    def horovod(self) -> list[Any]:
        """One operation for each tensor, fused by Horovod."""
        handles = [
            self._hvd.allreduce_async(gradient, name=str(number)) for number, gradient in enumerate(self._gradients)
        ]
        return [self._hvd.synchronize(handle) for handle in handles]

    def torch(self) -> list[Any]:
        """Buckets of 25 MB."""
        import torch.distributed

        buckets = [
            (self._torch.cat([self._gradients[number].flatten() for number in numbers]), numbers)
            for numbers in self._buckets()
        ]
        work = [torch.distributed.all_reduce(bucket, async_op=True) for bucket, _ in buckets]
        averaged: list[Any] = []
        for (bucket, numbers), handle in zip(buckets, work, strict=True):
            handle.wait()
            sizes = [self._gradients[number].numel() for number in numbers]
            parts = self._torch.split(bucket.div_(self._hvd.size()), sizes)
            averaged += [
                part.view(self._gradients[number].shape).clone() for part, number in zip(parts, numbers, strict=True)
            ]
        return averaged

    def _buckets(self) -> list[list[int]]:
        buckets: list[list[int]] = [[]]
        filled = 0
        for number, gradient in enumerate(self._gradients):
            if filled > BUCKET_BYTES:
                buckets.append([])
                filled = 0
            buckets[-1].append(number)
            filled += gradient.nbytes
        return buckets


def rank_main(rounds: int) -> None:
    """Measure, in each rank of the job."""
    import horovod.torch as hvd
    import torch
    import torch.distributed

    hvd.init()
    device = f"cuda:{hvd.local_rank()}" if torch.cuda.device_count() >= hvd.size() else "cpu"
    if device != "cpu":
        torch.cuda.set_device(device)
    # Torch's own meeting place: a file in the job's folder.
    meeting = f"file://{Path.cwd()}/meeting"
    torch.distributed.init_process_group(
        "gloo" if device == "cpu" else "nccl", init_method=meeting, rank=hvd.rank(), world_size=hvd.size()
    )
    found: dict[str, Any] = {"device": device.partition(":")[0], "torch": torch.__version__}
    for model in MODELS:
        averaging = Averaging(model, hvd, device)
        for one, other in zip(averaging.horovod(), averaging.torch(), strict=True):
            torch.testing.assert_close(one, other)
        ways: list[tuple[str, Callable[[], list[Any]]]] = [
            ("horovod", averaging.horovod),
            ("torch", averaging.torch),
        ]
        found[model] = {name: [] for name, _ in ways}
        for number in range(WARM_UP + rounds):
            for name, average in ways if number % 2 else reversed(ways):
                seconds = _slowest(hvd, average, device)
                if number >= WARM_UP:
                    found[model][name].append(seconds)
    if hvd.rank() == 0:
        Path("outputs").mkdir(exist_ok=True)
        (Path("outputs") / RESULT).write_text(json.dumps(found), encoding="utf-8")
    torch.distributed.destroy_process_group()


def _slowest(hvd: Any, average: Callable[[], list[Any]], device: str) -> float:
    """Seconds until the last rank has its averages."""
    import torch

    hvd.barrier()
    began = time.perf_counter()
    average()
    if device != "cpu":
        torch.cuda.synchronize()
    mine = torch.tensor(time.perf_counter() - began, dtype=torch.float64)
    return float(hvd.allreduce(mine, op=hvd.Max, name="seconds"))


def submit(folder: Path, rounds: int, ranks: int) -> dict[str, Any]:
    """Run the job and return what its first rank wrote."""
    import mlflow

    from mlflow_pytorch_estimator.jobdir import JobDir

    project = folder / "project"
    project.mkdir()
    shutil.copy(__file__, project / "horovod_overhead.py")
    (project / "requirements.txt").write_text("torch\ntorchvision\n", encoding="utf-8")
    (project / "MLproject").write_text(
        "name: horovod_overhead\nentry_points:\n  main:\n"
        f"    command: python horovod_overhead.py --rank-of-job --rounds {rounds}\n",
        encoding="utf-8",
    )
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    run = mlflow.projects.run(
        str(project),
        backend="gpu-cluster",
        backend_config={"distributed_training": "horovod", "process_count_per_node": ranks},
    )
    directory = JobDir.of_run(run.run_id)
    result: dict[str, Any] = json.loads((directory.outputs / RESULT).read_text(encoding="utf-8"))
    return result


def report(found: dict[str, Any]) -> None:
    """Print medians and ratios."""
    print(f"device {found['device']}, torch {found['torch']}")
    for model in MODELS:
        medians = {name: statistics.median(seconds) for name, seconds in found[model].items()}
        for name, seconds in found[model].items():
            print(f"{model:9} {name:8} {medians[name]:.4f} ({min(seconds):.4f} to {max(seconds):.4f}) s")
        print(f"{model:9} ratio    {medians['horovod'] / medians['torch']:.2f}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rank-of-job", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_of_job:
        rank_main(options.rounds)
        return
    print(f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}, {options.ranks} ranks, {options.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        report(submit(Path(folder), options.rounds, options.ranks))


if __name__ == "__main__":
    main()
