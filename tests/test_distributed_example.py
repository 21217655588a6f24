"""The bird example on several ranks: torchrun and Horovod start one script, which computes what one process does."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("torchvision")

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "pytorch_birds"
sys.path.insert(0, str(EXAMPLE))

import torch  # noqa: E402
from birds import InputError, distributed, synthetic  # noqa: E402
from birds.batches import SharedBatches  # noqa: E402

PROGRAM = Path(__file__).with_name("distributed_programs.py")
TINY = ["--weights", "none", "--image_size", "32", "--batch_size", "4", "--workers", "0"]
PLACES = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "NODE_RANK", "MASTER_", "HOROVOD_", "GPU_CLUSTER_", "MLFLOW_RUN_ID")


def environment(folder: Path, **more: str) -> dict[str, str]:
    """This one, without anything about ranks, and with stores of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith((*PLACES, "PYTHON", "CHECKPOINT"))}
    own = {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",  # a machine's own name need not lead to it
    }
    return {**kept, **own, **more}


@dataclass
class Started:
    """The processes of one training."""

    processes: list[subprocess.Popen[str]]
    server: subprocess.Popen[str] | None = None

    def finish(self, seconds: float = 400) -> tuple[list[int], str]:
        """Wait for all; the exit codes and the output, rank by rank."""
        deadline = time.monotonic() + seconds
        try:
            output = "".join(each.communicate(timeout=deadline - time.monotonic())[0] for each in self.processes)
        finally:
            self.kill()
        return [each.returncode for each in self.processes], output

    def kill(self) -> None:
        """At once, with all that they have started."""
        for each in (*self.processes, *([self.server] if self.server else [])):
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()
            for pipe in (each.stdin, each.stdout):
                if pipe is not None:
                    pipe.close()


Start = Callable[..., Started]


def spawn(command: Sequence[str | Path], folder: Path, environ: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def with_torchrun(folder: Path, *words: str, count: int = 2, **environ: str) -> Started:
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), *words]
    return Started([spawn(run, folder, environment(folder, **environ))])


# Serves until its standard input is closed.
SERVER = """
import sys
from horovod.runner.common.util.hosts import HostInfo, get_host_assignments
from horovod.runner.http.http_server import RendezvousServer
server, count = RendezvousServer(0), int(sys.argv[1])
port = server.start()
server.init(get_host_assignments([HostInfo("localhost", count)], count))
print(port, flush=True)
sys.stdin.read()
"""


