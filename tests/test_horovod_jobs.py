"""Jobs that ask for Horovod and find it: from the description to ranks that train together."""

from __future__ import annotations

import json
from pathlib import Path

import horovod_built
import pytest
from conftest import Project, finish, submit
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import Experiment, MpiConfiguration, PyTorch
from mlflow_pytorch_estimator.environments import ReadyEnvironment

TRAIN = """
import json, pathlib, torch
import horovod.torch as hvd

hvd.init()
torch.manual_seed(hvd.rank())
model = torch.nn.Linear(4, 1)
hvd.broadcast_parameters(model.state_dict(), root_rank=0)
optimizer = hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters())
for _ in range(5):
    optimizer.zero_grad()
    model(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()
pathlib.Path("outputs").mkdir(exist_ok=True)
weights = model.weight.flatten().tolist()
pathlib.Path(f"outputs/{hvd.rank()}.json").write_text(json.dumps([hvd.size(), weights]))
"""


@pytest.fixture
def environments(monkeypatch: pytest.MonkeyPatch, horovod_environment: ReadyEnvironment) -> ReadyEnvironment:
    monkeypatch.setenv("GPU_CLUSTER_ENVIRONMENTS", str(horovod_built.HOROVOD_ENVIRONMENTS))
    return horovod_environment


def written(outputs: Path) -> list[object]:
    return [json.loads((outputs / f"{rank}.json").read_text()) for rank in range(2)]


def test_a_project_trains_on_two_ranks(store: MlflowClient, project: Project, environments: ReadyEnvironment) -> None:
    (project.path / "requirements.txt").write_text("torch\ntorchvision\n")
    project.script(TRAIN)
    config = {"distributed_training": "horovod", "process_count_per_node": 2}
    done = finish(submit(project, env_manager=None, config=config))
    assert done.succeeded, done.log
    first, second = written(done.directory.outputs)
    assert first == second
    assert isinstance(first, list)
    assert first[0] == 2
    assert done.tags["gpu_cluster.distribution"] == "horovod, 1 x 2"
    assert done.directory.job.interpreter.key == environments.key
    assert "[X] PyTorch" in done.artifact("gpu_cluster/horovod.txt")
    assert "[X] Gloo" in done.artifact("gpu_cluster/horovod.txt")
    assert "\nhorovod==0.28.1\n" in done.artifact("gpu_cluster/environment.txt")


def test_a_requirement_is_enough(store: MlflowClient, project: Project, environments: ReadyEnvironment) -> None:
    """The source release that an index has would not compile."""
    (project.path / "requirements.txt").write_text("torch\ntorchvision\nhorovod[pytorch]>=0.28\n")
    project.script("import horovod.torch as hvd\nhvd.init()\nprint('ranks', hvd.size())\n")
    done = finish(submit(project, env_manager=None))
    assert done.succeeded, done.log
    assert "ranks 1" in done.log
    assert done.directory.job.interpreter.key == environments.key


def test_the_estimator(experiment: Experiment, folder: Path, environments: ReadyEnvironment) -> None:
    (folder / "train.py").write_text(TRAIN)
    estimator = PyTorch(
        source_directory=str(folder),
        compute_target="local",
        entry_script="train.py",
        distributed_training=MpiConfiguration(process_count_per_node=2),
        use_gpu=False,
    )
    run = experiment.submit(estimator)
    run.wait_for_completion(raise_on_error=True)
    assert sorted(name for name in run.get_file_names() if name.startswith("outputs/")) == [
        "outputs/0.json",
        "outputs/1.json",
    ]
