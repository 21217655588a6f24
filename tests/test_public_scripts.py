"""Programs that nobody here wrote run unchanged: accelerate's own check of its launchers, and Lightning's trainer.

``tests/public_scripts.py`` runs more of them, which come in no package.
"""

from __future__ import annotations

import sys

import pytest
from conftest import finish
from mlflow.tracking import MlflowClient
from rank_jobs import Jobs, everything, gone, logs

from mlflow_pytorch_estimator.spec import Distribution

LIGHTNING = """
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from lightning.pytorch.loggers import MLFlowLogger

class Logged(BoringModel):
    def training_step(self, batch, batch_idx):
        found = super().training_step(batch, batch_idx)
        self.log("train_loss", found["loss"], on_step=False, on_epoch=True, sync_dist=True)
        return found

trainer = Trainer(
    accelerator="cpu", devices={ranks}, num_nodes={nodes}, strategy="ddp", max_epochs=2, limit_train_batches=8,
    enable_progress_bar=False, enable_checkpointing=False, logger={logger}
)
trainer.fit(Logged(), datamodule=BoringDataModule())
print("world", trainer.world_size, "rank", trainer.global_rank, "steps", trainer.global_step, flush=True)
"""


@pytest.fixture
def jobs(store: MlflowClient) -> Jobs:
    return Jobs(store, sys.executable)


def test_accelerates_own_check(jobs: Jobs) -> None:
    done = finish(
        jobs.submit(
            "",
            command="python -m accelerate.test_utils.scripts.test_script",
            distribution=Distribution("torch", 2),
        )
    )
    assert done.succeeded, everything(done)
    assert all("Num processes: 2\n" in log for log in logs(done))
    assert "Training yielded the same results" in logs(done)[0]


@pytest.mark.parametrize(("nodes", "count"), [(1, 2), (2, 1)])
def test_lightning(jobs: Jobs, nodes: int, count: int) -> None:
    script = LIGHTNING.format(ranks=count, nodes=nodes, logger=False)
    done = finish(jobs.submit(script, count, nodes, kind="torch"))
    assert done.succeeded, everything(done)
    for rank, log in enumerate(logs(done)):
        assert f"world 2 rank {rank} steps 16" in log


def test_lightnings_logger_writes_to_the_jobs_run(jobs: Jobs) -> None:
    """It is given the run's number by hand, as its documentation says; rank 0 alone writes."""
    logger = 'MLFlowLogger(run_id=__import__("os").environ["MLFLOW_RUN_ID"])'
    submitted = jobs.submit(LIGHTNING.format(ranks=2, nodes=1, logger=logger), kind="torch")
    done = finish(submitted)
    assert done.succeeded, everything(done)
    points = done.client.get_metric_history(done.run.info.run_id, "train_loss")
    assert [point.step for point in points] == [7, 15]
    assert done.run.info.status == "FINISHED"
    assert gone(submitted)