def with_horovod(python: Path, folder: Path, *words: str, count: int = 2, **more: str) -> Started:
    environ = environment(folder, **more)
    server = subprocess.Popen(
        [str(python), "-c", SERVER, str(count)],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    common = {
        "HOROVOD_HOSTNAME": "localhost",
        "HOROVOD_SIZE": str(count),
        "HOROVOD_LOCAL_SIZE": str(count),
        "HOROVOD_CROSS_RANK": "0",
        "HOROVOD_CROSS_SIZE": "1",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": port,
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_IFACE": "lo",
    }
    places = [{"HOROVOD_RANK": str(rank), "HOROVOD_LOCAL_RANK": str(rank)} for rank in range(count)]
    return Started([spawn([python, *words], folder, environ | common | place) for place in places], server)


@pytest.fixture(scope="module", params=["torchrun", "horovod"])
def start(request: pytest.FixtureRequest) -> Start:
    """A function that starts a script on ranks."""
    if request.param == "torchrun":
        return with_torchrun
    python: Path = request.getfixturevalue("horovod_python")
    return lambda folder, *words, **more: with_horovod(python, folder, *words, **more)


# --- the same as one process --------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process finds, with the batches of all."""
    folder = tmp_path_factory.mktemp("alone")
    codes, output = Started([spawn([sys.executable, PROGRAM, "steps", folder], folder, environment(folder))]).finish()
    assert codes == [0], output
    found: dict[str, Any] = json.loads((folder / "rank0.json").read_text())
    return found


@pytest.fixture(scope="module")
def together(start: Start, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks finds."""
    folder = tmp_path_factory.mktemp("together")
    codes, output = start(folder, str(PROGRAM), "steps", str(folder)).finish()
    assert set(codes) == {0}, output
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def test_each_rank_knows_its_place(together: list[dict[str, Any]]) -> None:
    assert [(each["rank"], each["size"], each["gathered"]) for each in together] == [(0, 2, [0, 1]), (1, 2, [0, 1])]
    assert {each["kind"] for each in together} <= {"TorchRanks", "HorovodRanks"}
    assert [each["averaged"] for each in together] == [[[0.5, 0.5, 0.5], 1.5]] * 2


def test_fifty_steps_on_two_ranks_are_those_of_one_process(
    alone: dict[str, Any], together: list[dict[str, Any]]
) -> None:
    assert len(alone["losses"]) == 50
    assert {tuple(count for _, count in each["losses"][:5]) for each in together} == {(4, 4, 4, 4, 3), (4, 4, 4, 4, 2)}
    for number, (loss, count) in enumerate(alone["losses"]):
        parts = [each["losses"][number] for each in together]
        assert sum(part for _, part in parts) == count
        joined = sum(part * mean for mean, part in parts) / count
        assert math.isclose(joined, loss, rel_tol=1e-5, abs_tol=1e-6), number
    assert together[0]["weights"] == together[1]["weights"]
    assert max(abs(a - b) for a, b in zip(alone["weights"], together[0]["weights"], strict=True)) < 1e-5
    # It has learnt, else equality would say little.
    assert alone["train"][-1][0] < 0.5 * alone["train"][0][0]


def test_the_training_loss_is_that_of_all_ranks(alone: dict[str, Any], together: list[dict[str, Any]]) -> None:
    assert together[0]["train"] == together[1]["train"]
    for ours, theirs in zip(alone["train"], together[0]["train"], strict=True):
        assert ours[1:] == theirs[1:]
        assert math.isclose(ours[0], theirs[0], rel_tol=1e-5)


def test_every_validation_image_counts_once(alone: dict[str, Any], together: list[dict[str, Any]]) -> None:
    assert [sum(each["shares"]) for each in together] == [6, 5]
    for place, count in enumerate((11, 1)):
        (loss, accuracy, images), (first, second) = alone["val"][place], (each["val"][place] for each in together)
        assert first == second
        assert images == first[2] == count
        assert accuracy == first[1]
        assert math.isclose(loss, first[0], rel_tol=1e-5)
        for ours, theirs in zip(alone["probabilities"][place], together[0]["probabilities"][place], strict=True):
            assert all(abs(a - b) < 1e-5 for a, b in zip(ours, theirs, strict=True))


# --- whose images -------------------------------------------------------------------------------


@pytest.mark.parametrize(("images", "size"), [(37, 2), (37, 3), (40, 2), (7, 2), (3, 2), (5, 4)])
def test_ranks_divide_the_batches_of_one_process(images: int, size: int) -> None:
    alone = SharedBatches(images, 4 * size, 7, 0, 1)
    ranks = [SharedBatches(images, 4, 7, rank, size) for rank in range(size)]
    for epoch in (1, 2):
        for each in (alone, *ranks):
            each.set_epoch(epoch)
        lists = [list(each) for each in ranks]
        assert len({len(batches) for batches in lists}) == 1
        for number, (whole, *parts) in enumerate(zip(alone, *lists, strict=False)):
            assert sorted(chain(*parts)) == sorted(whole)
            assert math.isclose(sum(each.weight(number) for each in ranks), size)
            assert [each.weight(number) for each in ranks] == [len(part) * size / len(whole) for part in parts]
        left_out = images - sum(len(part) for batches in lists for part in batches)
        assert left_out < 2 * size
    again = [list(SharedBatches(images, 4, 7, rank, size)) for rank in range(size)]
    assert (again != lists) == (images >= 2 * size)  # another epoch, another order


@pytest.mark.parametrize(("images", "size"), [(37, 2), (11, 3), (2, 3), (1, 2), (8, 2)])
def test_validation_divides_without_a_rest_and_without_repeats(images: int, size: int) -> None:
    ranks = [SharedBatches(images, 4, None, rank, size) for rank in range(size)]
    lists = [list(chain(*each)) for each in ranks]
    assert lists == [list(range(rank, images, size)) for rank in range(size)]
    assert [len(each) for each in ranks] == [math.ceil(len(own) / 4) for own in lists]


# --- joining ------------------------------------------------------------------------------------


def test_one_process_joins_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PLACES):
            monkeypatch.delenv(name)
    for environ in ({}, {"RANK": "0", "WORLD_SIZE": "1"}, {"RANK": "3"}, {"HOROVOD_RANK": "0", "HOROVOD_SIZE": "1"}):
        with monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            ranks = distributed.join()
        assert (type(ranks), ranks.rank, ranks.size, ranks.first) == (distributed.Ranks, 0, 1, True)
        assert ranks.gather("x") == ["x"]
        assert ranks.in_turn(lambda: 5) == ranks.on_first(lambda: 5) == 5


def test_ranks_that_cannot_join_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PLACES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="MASTER_ADDR is not: start with torchrun, or unset WORLD_SIZE"):
        distributed.join()
    monkeypatch.setenv("HOROVOD_RANK", "0")
    monkeypatch.setenv("HOROVOD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "horovod.torch", None)
    with pytest.raises(InputError, match="Horovod cannot be loaded"):
        distributed.join()


class Two(distributed.Ranks):
    """The first or the second of two ranks, without the other: what it would bring is given."""

    def __init__(self, rank: int, other: Any) -> None:
        super().__init__()
        self.rank = self.local_rank = rank
        self.size = 2
        self.other = other

    def gather(self, item: Any) -> list[Any]:
        return [item, self.other] if self.rank == 0 else [self.other, item]


def test_the_first_rank_of_a_node_works_before_the_others() -> None:
    done: list[str] = []

    def work() -> str:
        done.append("done")
        return "data"

    assert Two(0, "").in_turn(work) == Two(1, "").in_turn(work) == "data"
    assert (Two(0, "").on_first(work), Two(1, "").on_first(work)) == ("data", None)
    assert len(done) == 3
    with pytest.raises(InputError, match="no zip"):
        Two(1, "no zip").in_turn(work)
    assert len(done) == 3


# --- the script ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    synthetic.write_pictures(folder, seed=0, sizes={"train": 9, "val": 4})
    for path in (folder / "val").rglob("003.jpg"):
        path.unlink()
        break
    return folder


def epochs_in(output: str) -> list[str]:
    return re.findall(r"^epoch (\d+/\d+)  train loss", output, re.MULTILINE)


def test_torchrun_trains_logs_and_registers_once(tmp_path: Path, few: Path) -> None:
    from mlflow.tracking import MlflowClient

    words = ["--data_dir", str(few), "--num_epochs", "2", "--model_name", "two-ranks", "--scale_learning_rate", "1"]
    codes, output = with_torchrun(tmp_path, str(EXAMPLE / "train.py"), *words, *TINY).finish()
    assert codes == [0], output
    assert "18 training and 7 validation images of chickens, turkeys, on 2 ranks, cpu" in output
    assert epochs_in(output) == ["1/2", "2/2"]
    assert output.count("registered as two-ranks version 1") == 1
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["learning_rate"] == pytest.approx(0.01)  # twice 0.005
    assert len(client.get_metric_history(run.info.run_id, "val_accuracy")) == 2
    assert (run.data.metrics["val_accuracy"] * 7) == pytest.approx(round(run.data.metrics["val_accuracy"] * 7))
    state = torch.load(tmp_path / "outputs" / "model.pt", weights_only=True)
    assert not [key for key in state if key.startswith("module.")]
    assert not (tmp_path / "checkpoints").exists()


def test_a_killed_training_goes_on_after_its_last_epoch(start: Start, tmp_path: Path, few: Path) -> None:
    words = [str(PROGRAM), "script", "--data_dir", str(few), "--num_epochs", "6", *TINY]
    saved = tmp_path / "saved"
    first = start(tmp_path, *words, CHECKPOINT_DIR=str(saved))
    deadline = time.monotonic() + 400
    while len(list(saved.glob("*rank1of2*"))) < 2:
        assert time.monotonic() < deadline
        assert all(each.poll() is None for each in first.processes), first.finish()
        time.sleep(0.02)
    first.kill()
    codes, output = start(tmp_path, *words, CHECKPOINT_DIR=str(saved)).finish()
    assert set(codes) == {0}, output
    (after,) = re.findall(r"^goes on after epoch (\d), from ", output, re.MULTILINE)
    assert 1 <= int(after) < 6
    assert epochs_in(output) == [f"{number}/6" for number in range(int(after) + 1, 7)]
    assert output.count("published") == 1


def test_a_finished_training_is_not_repeated(tmp_path: Path, few: Path) -> None:
    # One process goes on from what it has saved, and a job that dies during the export only has that to do.
    words = [sys.executable, str(PROGRAM), "script", "--data_dir", str(few), "--num_epochs", "2", *TINY]
    environ = environment(tmp_path, CHECKPOINT_DIR=str(tmp_path / "saved"))
    outputs = []
    for _ in range(2):
        codes, output = Started([spawn(words, tmp_path, environ)]).finish()
        assert codes == [0], output
        outputs.append(output)
    assert [epochs_in(output) for output in outputs] == [["1/2", "2/2"], []]
    assert "goes on after epoch 2, from " in outputs[1]
    assert "published" in outputs[1]


def test_wrong_data_ends_all_ranks_with_one_line(tmp_path: Path) -> None:
    codes, output = with_torchrun(tmp_path, str(EXAMPLE / "train.py"), "--data_dir", "nowhere").finish()
    assert codes != [0]
    lines = [line for line in output.splitlines() if "there is no folder nowhere/train" in line]
    assert lines
    assert all(line.startswith("error: there is no folder nowhere/train: ") for line in lines)
    assert "InputError" not in output
    assert not (tmp_path / "mlflow.db").exists()


def test_the_entry_points_differ_in_name_only() -> None:
    from mlflow.projects._project_spec import load_project

    project = load_project(str(ROOT))
    commands = {
        name: project.get_entry_point(name).compute_command({"data_dir": "my photos"}, None)
        for name in ("main", "horovod", "ddp")
    }
    assert len(set(commands.values())) == 1
    assert "--scale_learning_rate 0" in commands["ddp"]
    assert {project.get_entry_point(name).name for name in commands} == set(commands)
