"""What ``test_checkpoint.py`` has killed: processes that save, and ranks that train.

A script, which imports torch once and forks them all:

python checkpoint_programs.py kills FOLDER SEED    twenty savers, each killed at a random moment
python checkpoint_programs.py trainings PLANS      trainings, one after the other; PLANS is JSON, a list of ``Plan``

Both answer with JSON on standard output.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from mlflow_pytorch_estimator import Checkpoint

TRIALS = 20
EPOCHS, ROWS, BATCH = 5, 48, 8
"""Thirty steps of one process, fifteen of two ranks."""


# Savers in a tight loop.


class Filled(nn.Module):
    """Two MB, every number the same: a file put together from two saves would show."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1 << 19))


def save_forever(folder: Path, report: int) -> None:
    model = Filled()
    checkpoint = Checkpoint(model, folder=folder, step=0)
    checkpoint.restore()
    while True:
        checkpoint.step += 1
        nn.init.constant_(model.weight, float(checkpoint.step))
        checkpoint.save()
        os.write(report, b"%d\n" % checkpoint.step)


def kill_savers(folder: Path, seed: int) -> list[dict[str, Any]]:
    drawn = random.Random(seed)
    return [_one_kill(folder, drawn.uniform(0.0, 0.25)) for _ in range(TRIALS)]


def _one_kill(folder: Path, delay: float) -> dict[str, Any]:
    """Let a saver complete one save at least, kill it after so many seconds, and restore what it left."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        save_forever(folder, writing)
    os.close(writing)
    told = os.read(reading, 1 << 16)
    time.sleep(delay)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    while piece := os.read(reading, 1 << 16):
        told += piece
    os.close(reading)
    half_written = list(folder.glob(".*.tmp"))
    model = Filled()
    checkpoint = Checkpoint(model, folder=folder, step=0)
    restored = checkpoint.restore()
    return {
        "restored": restored,
        "step": checkpoint.step,
        "reported": int(told.split()[-1]),
        "whole": bool((model.weight == checkpoint.step).all()),
        "in the midst": bool(half_written),
    }


# A training in which every generator of random numbers matters.


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 2))


class Training:
    """One rank of it."""

    def __init__(self, folder: Path, rank: int, size: int) -> None:
        drawn = torch.Generator().manual_seed(1)
        data = TensorDataset(torch.randn(ROWS, 6, generator=drawn), torch.randn(ROWS, 2, generator=drawn))
        self.sampler: Any = DistributedSampler(data, seed=3) if size > 1 else None
        self.loader: Any = DataLoader(data, BATCH, shuffle=self.sampler is None, sampler=self.sampler)
        plain = network(0)
        self.model: nn.Module = nn.parallel.DistributedDataParallel(plain) if size > 1 else plain
        # Two optimizers, so that both kinds of state are there.
        self.optimizers = (
            torch.optim.SGD(plain[0].parameters(), lr=0.05, momentum=0.9),
            torch.optim.Adam([*plain[1].parameters(), *plain[4].parameters()], lr=0.01),
        )
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizers[0], [2, 4], 0.5)
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(11 + rank)
        self.checkpoint = Checkpoint(
            self.model, *self.optimizers, self.schedule, folder=folder / "checkpoints", epoch=0, step=0
        )

    def run(self, kill: str) -> None:
        self.checkpoint.restore()
        with (self.checkpoint.folder.parent / "starts").open("a") as file:
            file.write(f"{self.checkpoint.epoch}\n")
        while self.checkpoint.epoch < EPOCHS:
            if self.sampler is not None:
                self.sampler.set_epoch(self.checkpoint.epoch)
            for inputs, targets in self.loader:
                self._step(inputs, targets)
                self.checkpoint.step += 1
                _die_at(kill, f"step {self.checkpoint.step}")
            self.schedule.step()
            self.checkpoint.epoch += 1
            _die_at(kill, f"save {self.checkpoint.epoch}")
            self.checkpoint.save()

    def _step(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        noise = random.gauss(0, 0.1) + np.random.normal(0, 0.1)
        loss: Any = nn.functional.mse_loss(self.model(inputs + noise), targets)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()


def _die_at(wanted: str, here: str) -> None:
    if wanted == here:
        os.kill(os.getpid(), signal.SIGKILL)


def train(folder: Path, rank: int, size: int, kill: str, store: Path) -> None:
    if size > 1:
        distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=size)
    training = Training(folder, rank, size)
    training.run(kill)
    weights = {key.removeprefix("module."): value for key, value in training.model.state_dict().items()}
    torch.save(
        {"weights": weights, "random": torch.rand(3), "step": training.checkpoint.step}, folder / f"end{rank}.pt"
    )
    if size > 1:
        distributed.destroy_process_group()


@dataclass(frozen=True)
class Plan:
    """A training of so many ranks, in which rank ``place`` kills itself at ``kill``: "step 17" or "save 2"."""

    folder: str
    ranks: int
    kill: str = ""
    place: int = 0

    def run(self) -> list[int]:
        """Start all ranks; the first one that fails takes the others with it. Returns their exit codes."""
        folder = Path(self.folder)
        folder.mkdir(exist_ok=True)
        store = folder / f"store-{time.monotonic_ns()}"
        started = [self._fork(folder, rank, store) for rank in range(self.ranks)]
        codes: dict[int, int] = {}
        while len(codes) < len(started):
            process, status = os.wait()
            codes[process] = os.waitstatus_to_exitcode(status)
            if codes[process]:
                for other in set(started) - set(codes):
                    os.kill(other, signal.SIGKILL)
        return [codes[process] for process in started]

    def _fork(self, folder: Path, rank: int, store: Path) -> int:
        process = os.fork()
        if process == 0:
            try:
                train(folder, rank, self.ranks, self.kill if rank == self.place else "", store)
            except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        return process


def main(mode: str, *rest: str) -> None:
    torch.set_num_threads(1)
    if mode == "kills":
        print(json.dumps(kill_savers(Path(rest[0]), int(rest[1]))))
    else:
        print(json.dumps([Plan(**plan).run() for plan in json.loads(rest[0])]))


if __name__ == "__main__":
    main(*sys.argv[1:])
