"""``Checkpoint``: killed, damaged, out of space, misused; the kills are of real processes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402 - beside torch
from torch import distributed, nn  # noqa: E402

from mlflow_pytorch_estimator import Checkpoint  # noqa: E402
from mlflow_pytorch_estimator.errors import CheckpointError  # noqa: E402

PROGRAM = Path(__file__).with_name("checkpoint_programs.py")
EPOCHS, STEPS = 5, {1: 30, 2: 15}
"""Of the trainings in ``checkpoint_programs``, by number of ranks."""


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def stepped(model: nn.Module, optimizer: Any) -> None:
    model(torch.randn(8, 3)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def files(folder: Path) -> list[str]:
    return sorted(path.name.rpartition("-")[0] for path in folder.iterdir() if path.suffix == ".pt")


def newest(folder: Path, part: str = "rank0") -> Path:
    return max(path for path in folder.glob(f"checkpoint-*-{part}of*.pt"))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# --- killed -------------------------------------------------------------------------------------


def test_killed_at_any_moment_of_saving_it_is_restored_and_never_older_than_what_was_saved(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, "kills", tmp_path, "20261126"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    trials = json.loads(done.stdout)
    assert len(trials) == 20
    for trial in trials:
        assert trial["restored"], trial
        # What was on the disk before its writer could say so is newer by one.
        assert trial["step"] - trial["reported"] in {0, 1}, trial
        assert trial["whole"], trial
    assert sum(trial["in the midst"] for trial in trials) >= 5
    assert len(files(tmp_path)) <= 3


def drawn_kill(ranks: int) -> tuple[str, int]:
    """A step after the first epoch, which ends with the first save, and a rank."""
    drawn = random.Random(ranks)
    return f"step {drawn.randrange(STEPS[ranks] // EPOCHS + 1, STEPS[ranks] + 1)}", drawn.randrange(ranks)


KILLS = {
    "one process, at a step": (1, *drawn_kill(1)),
    "two ranks, at a step": (2, *drawn_kill(2)),
    "the first has not saved": (2, "save 3", 0),
    "the second has not saved": (2, "save 3", 1),
}
"""What happens in a training: number of ranks, where one of them is killed, and which."""


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Trainings that nobody has killed, by number of ranks, and the others, each started twice: their exit codes."""
    root = tmp_path_factory.mktemp("trainings")
    plans = [{"folder": str(root / str(ranks)), "ranks": ranks} for ranks in STEPS]
    for name, (ranks, kill, place) in KILLS.items():
        plans.append({"folder": str(root / name), "ranks": ranks, "kill": kill, "place": place})
        plans.append({"folder": str(root / name), "ranks": ranks})
    # The interface is named, because a machine's own name need not lead to it.
    environ = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(PROGRAM), "trainings", json.dumps(plans)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=400)
    codes = json.loads(done.stdout.splitlines()[-1])
    assert codes[: len(STEPS)] == [[0] * ranks for ranks in STEPS], done.stderr
    pairs = zip(codes[len(STEPS) :: 2], codes[len(STEPS) + 1 :: 2], strict=True)
    return {"root": root, "errors": done.stderr, "codes": dict(zip(KILLS, pairs, strict=True))}


@pytest.mark.parametrize("name", KILLS)
def test_a_killed_training_ends_as_if_it_had_not_been_killed(trainings: dict[str, Any], name: str) -> None:
    ranks, kill, place = KILLS[name]
    first, second = trainings["codes"][name]
    assert first[place] == -signal.SIGKILL
    assert 0 not in first
    assert second == [0] * ranks, trainings["errors"]
    for rank in range(ranks):
        ours, theirs = (
            torch.load(trainings["root"] / folder / f"end{rank}.pt", weights_only=True) for folder in (name, str(ranks))
        )
        assert same(ours["weights"], theirs["weights"])
        assert torch.equal(ours["random"], theirs["random"])
        assert ours["step"] == theirs["step"] == STEPS[ranks]
    # Each start of each rank has noted after which epoch it goes on.
    epochs = kill_epochs(kill, ranks)
    assert (trainings["root"] / name / "starts").read_text().split() == ["0"] * ranks + [str(epochs)] * ranks


def kill_epochs(kill: str, ranks: int) -> int:
    """After how many epochs the last checkpoint that all ranks have was saved."""
    what, number = kill.split()
    return int(number) - 1 if what == "save" else (int(number) - 1) // (STEPS[ranks] // EPOCHS)


