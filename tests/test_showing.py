"""What is shown of a run: its pieces, and what they are read from."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import Server, wait_until
from hypothesis import given
from hypothesis import strategies as st

from mlflow_pytorch_estimator import Experiment, PyTorch, Run, UserErrorException, Workspace
from mlflow_pytorch_estimator.estimator.showing import charts, markup, picture, text
from mlflow_pytorch_estimator.estimator.showing.logs import last_lines
from mlflow_pytorch_estimator.estimator.showing.reading import reader
from mlflow_pytorch_estimator.estimator.showing.series import MOST_POINTS, Point, Series, of_points, thinned
from mlflow_pytorch_estimator.estimator.showing.sight import CHARTS, Child, Sight, Watched, look
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.tracking import Stores
from mlflow_pytorch_estimator.widgets import RunDetails
from mlflow_pytorch_estimator.widgets.watch import Watch

if TYPE_CHECKING:
    from gateway import Gateway

ATTACK = "<script>alert('&\"')</script>"
numbers = st.floats(-1e12, 1e12)


def line(values: list[float]) -> Series:
    return Series("loss", tuple(Point(step, step, value) for step, value in enumerate(values)))


@given(st.lists(numbers, max_size=300), st.integers(4, 50))
def test_thinning_keeps_the_ends_and_the_extremes(values: list[float], most: int) -> None:
    points = [Point(step, 0, value) for step, value in enumerate(values)]
    kept = thinned(points, most)
    assert len(kept) <= most
    assert kept == sorted(set(kept) & set(points), key=lambda point: point.step)
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        assert {min(values), max(values)} <= {point.value for point in kept}


@given(numbers, numbers)
def test_ticks_enclose_the_values(one: float, other: float) -> None:
    rows = charts.ticks(min(one, other), max(one, other))
    assert rows == sorted(set(rows))
    assert 2 <= len(rows) <= 6
    slack = abs(rows[-1] - rows[0]) * 1e-6
    assert rows[0] - slack <= min(one, other)
    assert max(one, other) <= rows[-1] + slack


@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_any_numbers_can_be_drawn(values: list[float]) -> None:
    drawn = charts.panel(line(values))
    lines = re.findall(r'points="([^"]*)"', drawn)
    places = [float(place) for found in lines for pair in found.split() for place in pair.split(",")]
    assert all(math.isfinite(place) and -1 <= place <= charts.WIDTH + 1 for place in places)
    assert ("no finite value" in drawn) == (not any(map(math.isfinite, values)))


def test_a_line_is_broken_where_a_value_is_missing() -> None:
    assert charts.panel(line([1, 2, math.nan, 3, 4, math.inf, 5])).count("<polyline") == 2
    assert charts.panel(line([1, 2, math.nan, 3, 4, math.inf, 5])).count("<circle") == 1


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1000001.0, 1000003.0], ["1000001", "1000002", "1000003"]),
        ([0.25, 0.75], ["0.2", "0.4", "0.6", "0.8"]),
        ([1e-7, 3e-7], ["1.0e-7", "2.0e-7", "3.0e-7"]),
        ([5.0, 5.0], ["2", "4", "6", "8"]),
    ],
)
def test_the_labels_of_a_chart_tell_its_rows_apart(values: list[float], labels: list[str]) -> None:
    assert re.findall(r'text-anchor="end"[^>]*>([^<]*)</text>', charts.panel(line(values)))[: len(labels)] == labels


def test_values_without_steps_are_drawn_over_time() -> None:
    series = of_points("loss", [Point(0, 20.0, 2.0), Point(0, 10.0, 1.0)])
    assert series.places() == [(0.0, 1.0), (10.0, 2.0)]
    assert "10 s" in charts.panel(series)


def test_a_log_is_shown_as_a_terminal_shows_it() -> None:
    said = "old\n\x1b[31mred\x1b[0m\x00\n10%\r 50%\r100%\r\nlink \x1b]8;;http://x\x07here\x1b]8;;\x07\n"
    assert last_lines(said, 3) == "red\n100%\nlink here"
    assert last_lines("", 3) == ""
    assert len(last_lines("x" * 5000, 3)) == 1000


def hostile() -> Sight:
    return Sight(
        run_id=ATTACK, experiment=ATTACK, phase=Phase.FAILED, name=ATTACK, url=f"http://x/{ATTACK}", reason=ATTACK,
        traceback=ATTACK, compute=ATTACK, notice=ATTACK, phases=((ATTACK, 1.0), ("Failed", 0.0)), elapsed=1.0,
        logs=(ATTACK,), latest={ATTACK: Point(0, 0, 1.0)}, metrics=(ATTACK,),
        series=(replace(line([1, 2]), name=ATTACK),), trouble=ATTACK,
        children=(Child(ATTACK, ATTACK, Phase.RUNNING, f"javascript:{ATTACK}"),),
    )  # fmt: skip


def test_everything_that_comes_from_a_run_is_escaped() -> None:
    sight = replace(hostile(), phases=(("Running", 1.0), ("Failed", 0.0)))
    drawn = picture.html(sight, {ATTACK: ATTACK})
    assert drawn.count("&lt;script&gt;") >= 14
    assert "<script" not in drawn
    assert "alert('&\"" not in drawn
    assert "javascript:" not in drawn


def test_the_reason_and_the_traceback_come_first() -> None:
    sight = replace(hostile(), name="n", reason="rank 1 failed", traceback="Traceback: boom", phases=())
    drawn = picture.html(sight, {})
    assert drawn.index("rank 1 failed") < drawn.index("Traceback: boom") < drawn.index("Experiment")
    said = text.lines(sight, {})
    assert said[1] == "Traceback: boom"
    assert said[2].split() == ["status", "Failed:", "rank", "1", "failed"]


def test_plain_text_has_no_control_characters() -> None:
    said = text.lines(replace(hostile(), name="\x1b[2Ja\nb", reason="c\r\nd"), {"logs/rank_0.log": "last line"})
    assert "\x1b" not in "".join(said)
    assert said[0].endswith(" a b")
    assert said[-1] == "    last line"


def _fill(database: Path, run_id: str, names: int, count: int) -> None:
    """Metrics as MLflow stores them, faster than through MLflow."""
    with closing(sqlite3.connect(database)) as connection:
        rows = (
            (f"m{name:02}", float(step % 97), 1000 + step, run_id, step, 0)
            for name in range(names)
            for step in range(count)
        )
        columns = "key, value, timestamp, run_uuid, step, is_nan"
        connection.executemany(f"INSERT INTO metrics ({columns}) VALUES (?, ?, ?, ?, ?, ?)", rows)  # noqa: S608
        newest = [(f"m{name:02}", 1.0, 1000 + count - 1, run_id, count - 1, 0) for name in range(names)]
        connection.executemany(f"INSERT INTO latest_metrics ({columns}) VALUES (?, ?, ?, ?, ?, ?)", newest)  # noqa: S608
        connection.commit()


def test_a_server_and_its_database_say_the_same(server: Server, tmp_path: Path) -> None:
    run = Experiment(Workspace(tracking_uri=server.uri), "birds").start_logging(run_name="robin")
    for step, value in enumerate([1.0, math.nan, math.inf, 2.5]):
        server.client.log_metric(run.id, "loss", value, timestamp=1000 + step, step=step)
    child = run.child_run("wren")
    _fill(tmp_path / "server.db", run.id, 1, 3000)
    uris = (server.uri, f"sqlite:///{tmp_path}/server.db")
    served, direct = (reader(Stores(uri, uri)) for uri in uris)
    assert repr(served.run(run.id)) == repr(direct.run(run.id))
    assert (served.run(run.id).name, served.run(run.id).own_metrics()) == ("robin", ["loss", "m00"])
    assert repr(served.series(run.id, "loss")) == repr(direct.series(run.id, "loss"))
    assert [str(point.value) for point in served.series(run.id, "loss").points] == ["1.0", "nan", "inf", "2.5"]
    for each in (served, direct):
        long = each.series(run.id, "m00").points
        assert (long[0].step, long[-1].step) == (0, 2999)
        assert 100 < len(long) <= MOST_POINTS
        assert [found.run_id for found in each.children(run.experiment.id, run.id)] == [child.id]


def test_of_many_metrics_a_page_is_read(experiment: Experiment, tmp_path: Path) -> None:
    run = experiment.start_logging()
    _fill(tmp_path / "mlflow.db", run.id, 30, 2)
    sight = look(Watched(run))
    assert len(sight.metrics) == 30
    assert [series.name for series in sight.series] == [f"m{number:02}" for number in range(CHARTS)]
    assert "and 18 more metrics" in run._repr_html_()
    rest = Watched(run).far(sight, first=2 * CHARTS)
    assert [series.name for series in rest.series] == [f"m{number:02}" for number in range(24, 30)]
    assert markup.span(24, 30) == "25 to 30 of 30 metrics"


class Screen:
    """Keeps what a watch has shown."""

    def __init__(self, run: Run, log: str = "") -> None:
        self.sights: list[Sight] = []
        self.logs: list[str] = []
        self.watch = Watch(Watched(run), self.sights.append, self.logs.append, seconds=0.1)
        self.watch.log = log

    def saw(self, phase: Phase) -> bool:
        return any(sight.phase is phase for sight in self.sights)


@contextmanager
def screen(run: Run, log: str = "") -> Iterator[Screen]:
    made = Screen(run, log)
    made.watch.poke()
    try:
        yield made
    finally:
        made.watch.stop()
    wait_until(lambda: not threads(), 20, "the end of the threads")


def threads() -> list[str]:
    import threading

    return [thread.name for thread in threading.enumerate() if thread.name.startswith("RunDetails")]


def test_a_store_that_is_away_is_said_and_asked_again(server: Server, gateway: Gateway) -> None:
    run = Experiment(Workspace(tracking_uri=gateway.uri), "birds").start_logging()
    run.log("loss", 1)
    run.flush()
    with screen(run) as seen:
        wait_until(lambda: seen.sights and seen.sights[-1].metrics == ("loss",), 30, "a first look")
        gateway.away = True
        wait_until(lambda: "store does not answer" in seen.sights[-1].trouble, 30, "the trouble")
        assert seen.watch.alive
        assert seen.sights[-1].metrics == ("loss",)
        gateway.away = False
        wait_until(lambda: not seen.sights[-1].trouble, 40, "the end of the trouble")
        run.complete()
        wait_until(lambda: not seen.watch.alive, 40, "the end of the run")
        assert seen.sights[-1].phase is Phase.COMPLETED
        wait_until(lambda: not threads(), 20, "the end of the threads")


@pytest.fixture
def gated(experiment: Experiment, folder: Path, tmp_path: Path) -> Run:
    """A run whose script waits for a file, then fails."""
    (folder / "train.py").write_text(
        "import pathlib, time\nprint('<b>begun</b>', flush=True)\n"
        f"while not pathlib.Path({str(tmp_path / 'gate')!r}).exists():\n    time.sleep(0.05)\n"
        "raise ValueError('<b>no such bird</b>')\n"
    )
    return experiment.submit(PyTorch(folder, compute_target="local", entry_script="train.py", user_managed=True))


def test_a_run_is_watched_until_it_has_ended(gated: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with screen(gated, "logs/rank_0.log") as seen:
        wait_until(lambda: "<b>begun</b>" in seen.logs, 60, "the log")
        assert seen.saw(Phase.RUNNING)
        assert seen.sights[-1].cancelable
        (tmp_path / "gate").touch()
        wait_until(lambda: not threads(), 60, "the end of the threads")
        assert seen.sights[-1].phase is Phase.FAILED
        assert "ValueError: <b>no such bird</b>" in seen.sights[-1].traceback
        assert "no such bird" in seen.logs[-1]
        assert not seen.sights[-1].cancelable
    RunDetails(gated).show()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"run {gated.id} ")
    assert said[1] == "Traceback (most recent call last):"
    assert any(row.startswith("  status        Failed: rank 0 exited with status 1") for row in said)
    given_to: list[str] = []
    RunDetails(gated).show(render_lib=given_to.append)
    assert "&lt;b&gt;no such bird" in given_to[0]
    found = json.loads(json.dumps(RunDetails(gated).get_widget_data({"debug": True})))
    assert (found["status"], found["run_id"], found["widget_settings"]) == ("Failed", gated.id, {"debug": True})
    assert found["run_properties"]["log_files"] == ["logs/rank_0.log"]
    assert "begun" in found["run_logs"]["logs/rank_0.log"]
    with pytest.raises(UserErrorException, match="there is only 'debug'"):
        RunDetails(gated).show(widget_settings={"colour": "red"})


def test_the_end_of_a_killed_job_is_seen(gated: Run) -> None:
    with screen(gated, "logs/rank_0.log") as seen:
        wait_until(lambda: "<b>begun</b>" in seen.logs, 60, "the log")
        assert gated.job is not None
        os.kill(int(json.loads(gated.job.directory.agent.read_text())["pid"]), signal.SIGKILL)
        wait_until(lambda: not threads(), 60, "the end of the threads")
        assert seen.sights[-1].phase is Phase.FAILED
        assert "agent was killed" in seen.sights[-1].reason


def test_a_run_of_another_machine_is_read_from_the_store(gated: Run, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    gated.wait_for_completion(raise_on_error=False)
    elsewhere = Run.get(Workspace(home=tmp_path / "another-home"), gated.id)
    sight = look(Watched(elsewhere))
    assert (sight.phase, sight.logs, sight.trouble) == (Phase.FAILED, ("logs/rank_0.log",), "")
    assert sight.reason == look(Watched(gated)).reason != ""
    assert "no such bird" in elsewhere._repr_html_()


def test_only_runs_are_shown() -> None:
    with pytest.raises(UserErrorException, match="takes a Run, not str"):
        RunDetails("abc")  # type: ignore[arg-type]
