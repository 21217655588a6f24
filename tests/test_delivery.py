"""A store that is slow, away or picky neither stops a training nor loses what it logged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from conftest import wait_until
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED

from mlflow_pytorch_estimator.estimator.recording import delivery as module
from mlflow_pytorch_estimator.estimator.recording.delivery import Delivery


@dataclass(eq=False)
class Item:
    number: int
    weight: int = 1


@dataclass(eq=False)
class Other(Item):
    pass


@dataclass
class Store:
    """Takes items, or raises what it was told to."""

    error: Exception | None = None
    refused: frozenset[int] = frozenset()
    taken: list[int] = field(default_factory=list)
    calls: int = 0
    free: threading.Event = field(default_factory=threading.Event)

    def send(self, items: Sequence[Item]) -> None:
        self.calls += 1
        assert self.free.wait(10)
        assert len({type(item) for item in items}) == 1
        if self.error is not None:
            raise self.error
        if any(item.number in self.refused for item in items):
            raise MlflowException("http://user:secret@host: bad", INVALID_PARAMETER_VALUE)
        self.taken += [item.number for item in items]


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    made.free.set()
    yield made
    made.error = None
    made.free.set()


@pytest.fixture
def queue(store: Store) -> Delivery[Item]:
    return Delivery(store.send, "the store")


def _idle() -> bool:
    return not any(thread.name == "run-log" for thread in threading.enumerate())


def test_order_and_batches(store: Store, queue: Delivery[Item]) -> None:
    store.free.clear()
    for number in range(1000):
        queue.put((Other if number % 2 else Item)(number))
    assert not queue.flush(0.05)
    store.free.set()
    assert queue.flush(10)
    assert [number for number in store.taken if number % 2] == list(range(1, 1000, 2))
    assert sorted(store.taken) == list(range(1000))
    assert store.calls < 10
    wait_until(_idle, 5, "the end of the idle thread")


@pytest.mark.parametrize("error", [MlflowException("away"), OSError("away"), MlflowException("no", PERMISSION_DENIED)])
def test_a_store_that_is_away_gets_everything_later(
    store: Store, queue: Delivery[Item], caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    store.error = error
    started = time.monotonic()
    for number in range(50):
        queue.put(Item(number))
    assert not queue.flush(0.1)
    assert not queue.flush(0.1)
    assert time.monotonic() - started < 5
    wait_until(lambda: store.calls >= 2, 5, "a second attempt")
    assert len(caplog.records) == 1
    assert "the store does not take what is logged; the training goes on" in caplog.text
    store.error = None
    assert queue.flush(10)
    assert store.taken == list(range(50))


def test_one_bad_entry_does_not_hold_up_the_others(
    store: Store, queue: Delivery[Item], caplog: pytest.LogCaptureFixture
) -> None:
    store.refused = frozenset({3})
    store.free.clear()
    for number in range(6):
        queue.put(Item(number))
    store.free.set()
    assert queue.flush(10)
    assert store.taken == [0, 1, 2, 4, 5]
    assert "the store refused Item(number=3, weight=1)" in caplog.text
    assert "secret" not in caplog.text


def test_memory_is_bounded(
    store: Store, queue: Delivery[Item], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT", 100)
    monkeypatch.setattr(module, "_WARN_EVERY_SECONDS", 0.0)
    store.error = OSError("away")
    for number in range(30):
        queue.put(Item(number, weight=10))
    assert not queue.flush(0.1)
    wait_until(lambda: "19 more were dropped" in caplog.text, 5, "the warning")
    store.error = None
    assert queue.flush(10)
    assert store.taken == list(range(11))


def test_the_end_waits_and_says_what_is_lost(
    store: Store, queue: Delivery[Item], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_EXIT_SECONDS", 0.1)
    store.error = OSError("away")
    queue.put(Item(1))
    queue._at_exit()
    assert "1 records were not stored: the store did not take them" in caplog.text
    store.error = None
    monkeypatch.setattr(module, "AT_EXIT_SECONDS", 10.0)
    queue._at_exit()
    assert store.taken == [1]


def test_an_ending_interpreter_starts_no_thread(
    store: Store, queue: Delivery[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    queue.put(Item(1))
    assert store.taken == [1]
    store.error = OSError("away")
    queue.put(Item(2))
    assert not queue.flush(10)
    store.error = None
    assert queue.flush(10)
    assert store.taken == [1, 2]


def test_a_script_that_is_faster_than_its_store_is_slowed_down_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LIMIT", 50)
    monkeypatch.setattr(module, "BACKLOG", 20)
    monkeypatch.setattr(module, "_BATCH", 10)
    taken: list[int] = []

    def slowly(items: Sequence[Item]) -> None:
        time.sleep(0.02)
        taken.extend(item.number for item in items)

    queue: Delivery[Item] = Delivery(slowly, "the store")
    for number in range(200):
        queue.put(Item(number))
        assert number - len(taken) <= 20 + 10  # what is being sent counts twice for a moment
    assert queue.flush(10)
    assert taken == list(range(200))


def test_a_store_that_hangs_is_waited_for_once(
    store: Store, queue: Delivery[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKLOG", 20)
    waits: list[float | None] = []
    wait_for = threading.Condition.wait_for

    def noted(condition: threading.Condition, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        waits.append(timeout)
        return wait_for(condition, predicate, 0.05)

    monkeypatch.setattr(threading.Condition, "wait_for", noted)
    store.free.clear()
    for number in range(100):
        queue.put(Item(number))
    assert len(waits) == 1
    store.free.set()
    wait_until(lambda: store.taken == list(range(100)), 10, "everything")


def test_who_closes_gets_nothing_more_and_sends_what_is_left(store: Store, queue: Delivery[Item]) -> None:
    store.free.clear()
    for number in range(10):
        queue.put(Item(number))
    closing = threading.Thread(target=queue.close)
    closing.start()
    late = threading.Thread(target=queue.put, args=(Item(10),), daemon=True)
    wait_until(lambda: queue._closed, 5, "the closing")
    late.start()
    store.free.set()
    closing.join(10)
    assert store.taken == list(range(10))
    assert late.is_alive()


def test_closing_gives_up_a_store_that_is_away(store: Store, queue: Delivery[Item]) -> None:
    store.error = OSError("away")
    queue.put(Item(1))
    wait_until(lambda: store.calls == 1, 5, "the first attempt")
    closing = threading.Thread(target=queue.close)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    assert store.calls == 2