# --- ranks, from the files alone ----------------------------------------------------------------


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes this process a rank, one after the other: nothing joins them but the files."""

    def become(rank: int, size: int = 2) -> None:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(size))

    for name in ("GPU_CLUSTER_RANK", "GPU_CLUSTER_WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    return become


def save_as(rank: int, become: Any, folder: Path, epochs: range, size: int = 2) -> None:
    become(rank, size)
    checkpoint = Checkpoint(nn.Linear(1, 1), folder=folder, epoch=0)
    checkpoint.restore()
    for epoch in epochs:
        checkpoint.epoch = epoch
        torch.manual_seed(100 * rank + epoch)
        checkpoint.save()


def test_ranks_choose_the_newest_checkpoint_that_all_have_saved(tmp_path: Path, as_rank: Any) -> None:
    save_as(0, as_rank, tmp_path, range(1, 4))
    assert files(tmp_path) == [f"checkpoint-00000{number}-rank0of2" for number in (1, 2, 3)]  # none is complete yet
    save_as(1, as_rank, tmp_path, range(1, 3))
    for rank in (0, 1):
        as_rank(rank)
        checkpoint = Checkpoint(nn.Linear(1, 1), folder=tmp_path, epoch=0)
        assert checkpoint.restore()
        assert checkpoint.epoch == 2
        assert torch.initial_seed() == 100 * rank + 2
    # Rank 0's part of the third is gone: the next third one may come out otherwise.
    assert files(tmp_path)[-1] == "checkpoint-000002-rank1of2"


def test_other_ranks_hold_their_random_state_only(tmp_path: Path, as_rank: Any) -> None:
    for rank in (0, 1):
        save_as(rank, as_rank, tmp_path, range(1, 2))
    contents = [torch.load(newest(tmp_path, part), weights_only=True) for part in ("rank0", "rank1")]
    assert [sorted(content) for content in contents] == [
        ["classes", "format", "number", "objects", "random", "values"],
        ["format", "number", "random"],
    ]


def test_a_damaged_part_of_one_rank_makes_all_take_the_one_before(tmp_path: Path, as_rank: Any) -> None:
    for rank in (0, 1):
        save_as(rank, as_rank, tmp_path, range(1, 3))
    damage(newest(tmp_path, "rank1"))
    for rank in (0, 1):
        as_rank(rank)
        checkpoint = Checkpoint(nn.Linear(1, 1), folder=tmp_path, epoch=0)
        if rank == 0:
            with pytest.warns(RuntimeWarning, match=r"checkpoint 2 is passed over: .*rank1of2.* is damaged"):
                assert checkpoint.restore()
        else:
            assert checkpoint.restore()
        assert checkpoint.epoch == 1


def test_other_numbers_of_ranks_may_go_on(tmp_path: Path, as_rank: Any) -> None:
    for rank in (0, 1):
        save_as(rank, as_rank, tmp_path, range(1, 3))
    as_rank(2, 3)
    checkpoint = Checkpoint(nn.Linear(1, 1), folder=tmp_path, epoch=0)
    with pytest.warns(RuntimeWarning, match="checkpoint 2 is of 2 ranks, now there are 3: rank 2 starts with the"):
        assert checkpoint.restore()
    save_as(0, as_rank, tmp_path, range(3, 5), size=1)
    assert checkpoint.epoch == 2
    assert files(tmp_path) == ["checkpoint-000003-rank0of1", "checkpoint-000004-rank0of1"]


# --- what comes back ----------------------------------------------------------------------------


def test_all_comes_back(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.Adam(model.parameters(), lr=np.float64(0.1))
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    warm = torch.optim.lr_scheduler.SequentialLR(
        optimizer, [torch.optim.lr_scheduler.ConstantLR(optimizer), torch.optim.lr_scheduler.StepLR(optimizer, 3)], [2]
    )
    generator = torch.Generator().manual_seed(5)
    values: dict[str, Any] = {
        "best": np.float32(0.5),
        "name": "a",
        "done": False,
        "nothing": None,
        "history": [1, (2.5, "b"), {"c": torch.arange(3)}],
        "slice": torch.arange(1 << 18)[:2],
    }

    def made() -> Checkpoint:
        return Checkpoint(model, optimizer, schedule, warm, order=generator, folder=tmp_path, epoch=0, **values)

    checkpoint = made()
    assert checkpoint.restore() is False
    stepped(model, optimizer)
    for each in (schedule, warm):
        each.step()
    checkpoint.epoch += 1
    path = checkpoint.save()
    assert path.parent == checkpoint.folder == tmp_path
    assert path.stat().st_size < 200_000
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    moments = optimizer.state_dict()["state"][0]["exp_avg"].clone()
    drawn = random.random(), np.random.rand(), torch.rand(1), torch.rand(1, generator=generator)
    stepped(model, optimizer)
    schedule.step()
    again = made()
    assert again.restore() is True
    assert same(model.state_dict(), kept)
    assert torch.equal(optimizer.state_dict()["state"][0]["exp_avg"], moments)
    assert schedule.last_epoch == warm.last_epoch == 1
    assert again.epoch == 1
    assert (again.best, again.name, again.done, again.nothing) == (0.5, "a", False, None)
    assert again.history[:2] == [1, (2.5, "b")]
    assert again.history[2]["c"].tolist() == [0, 1, 2]
    assert again.order is generator
    assert drawn == (random.random(), np.random.rand(), torch.rand(1), torch.rand(1, generator=generator))


def test_saving_does_not_touch_the_random_state(tmp_path: Path) -> None:
    checkpoint = Checkpoint(small(), folder=tmp_path)
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    checkpoint.save()
    assert torch.equal(torch.rand(2), expected)


@pytest.fixture
def joined(tmp_path: Path) -> Iterator[None]:
    """This process as the only rank of torch.distributed."""
    distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize("wrapped_first", [True, False])
def test_a_wrapped_model_and_a_plain_one_are_the_same(
    tmp_path: Path, wrapped_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")

    def wrap(model: nn.Module, wrapped: bool) -> nn.Module:
        return nn.parallel.DistributedDataParallel(model) if wrapped else model

    first, second = small(1), small(2)
    one = wrap(first, wrapped_first)
    optimizer = torch.optim.SGD(one.parameters(), 0.1, momentum=0.9)
    stepped(one, optimizer)
    Checkpoint(one, optimizer, folder=tmp_path / "c").save()
    two = wrap(second, not wrapped_first)
    assert Checkpoint(two, torch.optim.SGD(two.parameters(), 0.1, momentum=0.9), folder=tmp_path / "c").restore()
    assert same(first.state_dict(), second.state_dict())
    (saved,) = (tmp_path / "c").glob("*.pt")
    assert set(torch.load(saved, weights_only=True)["objects"]["1"]) == set(first.state_dict())


def test_two_stay_unless_more_are_asked_for(tmp_path: Path) -> None:
    for keep in (1, 2, 3):
        folder = tmp_path / str(keep)
        checkpoint = Checkpoint(small(), folder=folder, keep=keep)
        for _ in range(5):
            checkpoint.save()
        assert len(files(folder)) == keep
        assert files(folder)[-1] == "checkpoint-000005-rank0of1"


def test_where_the_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHECKPOINT_DIR", raising=False)
    plain = Checkpoint(small())
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path / "of the job"))
    variable, given = Checkpoint(small()), Checkpoint(small(), folder="given/deep")
    monkeypatch.chdir("/")
    assert not list(tmp_path.iterdir())  # the first save makes it
    for checkpoint, name in ((plain, "checkpoints"), (variable, "of the job"), (given, "given/deep")):
        assert checkpoint.save().parent == tmp_path / name


def test_the_package_loads_no_torch() -> None:
    code = "import sys, mlflow_pytorch_estimator as p; print('torch' in sys.modules, 'Checkpoint' in p.__all__)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False True\n"


# --- the disk -----------------------------------------------------------------------------------


def test_it_is_on_the_disk_before_it_has_its_name_and_its_name_before_an_old_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(small(), folder=tmp_path, keep=1)
    checkpoint.save()
    events: list[str] = []

    def noted(name: str, call: Any) -> Any:
        def noting(first: Any, *rest: Any, **named: Any) -> Any:
            events.append(f"{name} {Path(f'/proc/self/fd/{first}').readlink()}" if name == "sync" else name)
            return call(first, *rest, **named)

        return noting

    monkeypatch.setattr(os, "fsync", noted("sync", os.fsync))
    monkeypatch.setattr(Path, "replace", noted("rename", Path.replace))
    monkeypatch.setattr(Path, "unlink", noted("remove", Path.unlink))
    checkpoint.save()
    assert events == [f"sync {tmp_path}/.checkpoint-rank0.tmp", "rename", f"sync {tmp_path}", "remove"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", mount], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield mount
    subprocess.run(["umount", mount], check=True)


def fill_up(checkpoint: Checkpoint, model: nn.Linear, match: str) -> None:
    nn.init.constant_(model.weight, 1)
    checkpoint.epoch = 1
    checkpoint.save()
    nn.init.constant_(model.weight, 2)
    checkpoint.epoch = 2
    with pytest.raises(CheckpointError, match=match) as caught:
        checkpoint.save()
    assert "\n" not in str(caught.value)
    again = nn.Linear(model.in_features, model.out_features)
    second = Checkpoint(again, folder=checkpoint.folder, epoch=0)
    assert second.restore()
    assert second.epoch == 1
    assert bool((again.weight == 1).all())
    assert not list(checkpoint.folder.glob(".*"))


def test_a_full_disk_is_said_and_the_old_checkpoint_stays(tiny_disk: Path) -> None:
    model = nn.Linear(1000, 500)  # 2 MB: one file goes, two do not
    checkpoint = Checkpoint(model, folder=tiny_disk, epoch=0)
    fill_up(checkpoint, model, r"cannot be written \(No space left on device\); number 1, saved before, is still valid")
    # With room again the same object goes on.
    small_again = Checkpoint(nn.Linear(1, 1), folder=tiny_disk / "x", epoch=0)
    assert small_again.save().exists()


def test_a_limit_on_the_size_of_files_is_said_too(tmp_path: Path) -> None:
    model = nn.Linear(1000, 500)
    checkpoint = Checkpoint(model, folder=tmp_path, epoch=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    save = Checkpoint.save

    def limited(self: Checkpoint) -> Path:
        if self.epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        try:
            return save(self)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "save", limited)
        fill_up(checkpoint, model, r"cannot be written \(File too large\)")


def test_a_number_that_failed_is_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The other ranks have saved theirs with that number.
    checkpoint = Checkpoint(small(), folder=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(CheckpointError, match="cannot be written"):
            checkpoint.save()
    checkpoint.save()
    assert files(tmp_path) == ["checkpoint-000002-rank0of1"]


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"file is a file: give a folder"):
        Checkpoint(small(), folder=tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"cannot be written .* give a folder that every rank can read and write"):
        Checkpoint(small(), folder="/proc/nowhere/x").save()


# --- damage and worse ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["flipped", "cut", "empty"])
def test_a_damaged_file_is_passed_over(tmp_path: Path, how: str) -> None:
    checkpoint = Checkpoint(small(), folder=tmp_path, epoch=0)
    for _ in range(2):
        checkpoint.epoch += 1
        checkpoint.save()
    path = newest(tmp_path)
    if how == "flipped":
        damage(path)
    else:
        path.write_bytes(path.read_bytes()[: 1000 if how == "cut" else 0])
    with pytest.warns(RuntimeWarning, match="checkpoint 2 is passed over: .* is damaged"):
        assert checkpoint.restore()
    assert checkpoint.epoch == 1
    assert checkpoint.save().name.startswith("checkpoint-000002-")


def test_nothing_whole_is_nothing(tmp_path: Path) -> None:
    checkpoint = Checkpoint(small(), folder=tmp_path)
    damage(checkpoint.save())
    with pytest.warns(RuntimeWarning, match="checkpoint 1 is passed over"):
        assert checkpoint.restore() is False
    assert checkpoint.save().name.startswith("checkpoint-000001-")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["EVIL"],)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_malicious_pickle_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setenv("EVIL", str(tmp_path / "executed"))
    folder = tmp_path / "c"
    checkpoint = Checkpoint(small(), folder=folder)
    checkpoint.save().unlink()
    content = io.BytesIO()
    if form == "torch":
        torch.save({"format": 1, "objects": {"1": Evil()}}, content)
    else:
        pickle.dump({"format": 1, "objects": Evil()}, content, protocol=2)
    digest = hashlib.blake2b(content.getvalue(), digest_size=8).hexdigest()
    (folder / f"checkpoint-000003-rank0of1-{digest}.pt").write_bytes(content.getvalue())
    with pytest.raises(CheckpointError, match=r"is refused .*: it holds more than tensors and plain values") as caught:
        checkpoint.restore()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


# --- misuse -------------------------------------------------------------------------------------


def misuses(folder: Path) -> dict[str, tuple[Any, str]]:
    model = small()
    adam = torch.optim.Adam(model.parameters())
    named = Checkpoint(model, folder=folder, epoch=0)
    sharded = type("FullyShardedDataParallel", (nn.Module,), {})()

    def of(*objects: Any, **rest: Any) -> Any:
        return lambda: Checkpoint(*objects, folder=folder, **rest)

    def unknown() -> None:
        named.epcoh += 1

    def misspelt() -> None:
        named.epcoh = 1

    def became_odd() -> None:
        named.epoch = object()
        named.save()

    return {
        "a number by place": (of(model, 3), "argument 2 of Checkpoint is of type int: .* such as epoch=0"),
        "no scheduler": (of(model, None), "argument 2 of Checkpoint is of type NoneType"),
        "a class": (of(nn.Linear), "the class Linear, not an object of it"),
        "an odd value": (of(model, x=[object()]), r"x\[0\] is of type object, which a checkpoint cannot hold"),
        "an array": (of(model, x=np.zeros(2)), "x is of type numpy.ndarray"),
        "our name": (of(model, save=1), "needs the name save for itself"),
        "nothing": (of(), "nothing to save"),
        "keep": (of(model, keep=0), "keep is 0: .* at least 1"),
        "sharded": (of(sharded), "is sharded"),
        "unknown value": (unknown, r"no value 'epcoh': name it when .* it has epoch"),
        "misspelt value": (misspelt, "no value 'epcoh' to set"),
        "a value that became odd": (became_odd, "epoch is of type object"),
        "an odd state": (
            lambda: Checkpoint(torch.optim.lr_scheduler.LambdaLR(adam, Odd()), folder=folder / "o").save(),
            r"argument 1 \(LambdaLR\)\['lr_lambdas'\]\[0\]\['thing'\] is of type object",
        ),
    }


class Odd:
    def __init__(self) -> None:
        self.thing = object()

    def __call__(self, _: int) -> float:
        return 1.0


@pytest.mark.parametrize("name", list(misuses(Path("unused"))))
def test_misuse_is_one_line_with_the_remedy(tmp_path: Path, name: str) -> None:
    call, complaint = misuses(tmp_path)[name]
    with pytest.raises((CheckpointError, AttributeError), match=complaint) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert not files(tmp_path)


def test_what_does_not_fit_is_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    model = small()
    Checkpoint(model, torch.optim.Adam(model.parameters()), folder=tmp_path, epoch=3).save()
    before = {key: value.clone() for key, value in small(1).state_dict().items()}
    others: tuple[tuple[nn.Module, str], ...] = (
        (
            nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
            r"another model than argument 1 \(Sequential\): it has besides 2.weight, 2.bias",
        ),
        (
            nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 7), nn.Linear(7, 7)),
            r"it lacks 3.weight, 3.bias; other shapes have 2.weight \[2, 4\] instead of \[7, 4\], 2.bias",
        ),
        (nn.LSTM(3, 3), r"it lacks weight_ih_l0, .* and 1 more; it has besides .* and 6 more"),
    )
    for module, complaint in others:
        with pytest.raises(CheckpointError, match=complaint) as caught:
            Checkpoint(module, torch.optim.Adam(module.parameters()), folder=tmp_path, epoch=0).restore()
        assert "\n" not in str(caught.value)
    other = small(1)
    sgd, adam = torch.optim.SGD(other.parameters()), torch.optim.Adam([other[0].weight])
    for objects, values, complaint in (
        ((other, sgd), {"epoch": 0}, r"holds a Adam where argument 2 \(SGD\) is now"),
        ((other,), {"epoch": 0}, r"holds the objects argument 1 \(Sequential\), argument 2 \(Adam\), but this script"),
        (
            (other, torch.optim.Adam(other.parameters())),
            {"step": 0},
            "holds the values epoch, but this script has step",
        ),
        ((other, adam), {"epoch": 0}, r"the state of argument 2 \(Adam\) does not fit: loaded state dict"),
    ):
        with pytest.raises(CheckpointError, match=complaint):
            Checkpoint(*objects, folder=tmp_path, **values).restore()
        if objects[-1] is not adam:  # torch itself says that one when the model has been loaded
            assert same(other.state_dict(), before)


def test_a_folder_of_another_run_is_not_written_over(tmp_path: Path) -> None:
    Checkpoint(small(), folder=tmp_path).save()
    with pytest.raises(CheckpointError, match=r"is of another run: call restore\(\) before the first save\(\)"):
        Checkpoint(small(), folder=tmp_path).save()


def test_an_unknown_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("mlflow_pytorch_estimator.checkpoint.FORMAT", 2)
        Checkpoint(small(), folder=tmp_path).save()
    with pytest.raises(CheckpointError, match="not written by this version"):
        Checkpoint(small(), folder=tmp_path).restore()
