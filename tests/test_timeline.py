"""The picture of a job's way: well-formed, to scale, in the colours of what happened, whatever the names are."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from mlflow_pytorch_estimator import timeline
from mlflow_pytorch_estimator.jobdir import Outcome
from mlflow_pytorch_estimator.journal import Event
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.timeline import svg

SVG = "{http://www.w3.org/2000/svg}"
EVENTS = [
    Event(Phase.PREPARING, 1000.0),
    Event(Phase.QUEUED, 1010.0),
    Event(Phase.RUNNING, 1020.0, "on a"),
    Event(Phase.RUNNING, 1025.0, "more"),
    Event(Phase.FINALIZING, 1040.0),
]


def life(rank: int, start: float, end: float, code: int, *, attempt: int = 1, node: str = "a") -> dict[str, Any]:
    return {"rank": rank, "node": node, "attempt": attempt, "start": start, "end": end, "exit_code": code}


def drawn(
    events: list[Event], outcome: Outcome | None, now: float = 0.0
) -> tuple[list[str], list[tuple[float, float, str, str]]]:
    """All texts, and x, width, colour and title of each bar."""
    root = ElementTree.fromstring(svg(events, outcome, now))  # noqa: S314 - our own
    bars = [
        (
            float(rect.attrib["x"]),
            float(rect.attrib["width"]),
            rect.attrib["fill"],
            rect.findtext(f"{SVG}title", ""),
        )
        for rect in root.iter(f"{SVG}rect")
        if "x" in rect.attrib
    ]
    return [text.text or "" for text in root.iter(f"{SVG}text")], bars


def test_phases_are_to_scale() -> None:
    texts, bars = drawn(EVENTS, None, now=1042.0)
    assert [title for *_, title in bars] == ["Preparing 10.0 s", "Queued 10.0 s", "Running 20.0 s", "Finalizing 2.0 s"]
    widths = [width for _, width, *_ in bars]
    assert widths[0] == pytest.approx(widths[1], abs=0.2)
    assert widths[2] == pytest.approx(2 * widths[0], abs=0.2)
    assert widths[3] == pytest.approx(0.2 * widths[0], abs=0.2)
    assert bars[1][0] == pytest.approx(bars[0][0] + widths[0], abs=0.2)
    assert {"0 s", "10 s", "40 s", "phases", "Running 20.0 s"} <= set(texts)
    assert "Finalizing 2.0 s" not in texts  # no room


def test_ranks_show_who_failed_and_who_was_ended_by_it() -> None:
    outcome = Outcome(
        Phase.FAILED,
        "rank 1",
        3,
        1041.0,
        {"rank": 1},
        [
            life(0, 1020, 1030, -6),
            life(1, 1020, 1030, 1),
            life(0, 1031, 1040, -15, attempt=2),
            life(1, 1031, 1038, 3, attempt=2, node="b"),
            life(2, 1031, 1038, 0, attempt=2),
        ],
    )
    texts, bars = drawn(EVENTS, outcome)
    ranks = {title: colour for *_, colour, title in bars if title.startswith("rank")}
    assert ranks == {
        "rank 0 on a, attempt 1: SIGABRT after 10.0 s": "#e39a95",
        "rank 1 on a, attempt 1: exit status 1 after 10.0 s": "#e39a95",
        "rank 0 on a, attempt 2: SIGTERM after 9.0 s": "#e39a95",
        "rank 1 on b, attempt 2: exit status 3 after 7.0 s": "#cf3c34",
        "rank 2 on a, attempt 2: exit status 0 after 7.0 s": "#4c9f62",
    }
    assert {"rank 0", "rank 1", "rank 2", "SIGTERM", "exit status 3"} <= set(texts)


def test_ended_by_request_is_no_failure() -> None:
    outcome = Outcome(Phase.CANCELED, "canceled by request", None, 1041.0, None, [life(0, 1020, 1040, -15)])
    assert drawn(EVENTS, outcome)[1][-1][2] == "#a9a9a9"


def test_of_many_ranks_those_that_failed_are_shown() -> None:
    lives = [life(rank, 1020, 1030, int(rank == 200)) for rank in range(256)]
    outcome = Outcome(Phase.FAILED, "rank 200", 1, 1041.0, {"rank": 200}, lives)
    texts, _ = drawn(EVENTS, outcome)
    lanes = [text for text in texts if text.startswith("rank ")]
    assert len(lanes) == 32
    assert lanes[-1] == "rank 200"
    assert "and 224 more ranks" in texts


@pytest.mark.parametrize("seconds", [0.0, 0.01, 3.0, 59.0, 4000.0, 90_000.0, 3_000_000.0])
def test_any_length_fits(seconds: float) -> None:
    events = [Event(Phase.QUEUED, 1000.0), Event(Phase.RUNNING, 1000.0)]
    texts, bars = drawn(events, Outcome(Phase.COMPLETED, "", 0, 1000.0 + seconds))
    assert 1 <= len([text for text in texts if text.endswith((" s", " min", " h"))]) <= 11
    assert all(x >= 110 and x + width <= 760 - 130 + 0.01 for x, width, *_ in bars)


def test_times_are_words_of_people() -> None:
    words = {
        seconds: timeline._tick_words(seconds) for seconds in (0.5, 59.0, 60.0, 70.0, 7140.0, 7800.0, 9000.0, 86400.0)
    }
    assert list(words.values()) == ["0.5 s", "59 s", "1 min", "1:10 min", "119 min", "2:10 h", "2:30 h", "24 h"]


def test_names_are_escaped_and_nothing_is_drawn_of_nothing() -> None:
    outcome = Outcome(Phase.COMPLETED, "", 0, 1041.0, None, [life(0, 1020, 1040, 0, node="<script>&\"'")])
    assert "<script>" not in svg(EVENTS, outcome, 0.0)
    assert any("<script>&\"'" in title for *_, title in drawn(EVENTS, outcome)[1])
    assert svg([], None, 5.0) == ""


def test_a_clock_that_goes_back_makes_no_negative_width() -> None:
    events = [Event(Phase.QUEUED, 1000.0), Event(Phase.RUNNING, 900.0), Event(Phase.FINALIZING, 950.0)]
    outcome = Outcome(Phase.COMPLETED, "", 0, 940.0, None, [life(0, 960, 930, 0)])
    assert all(width > 0 and x >= 100 for x, width, *_ in drawn(events, outcome)[1])
