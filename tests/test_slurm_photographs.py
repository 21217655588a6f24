"""The root project on a real Slurm with real photographs: alone, with Horovod and with torch on two nodes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import horovod_built
import pytest
from conftest import ROOT, finish, submit
from mlflow.tracking import MlflowClient
from rank_jobs import everything
from slurm_cluster import Slurm

from mlflow_pytorch_estimator.status import Phase

TRAINING, VALIDATION = 20, 6
"""Photographs of each kind."""
TOGETHER = 8
"""Images of a step, of all ranks together: five steps, after which batch norm knows enough for sane numbers."""


@pytest.fixture
def few(photographs: Callable[[], Path], tmp_path: Path) -> Path:
    """A folder with some of the photographs."""
    for part, number in (("train", TRAINING), ("val", VALIDATION)):
        for kind in ("ants", "bees"):
            folder = tmp_path / "photographs" / part / kind
            folder.mkdir(parents=True)
            for photograph in sorted((photographs() / part / kind).glob("*.jpg"))[:number]:
                shutil.copyfile(photograph, folder / photograph.name)
    return tmp_path / "photographs"


@pytest.fixture
def horovod(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environments of jobs with Horovod are kept, with the compiled library."""
    request.getfixturevalue("horovod_environment")
    monkeypatch.setenv("GPU_CLUSTER_ENVIRONMENTS", str(horovod_built.HOROVOD_ENVIRONMENTS))


@pytest.mark.parametrize(
    ("entry_point", "nodes", "ranks"), [("main", 1, 1), ("ddp", 2, 1), ("horovod", 2, 1), ("horovod", 2, 2)]
)
def test_an_entry_point(
    request: pytest.FixtureRequest,
    store: MlflowClient,
    slurm: Slurm,
    few: Path,
    entry_point: str,
    nodes: int,
    ranks: int,
) -> None:
    if entry_point == "horovod":
        request.getfixturevalue("horovod")
    config = {"scheduler": "slurm", "node_count": nodes, "process_count_per_node": ranks}
    small = {"num_epochs": 1, "batch_size": TOGETHER // (nodes * ranks), "learning_rate": 0.0005, "weights": "none"}
    submitted = submit(
        ROOT,
        entry_point=entry_point,
        config=config,
        parameters={"data_dir": str(few), **small},
        env_manager=None if entry_point == "horovod" else "local",
    )
    done = finish(submitted)
    assert done.succeeded, everything(done)
    assert done.run.info.status == "FINISHED"
    words = f"{2 * TRAINING} training and {2 * VALIDATION} validation images of ants, bees"
    assert words in done.log
    assert nodes * ranks == 1 or f", on {nodes * ranks} ranks" in done.log
    assert len(done.directory.rank_logs()) == nodes * ranks
    running = next(event.message for event in done.directory.events() if event.phase is Phase.RUNNING)
    assert running.startswith("on 2 nodes (n1, n2), " if nodes == 2 else "on n1, ")
    assert done.run.data.metrics["onnx_max_abs_diff"] < 1e-3
    assert 0 <= done.run.data.metrics["val_accuracy"] <= 1
    assert store.get_registered_model("pytorch-birds").latest_versions[0].run_id == submitted.run_id
