"""Runs distributed programs that others have published, unchanged, as jobs; for people, since no package holds them.

    python tests/public_scripts.py --python ENV/bin/python FOLDER

The interpreter has torch, torchvision, Horovod, MLflow, lightning, jsonargparse and tensorboardX. FOLDER holds clones,
each called as its repository: ``horovod`` (horovod/horovod), ``training-operator`` (kubeflow/training-operator at
v1.9.0) and ``pytorch-lightning`` (Lightning-AI/pytorch-lightning). What is absent is named and left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from conftest import finish
from mlflow.tracking import MlflowClient
from public_data import write_mnist
from rank_jobs import Jobs, everything

from mlflow_pytorch_estimator.spec import Distribution


@dataclass(frozen=True)
class Public:
    """A program, and how it is run."""

    name: str
    path: str
    """Below the folder of clones."""
    command: str
    """The program is ``a/b/c/program.py`` in the job, its data where it looks for them."""
    data: tuple[str, ...]
    """Folders."""
    words: str
    """What rank 0 prints when it has trained and tested."""
    distribution: Distribution
    nodes: int = 1
    pictures: tuple[int, int] = (4000, 1000)


_LIGHTNING = (
    "python a/b/c/program.py --trainer.accelerator cpu --trainer.devices 1 --trainer.num_nodes 2 --trainer.strategy ddp"
    " --trainer.max_epochs 1 --trainer.limit_train_batches 20 --trainer.limit_val_batches 4"
    " --trainer.limit_test_batches 4 --trainer.limit_predict_batches 2 --trainer.logger false"
)
PROGRAMS = (
    Public(
        "Horovod's MNIST",
        "horovod/examples/pytorch/pytorch_mnist.py",
        "python a/b/c/program.py --epochs 2 --data-dir data",
        ("data",),
        "Test set: Average loss",
        Distribution("horovod", 2),
    ),
    Public(
        "Horovod's MNIST on two nodes, half precision",
        "horovod/examples/pytorch/pytorch_mnist.py",
        "python a/b/c/program.py --epochs 2 --data-dir data --fp16-allreduce",
        ("data",),
        "Test set: Average loss",
        Distribution("horovod", 1),
        2,
    ),
    Public(
        "Horovod's elastic MNIST",
        "horovod/examples/elastic/pytorch/pytorch_mnist_elastic.py",
        "python a/b/c/program.py --epochs 2 --data-dir data",
        ("data",),
        "Test set: Average loss",
        Distribution("horovod", 1, None, 1),
        2,
    ),
    Public(
        "Kubeflow's FashionMNIST below torchrun",
        "training-operator/examples/pytorch/mnist/mnist.py",
        "cd a/b/c && python program.py --epochs 2 --save-model",
        ("a/b/data",),
        "accuracy=",
        Distribution("torch", 1),
        2,
    ),
    Public(
        "Lightning's autoencoder on two nodes",
        "pytorch-lightning/examples/pytorch/basics/autoencoder.py",
        _LIGHTNING,
        ("a/Datasets", "data"),
        "tensor(",
        Distribution("torch", 1),
        2,
        (60000, 2000),  # it splits the 60000 of the real one
    ),
)


def play(program: Public, script: Path, jobs: Jobs) -> str:
    """Run one; "" when it has done what it should."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        (source / "a/b/c").mkdir(parents=True)
        shutil.copyfile(script, source / "a/b/c/program.py")
        for folder in program.data:
            write_mnist(source / folder, *program.pictures)
        count = program.distribution.processes_per_node
        submitted = jobs.submit(
            "", count, program.nodes, command=program.command, distribution=program.distribution, files=source
        )
        done = finish(submitted)
    last = done.log.strip().splitlines()[-3:]
    print("\n".join(f"    {line}" for line in last))
    return "" if done.succeeded and program.words in done.log else everything(done)


def main() -> int:
    """Run what is there; the number of those that went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=os.path.abspath, default=sys.executable)
    parser.add_argument("clones", type=Path)
    arguments = parser.parse_args()
    clones = arguments.clones.absolute()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)  # where MLflow puts artifacts
        os.environ["GPU_CLUSTER_HOME"] = f"{name}/home"
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{name}/mlflow.db"
        jobs = Jobs(MlflowClient(), arguments.python)
        for program in PROGRAMS:
            script = clones / program.path
            print(f"{program.name}: {'running' if script.exists() else f'no {script}'}", flush=True)
            wrong = play(program, script, jobs) if script.exists() else ""
            failed += bool(wrong)
            print(wrong or "    ok" if script.exists() else "    left out", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(bool(main()))
