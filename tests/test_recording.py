"""What may be logged and under which name, without any store."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_metric_name, _validate_tag_name

from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.recording import legalnames
from mlflow_pytorch_estimator.estimator.recording.ledger import Ledger, Mark, read_marks
from mlflow_pytorch_estimator.estimator.recording.recorder import Recorder
from mlflow_pytorch_estimator.estimator.recording.sinks import MutedSink, PrintingSink


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(PrintingSink())


NUMBERS: list[tuple[Any, float]] = [
    (3, 3.0),
    (True, 1.0),
    (0.25, 0.25),
    (Decimal("0.5"), 0.5),
    (Fraction(1, 4), 0.25),
    *[(np.dtype(code).type(1), 1.0) for code in "?bBhHiIlLqQefdg"],
    (np.array(2.5), 2.5),
    (np.array([2.5]), 2.5),
    (torch.tensor(1.5), 1.5),
    (torch.tensor(1.5, requires_grad=True), 1.5),
    (torch.tensor([1.5], dtype=torch.bfloat16), 1.5),
    (torch.tensor(True), 1.0),
    (float("inf"), float("inf")),
    (np.float32("-inf"), float("-inf")),
]


@pytest.mark.parametrize(("value", "expected"), NUMBERS, ids=lambda value: f"{type(value).__name__}")
def test_every_kind_of_number_is_one(recorder: Recorder, value: Any, expected: float) -> None:
    recorder.log("loss", value)
    assert recorder.get_metrics() == {"loss": expected}
    assert type(recorder.get_metrics()["loss"]) is float


def test_nan_is_logged(recorder: Recorder) -> None:
    recorder.log("loss", np.float16("nan"))
    assert np.isnan(recorder.get_metrics()["loss"])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1, 2], "log_list"),
        ((1,), "log_list"),
        ({"a": 1}, "log_table"),
        (np.zeros(3), "numpy.ndarray"),
        (torch.zeros(2, 2), "torch.Tensor"),
        (None, "NoneType"),
        (1j, "complex"),
        (np.complex64(1), "complex64"),
        (object, "type"),
        (10**400, "too large"),
        (b"1", "bytes"),
        (np.datetime64("2020-01-01"), "datetime64"),
    ],
)
def test_what_is_no_number_is_refused_in_one_line(recorder: Recorder, value: Any, said: str) -> None:
    with pytest.raises(UserErrorException, match=said) as caught:
        recorder.log("loss", value)
    assert "\n" not in str(caught.value)
    assert "'loss'" in str(caught.value)
    assert recorder.get_metrics() == {}


@pytest.mark.parametrize("step", [3, 3.0, np.int64(3), np.uint8(3), np.float32(3), torch.tensor(3)])
def test_a_step_is_a_whole_number(recorder: Recorder, capsys: pytest.CaptureFixture[str], step: Any) -> None:
    recorder.log("loss", 0.25, step=step)
    assert capsys.readouterr().out == "loss = 0.25 (step 3)\n"


@pytest.mark.parametrize("step", [3.5, "3", float("nan"), float("inf"), 2**63, True, [1]])
def test_other_steps_are_refused(recorder: Recorder, step: Any) -> None:
    with pytest.raises(UserErrorException, match="a step is a whole number"):
        recorder.log("loss", 0.25, step=step)


def test_steps_follow_each_other_also_after_given_ones() -> None:
    looked_up: list[str] = []

    def last_step(key: str) -> int:
        looked_up.append(key)
        return 41

    ledger = Ledger(["old"], {}, last_step)
    assert ledger.steps("loss", 1, None) + ledger.steps("loss", 2, None) == [0, 1, 2]
    assert ledger.steps("loss", 1, 10) + ledger.steps("loss", 1, None) == [10, 11]
    assert ledger.steps("loss", 1, 5) + ledger.steps("loss", 1, None) == [5, 12]
    assert ledger.steps("old", 1, None) + ledger.steps("old", 1, None) == [42, 43]
    assert looked_up == ["old"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("prec@1", "prec_1"),
        ("loss", "loss"),
        ("val/acc:top 5.x-y", "val/acc:top 5.x-y"),
        ("Genauigkeit_äöü", "Genauigkeit_äöü"),
        ("", "_"),
        ("/", "_"),
        ("/a//b/", "a/b"),
        ("../a", "__/a"),
        ("..a", "__a"),
        (".", "_"),
        ("a/./b/..", "a/_/b/__"),
        ("a\n", "a_"),
    ],
)
def test_nearest_names(name: str, expected: str) -> None:
    assert legalnames.nearest(name) == expected


NAMES = st.text() | st.text(alphabet="./ab@:\n", max_size=8) | st.text(min_size=240, max_size=300)


def _accepted(name: str, check: Callable[[str], object]) -> bool:
    try:
        check(name)
    except MlflowException:
        return False
    return len(name) <= 250


@given(NAMES)
@example("a\n")
@example("." * 260)
@example("a/" * 130)
def test_every_text_becomes_a_name_that_mlflow_accepts(name: str) -> None:
    for made in (legalnames.nearest(name), legalnames.distinct(name)):
        assert _accepted(made, _validate_metric_name)
        assert _accepted(Mark(name, made).tag()[0], _validate_tag_name)
        assert all(len(part.encode()) < 250 for part in legalnames.file_stem(made).split("/"))
    # MLflow's rule overlooks a newline at the end.
    if _accepted(name, _validate_metric_name) and not name.endswith("\n"):
        assert legalnames.nearest(name) == name


@given(st.lists(NAMES, unique=True, max_size=12), st.integers(0, 12))
def test_names_never_collapse_also_after_a_restart(names: list[str], restart: int) -> None:
    ledger = Ledger([], {}, lambda _: -1)
    keys: dict[str, str] = {}
    tags: dict[str, str] = {}
    for number, name in enumerate(names):
        if number == restart:
            ledger = Ledger(keys.values(), read_marks(tags), lambda _: -1)
        mark, new = ledger.mark(name)
        tags.update([mark.tag()] if new else [])
        keys[name] = mark.key
    assert len(set(keys.values())) == len(names)
    again = Ledger(keys.values(), read_marks(tags), lambda _: -1)
    assert {name: again.mark(name)[0].key for name in names} == keys


def test_a_taken_name_is_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger([], {}, lambda _: -1)
    assert ledger.mark("prec@1")[0].key == "prec_1"
    assert ledger.mark("prec#1")[0].key == legalnames.distinct("prec#1") != "prec_1"
    assert "'prec_1' is taken by 'prec@1'" in caplog.text
    assert ledger.mark("prec@1")[0].key == "prec_1"


def test_tags_that_are_not_ours_are_no_marks() -> None:
    good = Mark("prec@1", "prec_1")
    broken = {
        "mlflow.gpu_cluster.logged.a": "{",
        "mlflow.gpu_cluster.logged.b": "[1]",
        "mlflow.gpu_cluster.logged.c": '{"x": 1}',
    }
    assert read_marks({**broken, "other": "1", **dict([good.tag()])}) == {"prec@1": good}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda run: run.log(1, 2), "is text, not 1"),
        (lambda run: run.log_list("l", 1), "log_list"),
        (lambda run: run.log_list("l", "abc"), "str"),
        (lambda run: run.log_list("l", {1, 2}), "set"),
        (lambda run: run.log_list("l", [[1]]), "hold numbers and texts"),
        (lambda run: run.log_table("t", [1]), "dict of columns"),
        (lambda run: run.log_table("t", {}), "not empty"),
        (lambda run: run.log_table("t", {"a": [1], "b": [1, 2]}), "'b': 2"),
        (lambda run: run.log_table("t", {"a": [object()]}), "object"),
        (lambda run: run.log_row("t"), "not empty"),
        (lambda run: run.log_row("t", x=[1, 2]), "list"),
        (lambda run: run.log_image("i"), "exactly one"),
        (lambda run: run.log_image("i", path="x", plot=1), "exactly one"),
        (lambda run: run.log_image("i", path="/nowhere.png"), "no file '/nowhere.png'"),
        (lambda run: run.log_image("i", path=3), "not int"),
        (lambda run: run.log_image("i", plot="x"), "no plot"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    recorder: Recorder, capsys: pytest.CaptureFixture[str], call: Callable[[Recorder], None], said: str
) -> None:
    with pytest.raises(UserErrorException, match=said) as caught:
        call(recorder)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_printing(recorder: Recorder, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    picture.write_bytes(b"x")
    recorder.log("prec@1", np.float32(0.5))
    recorder.log("prec@1", 0.75, description="of the first answer")
    recorder.log("model", "resnet")
    recorder.log_list("l", np.arange(3))
    recorder.log_row("r", x=1, y="a")
    recorder.log_row("r", x=2, z=None)
    recorder.log_table("t", {"long name": [1.0, 22.5], "b": ["x", "y"]})
    recorder.log_image("i", path=picture)
    recorder.log_image("j", plot=np.zeros((2, 2)))
    assert capsys.readouterr().out.splitlines() == [
        "prec@1 = 0.5 (step 0)",
        "prec@1 = 0.75 (step 1)",
        "prec@1: of the first answer",
        "model = resnet",
        "l = [0, 1, 2]",
        "r:",
        "  x  y",
        "  1  a",
        "r:",
        "  x     z",
        "  2  None",
        "t:",
        "  long name  b",
        "          1  x",
        "       22.5  y",
        f"i: the file {picture}",
        "j: a plot, which is not stored outside of a run",
    ]
    found = recorder.get_metrics()
    assert found["prec@1"] == [0.5, 0.75]
    assert found["r"] == {"x": [1, 2], "y": ["a", None], "z": [None, None]}
    assert recorder.get_metrics("l") == {"l": [0, 1, 2]}
    assert recorder.flush(1)


def test_other_ranks_are_muted(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder(MutedSink(3))
    for value in range(5):
        recorder.log("loss", value)
        recorder.log_row("row", x=value, description="d")
    recorder.log_list("l", [1])
    assert recorder.get_metrics() == {}
    assert recorder.flush()
    assert [record.getMessage() for record in caplog.records] == [
        "what rank 3 logs is dropped: rank 0 owns the metrics of the run"
    ]
    assert capsys.readouterr().out == ""
    with pytest.raises(UserErrorException):
        recorder.log("loss", None)
