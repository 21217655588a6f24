"""The example: its drawings, its data checks, its weights, and short real trainings."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import stat
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from mlflow.tracking import MlflowClient

pytest.importorskip("torch")
pytest.importorskip("torchvision")

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "pytorch_birds"
# As for the script itself: its folder comes first. Only then, and only with torch, can it be imported.
sys.path.insert(0, str(EXAMPLE))

import torch  # noqa: E402
import train  # noqa: E402
from birds import InputError, cache, data, download, synthetic, weights  # noqa: E402
from birds.options import Options, parse  # noqa: E402
from birds.training import Best, Epoch, Score, Trainer  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

PHOTOS = Path(os.environ.get("GPU_CLUSTER_TEST_PHOTOS", ROOT.parent / "shared" / "data" / "hymenoptera"))
TINY = ["--weights", "none", "--image_size", "32", "--batch_size", "4"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn image folder."""
    folder = tmp_path_factory.mktemp("few")
    synthetic.write_pictures(folder, seed=0, sizes={"train": 6, "val": 4})
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The full set of drawings, as the script makes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("drawn")))
        yield data.find_images("", "", seed=0)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def zip_of(folder: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as bundle:
        for path in sorted(folder.rglob("*.jpg")):
            bundle.write(path, prefix + str(path.relative_to(folder)))
    return target


def run_script(folder: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", **environ}
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        if name not in environ:
            env.pop(name, None)
    return subprocess.run(
        [sys.executable, str(EXAMPLE / "train.py"), *args],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# --- the project file ---------------------------------------------------------------------------


def test_mlproject_and_the_script_agree_on_names_and_defaults() -> None:
    from mlflow.projects._project_spec import load_project

    project = load_project(str(ROOT))
    assert project.name == "pytorch-birds"
    main = project.get_entry_point("main")
    assert set(main.parameters) == set(Options.__dataclass_fields__) - {"seed", "workers"}
    # Registering is the project's wish; a script tried by hand should not fill a registry.
    words = shlex.split(main.compute_command({"model_name": ""}, None))
    assert words[:2] == ["python", "examples/pytorch_birds/train.py"]
    assert parse(words[2:], "") == parse([], "")
    extra = shlex.split(main.compute_command({"data_dir": "my photos", "seed": "7"}, None))
    chosen = parse(extra[2:], "")
    assert (chosen.data_dir, chosen.seed, chosen.model_name) == ("my photos", 7, "pytorch-birds")


def test_conda_yaml_is_open_to_any_platform() -> None:
    spec = yaml.safe_load((ROOT / "conda.yaml").read_text())
    conda, pip = spec["dependencies"][:-1], spec["dependencies"][-1]["pip"]
    assert [entry.split(">")[0] for entry in conda] == ["python", "pip"]
    assert not [entry for entry in [*conda, *pip] if "==" in entry or "://" in entry or entry.startswith("-")]


# --- the drawings -------------------------------------------------------------------------------


def test_a_drawing_depends_on_its_key_alone() -> None:
    first, again, other = (synthetic.draw_picture("turkeys", key) for key in ("0/a", "0/a", "0/b"))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
    assert first.size == (128, 128)


def test_drawings_are_made_once_in_the_tutorials_numbers(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = data.scan(drawn)
    assert (images.classes, len(images.train), len(images.val)) == (["chickens", "turkeys"], 240, 200)
    assert names_in(drawn.parent) == [drawn.name]
    monkeypatch.setenv("XDG_CACHE_HOME", str(drawn.parents[2]))
    stamp = drawn.stat().st_mtime_ns
    assert data.find_images("", "", seed=0) == drawn
    assert drawn.stat().st_mtime_ns == stamp


def flat(samples: list[tuple[Path, int]], pixels: int) -> tuple[Any, Any]:
    rows = [np.asarray(data.read_image(path, 128).resize((pixels, pixels)), float).ravel() for path, _ in samples]
    return np.stack(rows), np.array([label for _, label in samples])


@pytest.mark.parametrize("pixels", [32, 64])
def test_a_linear_model_on_the_pixels_fails(drawn: Path, pixels: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    images = data.scan(drawn)
    (x, y), (x_val, y_val) = flat(images.train, pixels), flat(images.val, pixels)
    center, spread = x.mean(0), x.std(0)
    scores = []
    for strength in (1e-4, 1e-3, 1e-2, 1.0):
        model = linear_model.LogisticRegression(C=strength, max_iter=2000).fit((x - center) / spread, y)
        scores.append(model.score((x_val - center) / spread, y_val))
    # The best of all strengths, chosen on the validation images themselves: the bound is generous to it.
    assert 0.5 < max(scores) < 0.8


# --- image folders ------------------------------------------------------------------------------


def test_scan_names_what_is_wrong(tmp_path: Path, few: Path) -> None:
    with pytest.raises(InputError, match=r"no folder .*train"):
        data.scan(tmp_path)
    for split in ("train", "val"):
        (tmp_path / split / "hens").mkdir(parents=True)
    with pytest.raises(InputError, match="1 class folders: at least two"):
        data.scan(tmp_path)
    (tmp_path / "train" / "ducks").mkdir()
    with pytest.raises(InputError, match="only one of them has ducks"):
        data.scan(tmp_path)
    (tmp_path / "val" / "ducks").mkdir()
    with pytest.raises(InputError, match=r"train/ducks holds no image"):
        data.scan(tmp_path)
    assert len(data.scan(few).train) == 12


def test_a_broken_image_is_named_on_one_line_even_from_a_worker(tmp_path: Path, few: Path) -> None:
    folder = tmp_path / "photos"
    for path in few.rglob("*.jpg"):
        copy = folder / path.relative_to(few)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    broken = folder / "train" / "turkeys" / "003.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    done = run_script(tmp_path, "--data_dir", str(folder), "--num_epochs", "1", "--workers", "1", *TINY)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {broken} cannot be read as an image (")
    assert "Traceback" not in done.stderr


def test_workers_deliver_normalised_batches_in_the_asked_size(few: Path) -> None:
    images = data.scan(few)
    loader = data.make_loader(data.Pictures(images.train, 48, augment=True), 4, workers=0, seed=3)
    batches, again = list(loader), list(data.make_loader(loader.dataset, 4, 0, seed=3))  # type: ignore[arg-type]
    assert [tuple(pictures.shape) for pictures, _ in batches] == [(4, 3, 48, 48)] * 3
    assert torch.equal(torch.cat([labels for _, labels in batches]), torch.cat([labels for _, labels in again]))
    assert -3 < float(batches[0][0].min()) < 0 < float(batches[0][0].max()) < 3
    rest_of_one = data.make_loader(data.Pictures(images.train[:5], 48, augment=True), 4, workers=0, seed=3)
    assert len(rest_of_one) == 1


# --- zips ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "birds-1.0/"])
def test_a_zip_is_unpacked_once(tmp_path: Path, few: Path, own_cache: Path, prefix: str) -> None:
    archive = zip_of(few, tmp_path / "birds.zip", prefix)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    folder = data.find_images("", f"file://{archive}#sha256={digest}", seed=0)
    assert len(data.scan(folder).val) == 8
    assert own_cache in folder.parents
    assert data.find_images("", f"{archive}#sha256={digest}", seed=0) == folder
    entries = names_in(cache.cache_root())
    assert len(entries) == 1
    assert entries[0].startswith("zip-")


def test_a_changed_zip_is_unpacked_again(tmp_path: Path, few: Path) -> None:
    archive = zip_of(few, tmp_path / "birds.zip")
    before = download.fetch_images(str(archive))
    zip_of(few, archive, "top/")
    assert download.fetch_images(str(archive)) != before


@pytest.mark.parametrize("name", ["../evil.jpg", "/evil.jpg", "train/../../evil.jpg", "..\\evil.jpg"])
def test_a_zip_cannot_write_outside(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.writestr("train/a/1.jpg", b"x")
        bundle.writestr(name, b"x")
    with pytest.raises(InputError, match="would leave its folder"):
        download.fetch_images(str(archive))
    assert not list(tmp_path.rglob("*evil.jpg"))
    assert names_in(cache.cache_root()) == []


def test_a_zip_may_not_hold_links(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("train")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as bundle:
        bundle.writestr(link, "/etc")
    with pytest.raises(InputError, match="would leave its folder"):
        download.fetch_images(str(tmp_path / "links.zip"))


def test_bad_zips_are_refused_and_leave_nothing(tmp_path: Path, few: Path) -> None:
    archive = zip_of(few, tmp_path / "birds.zip")
    whole = archive.read_bytes()
    (tmp_path / "text.zip").write_text("no zip")
    (tmp_path / "flipped.zip").write_bytes(whole[:2000] + bytes(64) + whole[2064:])
    for url, reason in (
        (f"{archive}#sha256={'0' * 64}", r"has sha256 [0-9a-f]{64}, not 0{64}"),
        (f"{archive}#md5=1", "is not understood"),
        (str(tmp_path / "text.zip"), "is not a zip file"),
        (str(tmp_path / "flipped.zip"), "is broken or encrypted"),
        (str(tmp_path / "none.zip"), "there is no file"),
        ("ftp://example.org/birds.zip", "not supported"),
        ("http://user:secret@127.0.0.1:9/birds.zip?sig=secret", r"http://127.0.0.1:9/birds.zip cannot be fetched"),
    ):
        with pytest.raises(InputError, match=reason) as caught:
            download.fetch_images(url)
        assert "secret" not in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert names_in(cache.cache_root()) == []


# --- weights ------------------------------------------------------------------------------------


@pytest.fixture
def silent_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A host that accepts connections and never answers."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/resnet18-f37072fd.pth"
        monkeypatch.setattr(weights, "IMAGENET_URL", url)
        yield url


def test_auto_gives_up_soon_and_leaves_nothing(
    silent_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights, "AUTO_SECONDS", 1.0)
    start = time.monotonic()
    model, used = weights.build_model("auto", 2)
    assert time.monotonic() - start < 6
    assert used == "none"
    assert tuple(model.get_parameter("fc.weight").shape) == (2, 512)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1
    assert printed[0].startswith("warning: no ImageNet weights (")
    assert not [path for path in (tmp_path / "torch").rglob("*") if path.is_file()]


def test_imagenet_asked_for_is_an_error_when_it_cannot_be_had(
    silent_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "EXPLICIT_SECONDS", 1.0)
    with pytest.raises(InputError, match=r"ImageNet's cannot be had .* use auto or none"):
        weights.build_model("imagenet", 2)


def test_cached_imagenet_weights_are_used(tmp_path: Path) -> None:
    theirs, _ = weights.build_model("none", 1000)
    stored = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    stored.parent.mkdir(parents=True)
    torch.save(theirs.state_dict(), stored)
    model, used = weights.build_model("auto", 3)
    assert used == "imagenet"
    assert torch.equal(model.get_parameter("conv1.weight"), theirs.get_parameter("conv1.weight"))
    assert tuple(model.get_parameter("fc.weight").shape) == (3, 512)


def test_weights_from_a_file(tmp_path: Path) -> None:
    first, _ = weights.build_model("none", 2)
    torch.save(first.state_dict(), tmp_path / "model.pt")
    same, _ = weights.build_model(str(tmp_path / "model.pt"), 2)
    assert torch.equal(same.get_parameter("fc.weight"), first.get_parameter("fc.weight"))
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pt")
    torch.save(first, tmp_path / "pickled.pt")
    for name, reason in (
        ("missing.pt", "there is no file"),
        ("text.pt", "not a file of plain tensors"),
        ("pickled.pt", "not a file of plain tensors"),
        ("other.pt", "does not hold the weights of a ResNet-18"),
    ):
        with pytest.raises(InputError, match=reason):
            weights.build_model(str(tmp_path / name), 2)


# --- training -----------------------------------------------------------------------------------


def epoch(number: int, accuracy: float, loss: float) -> Epoch:
    score = Score(loss, accuracy, images=1)
    return Epoch(number, score, score, learning_rate=0.1, images_per_second=1.0)


def test_the_best_epoch_is_kept_and_restored() -> None:
    model, best = torch.nn.Linear(1, 1), Best()
    taken = []
    for number, accuracy, loss in ((1, 0.5, 9.0), (2, 0.8, 0.4), (3, 0.8, 0.3), (4, 0.8, float("nan")), (5, 0.7, 0.1)):
        torch.nn.init.constant_(model.weight, number)
        taken.append(best.offer(epoch(number, accuracy, loss), model))
    assert taken == [True, True, True, False, False]
    assert best.restore(model).number == 3
    assert model.weight.item() == 3


def test_the_learning_rate_falls_in_steps() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    batches = [(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))]
    seen: list[tuple[int, int]] = []
    epochs = list(Trainer(net, torch.device("cpu"), 10, 0.1, 0.9).fit(batches, batches, lambda *at: seen.append(at)))
    assert [round(one.learning_rate, 6) for one in epochs] == [0.1] * 6 + [0.02] * 3 + [0.004]
    assert seen == [(number, 1) for number in range(1, 11)]
    assert all(one.val.probabilities is not None for one in epochs)


def test_a_plain_run_logs_all_that_is_promised(tmp_path: Path, few: Path) -> None:
    from mlflow.tracking import MlflowClient

    done = run_script(
        tmp_path, "--data_dir", str(few), "--num_epochs", "2", "--model_name", "tiny-birds", "--workers", "1", *TINY
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert lines[-1].startswith("best val accuracy ")
    assert lines[-1].endswith("registered as tiny-birds version 1")
    assert "\r" not in done.stdout + done.stderr

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "0.005"
    assert run.data.params["initial_weights"] == "none"
    for name in epoch(1, 0, 0).metrics():
        assert [point.step for point in client.get_metric_history(run.info.run_id, name)] == [1, 2]
    seen = {(item.tags[0].value, item.dataset.name, item.dataset.source) for item in run.inputs.dataset_inputs}
    source = json.dumps({"uri": str(few)})
    assert seen == {("training", f"{few.name}/train", source), ("validation", f"{few.name}/val", source)}
    figures = {item.path for item in client.list_artifacts(run.info.run_id, "figures")}
    assert figures == {"figures/confusion_matrix.png", "figures/predictions.png"}
    assert json.loads((tmp_path / "outputs" / "classes.json").read_text()) == ["chickens", "turkeys"]
    weights.build_model(str(tmp_path / "outputs" / "model.pt"), 2)


@pytest.mark.parametrize(
    ("given", "name", "kind"),
    [
        ({"data_url": "https://me:secret@host/birds.zip?token=secret"}, "birds", "http"),
        ({"data_url": "/data/birds.zip"}, "birds", "local"),
        ({}, "drawings", "code"),
    ],
)
def test_the_source_of_the_images_is_one_that_mlflow_knows(
    few: Path, store: MlflowClient, given: dict[str, Any], name: str, kind: str
) -> None:
    import mlflow
    from birds.provenance import log_images

    run = store.create_run("0")
    log_images(run.info.run_id, replace(parse([], ""), **given), data.scan(few))
    found = store.get_run(run.info.run_id).inputs.dataset_inputs
    assert {item.dataset.name for item in found} == {f"{name}/train", f"{name}/val"}
    assert {item.dataset.source_type for item in found} == {kind}
    assert not any("secret" in item.dataset.source for item in found)
    assert all(mlflow.data.get_source(item)._get_source_type() == kind for item in found)


def test_a_job_resumes_its_run_and_keeps_what_is_logged(
    tmp_path: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    from birds import pipeline

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "_publish", lambda *_: None)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        client = mlflow.MlflowClient()
        run = client.create_run("0")
        client.log_param(run.info.run_id, "learning_rate", "5e-3")
        monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
        assert train.main(["--data_dir", str(few), "--num_epochs", "1", "--workers", "0", *TINY]) == 0
        (found,) = client.search_runs(["0"])
    finally:
        mlflow.set_tracking_uri(before)
    assert found.info.run_id == run.info.run_id
    assert found.data.params["learning_rate"] == "5e-3"
    assert found.data.params["num_epochs"] == "1"
    assert "val_accuracy" in found.data.metrics


@pytest.mark.skipif(not (PHOTOS / "train").is_dir(), reason="no photographs: set GPU_CLUSTER_TEST_PHOTOS")
def test_photographs_train_too() -> None:
    images = data.scan(PHOTOS)
    train_set, val_set = (data.Pictures(part, 32, augment=True) for part in (images.train, images.val))
    model, _ = weights.build_model("none", len(images.classes))
    trainer = Trainer(model, torch.device("cpu"), 1, 0.005, 0.9)
    loaders = data.make_loader(train_set, 32, 0, 0), data.make_loader(val_set, 32, 0, None)
    (only,) = trainer.fit(*loaders, lambda *_: None)
    assert only.train.images >= len(train_set) - 1
    assert 0 < only.val.loss < 10


# --- the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--num_epochs", "0"], "num_epochs is 0, but must be at least 1"),
        (["--num_epochs", "2.5"], "argument --num_epochs: invalid int value: '2.5'"),
        (["--learning_rate", "-0.1"], "learning_rate is -0.1, but must be above 0"),
        (["--learning_rate", "nan"], "learning_rate is nan, but must be above 0"),
        (["--momentum", "1"], "momentum is 1.0, but must be from 0 to below 1"),
        (["--batch_size", "1"], "batch_size is 1, but must be at least 2"),
        (["--image_size", "8"], "image_size is 8, but must be at least 32"),
        (["--data_dir", "a", "--data_url", "b"], "data_dir and data_url are both given"),
        (["--epochs", "3"], "unrecognized arguments: --epochs 3"),
    ],
)
def test_wrong_options_are_named(argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        train.main(argv)
    assert caught.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage:")
    assert complaint in error


def test_wrong_data_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["--data_dir", "nowhere"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: there is no folder nowhere/train: train/<class>/ and val/<class>/ are needed"
    ]
    assert not (tmp_path / "mlflow.db").exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match="point XDG_CACHE_HOME elsewhere"):
        data.find_images("", "", seed=0)


def test_options_hold_what_the_help_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"], "text")
    shown = capsys.readouterr().out
    assert all(f"--{name}" in shown for name in Options.__dataclass_fields__)
