"""The journal of phases, and the timeline that is made of it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlflow_pytorch_estimator import journal
from mlflow_pytorch_estimator.journal import Event
from mlflow_pytorch_estimator.status import Phase

TEXTS = [
    "",
    "plain",
    "line\nbreak",
    "\r\n",
    "täglich ☃",
    '"quoted" \\',
    "\u2028\u2029\x85\x0b\x1c",
    "\udcff",
    "x" * 100_000,
]


def test_a_journal_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert journal.read(tmp_path / "none") == []


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_comes_back(tmp_path: Path, phase: Phase) -> None:
    before = time.time()
    journal.append(tmp_path / "j", phase)
    (event,) = journal.read(tmp_path / "j")
    assert event.phase is phase
    assert before - 0.01 <= event.time <= time.time() + 0.01


def test_every_text_comes_back(tmp_path: Path) -> None:
    for text in TEXTS:
        journal.append(tmp_path / "j", Phase.RUNNING, text)
    assert [event.message for event in journal.read(tmp_path / "j")] == TEXTS
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o600


def test_a_line_cut_short_by_a_full_disk_costs_only_itself(tmp_path: Path) -> None:
    journal.append(tmp_path / "j", Phase.QUEUED, "first")
    with (tmp_path / "j").open("ab") as handle:
        handle.write(b'{"phase": "Runn')
    journal.append(tmp_path / "j", Phase.FINALIZING, "last")
    assert [event.message for event in journal.read(tmp_path / "j")] == ["first", "last"]


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    journal.append(tmp_path / "j", Phase.QUEUED)
    with (tmp_path / "j").open("a") as handle:
        handle.write('{"phase": "Running", "time": 1')
    assert [event.phase for event in journal.read(tmp_path / "j")] == [Phase.QUEUED]


WRITER = """
import sys
from pathlib import Path
from mlflow_pytorch_estimator import journal
from mlflow_pytorch_estimator.status import Phase
for number in range(200):
    journal.append(Path(sys.argv[1]), Phase.RUNNING, f"{sys.argv[2]}-{number} " + "x" * (number * 10))
"""


def test_writers_in_several_processes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "j"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(me)]) for me in range(4)]
    while any(writer.poll() is None for writer in writers):
        journal.read(path)  # never sees half a line
    found = [event.message.split()[0] for event in journal.read(path)]
    assert len(found) == 800
    for me in range(4):
        own = [name for name in found if name.startswith(f"{me}-")]
        assert own == [f"{me}-{number}" for number in range(200)]


def test_the_timeline_joins_what_a_phase_says() -> None:
    events = [
        Event(Phase.PREPARING, 100.0),
        Event(Phase.PREPARING, 101.0, "installing"),
        Event(Phase.QUEUED, 110.5),
        Event(Phase.QUEUED, 111.0, "waiting"),
        Event(Phase.RUNNING, 120.0, "on x"),
        Event(Phase.FINALIZING, 150.25),
    ]
    assert journal.timeline(events, 151.0) == [
        {"phase": "Preparing", "start": 100.0, "seconds": 10.5},
        {"phase": "Queued", "start": 110.5, "seconds": 9.5},
        {"phase": "Running", "start": 120.0, "seconds": 30.25},
        {"phase": "Finalizing", "start": 150.25, "seconds": 0.75},
    ]


def test_the_timeline_of_nothing_is_empty() -> None:
    assert journal.timeline([], 1.0) == []


def test_a_phase_that_comes_back_is_listed_again_and_an_end_has_no_length() -> None:
    events = [Event(Phase.RUNNING, 1.0), Event(Phase.QUEUED, 2.0), Event(Phase.RUNNING, 3.0), Event(Phase.FAILED, 4.0)]
    found = journal.timeline(events, 99.0)
    assert [entry["phase"] for entry in found] == ["Running", "Queued", "Running", "Failed"]
    assert [entry["seconds"] for entry in found] == [1.0, 1.0, 1.0, 0.0]


def test_a_clock_that_is_set_back_gives_no_negative_length() -> None:
    events = [Event(Phase.QUEUED, 100.0), Event(Phase.RUNNING, 90.0)]
    assert [entry["seconds"] for entry in journal.timeline(events, 80.0)] == [0.0, 0.0]


def test_phases_know_their_end_and_mlflows_word() -> None:
    from mlflow.entities import RunStatus

    for phase in Phase:
        status = RunStatus.from_string(phase.mlflow_status)
        assert RunStatus.is_terminated(status) == phase.terminal
        assert str(phase) == phase.value
