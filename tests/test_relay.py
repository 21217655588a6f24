"""MLflow calls of ranks that go through files: taken down in order, batched, sent on, nothing lost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import Server, copy_store, wait_until
from gateway import Gateway
from mlflow.tracking import MlflowClient
from tracking_server import serving

from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.relay import batches, choosing
from mlflow_pytorch_estimator.relay.calls import Answer, Call, Inbox, Outbox, inboxes
from mlflow_pytorch_estimator.relay.door import Door
from mlflow_pytorch_estimator.relay.forward import Forwarder, StoreAwayError
from mlflow_pytorch_estimator.tracking import Stores

RUNS = "/api/2.0/mlflow/runs/"


def logged(name: str, answered: bool = True, **body: Any) -> Call:
    """A request to one of the paths of runs."""
    text = json.dumps({"run_id": "r", **body})
    return Call(f"{name}-{body.get('key', '')}", "POST", f"{RUNS}{name}", {}, text, answered)


def numbered(*calls: Call) -> list[tuple[Call, int]]:
    return [(call, number + 1) for number, call in enumerate(calls)]


def sizes(*calls: Call) -> list[int]:
    return [len(group.calls) for group in batches.groups(numbered(*calls))]


# --- which stores


@pytest.mark.parametrize(
    ("uri", "near"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://me:word@localhost:5000", "http://localhost:5000"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("/home/me/mlruns", "/home/me/mlruns"),
        ("file:///home/me/mlruns", "file:///home/me/mlruns"),
        ("https://mlflow.example.org", ""),
        ("http://10.0.0.7:5000", ""),
        ("databricks", ""),
        ("databricks://profile", ""),
    ],
)
def test_stores_that_nodes_do_not_reach(uri: str, near: str, home: Path) -> None:
    way = choosing.choose("slurm", uri, lambda: "mlflow-artifacts:/1", asked=None)
    assert way.relay == bool(near)
    assert way.notices == (
        (f"nodes do not reach the tracking store {near}: the ranks' calls go through the job directory",)
        if near
        else ()
    )
    assert choosing.choose("local", uri, lambda: "/", asked=None) == choosing.Way()


def test_what_is_asked_for_counts(home: Path) -> None:
    assert choosing.choose("slurm", "http://10.0.0.7", lambda: "s3://x", asked=True) == choosing.Way(relay=True)
    refused = choosing.choose("slurm", "sqlite:////x.db", lambda: "s3://x", asked=False)
    assert not refused.relay
    assert "relay is false: their calls may fail" in refused.notices[0]
    with pytest.raises(ConfigError, match="relay is for jobs on the nodes of a cluster"):
        choosing.choose("local", "sqlite:////x.db", lambda: "s3://x", asked=True)


def test_artifacts_on_another_file_system_are_said(home: Path) -> None:
    found = choosing.choose("slurm", "http://localhost", lambda: "/proc/artifacts/1", asked=None)
    assert any("go to /proc/artifacts/1, which is on another file system than" in words for words in found.notices)
    beside = choosing.choose("slurm", "http://localhost", lambda: f"file://{home}/not/yet", asked=None)
    assert len(beside.notices) == 1


# --- batches


def test_neighbours_become_one_batch_in_their_order() -> None:
    calls = [
        logged("log-metric", key="loss", value=1.0, step=1, timestamp=5),
        logged("log-parameter", key="lr", value="0.1"),
        logged("set-tag", key="host", value="a"),
        logged("log-batch", metrics=[{"key": "loss", "value": 0.5, "step": 2, "timestamp": 6}], tags=[]),
        logged("log-parameter", key="lr", value="0.1"),
    ]
    (group,) = batches.groups(numbered(*calls))
    assert group.end == 5
    assert group.body == {
        "run_id": "r",
        "metrics": [
            {"key": "loss", "value": 1.0, "step": 1, "timestamp": 5},
            {"key": "loss", "value": 0.5, "step": 2, "timestamp": 6},
        ],
        "params": [{"key": "lr", "value": "0.1"}],
        "tags": [{"key": "host", "value": "a"}],
    }


def test_what_does_not_belong_together_stays_apart() -> None:
    metric = logged("log-metric", key="a", value=1)
    assert sizes(metric, logged("get", answered=False), metric) == [1, 1, 1]
    assert sizes(metric, logged("log-inputs"), metric, metric) == [1, 1, 2]
    assert sizes(metric, Call("x", "POST", f"{RUNS}log-metric", {}, "no json", answered=True)) == [1, 1]
    assert sizes(metric, Call("x", "POST", f"{RUNS}log-batch", {}, None, answered=True)) == [1, 1]
    other = Call("x", "POST", f"{RUNS}log-metric", {}, '{"run_id": "q", "key": "a", "value": 1}', answered=True)
    assert sizes(metric, other) == [1, 1]
    assert sizes(logged("set-tag", key="a", value="1"), logged("set-tag", key="a", value="2")) == [1, 1]
    assert sizes(logged("log-parameter", key="a", value="1"), logged("log-parameter", key="a", value="2")) == [1, 1]


def test_batches_are_no_larger_than_a_store_takes() -> None:
    assert sizes(*[logged("log-metric", key="a", value=n) for n in range(2500)]) == [1000, 1000, 500]
    assert sizes(*[logged("log-parameter", key=f"p{n}", value=n) for n in range(150)]) == [100, 50]
    whole = logged("log-batch", metrics=[{"key": "a", "value": n} for n in range(1000)])
    assert sizes(whole, whole, logged("set-tag", key="a", value="b")) == [1, 1, 1]
    long = "x" * 8000
    assert max(sizes(*[logged("set-tag", key=f"t{n}", value=long) for n in range(100)])) <= 500_000 // 8000


def test_prompt_answers_are_given_only_where_nobody_reads_them() -> None:
    assert batches.prompt_answer("POST", f"{RUNS}log-metric", b"{}") == {}
    assert batches.prompt_answer("GET", f"{RUNS}log-metric", b"{}") is None
    assert batches.prompt_answer("POST", f"{RUNS}create", b"{}") is None
    assert batches.prompt_answer("POST", "/x/2.0/mlflow/runs/log-metric", b"{}") is None
    assert batches.prompt_answer("POST", f"{RUNS}update", b"nonsense") is None
    asked = {"run_id": "r", "status": "FINISHED", "end_time": 7}
    assert batches.prompt_answer("POST", f"{RUNS}update", json.dumps(asked).encode()) == {
        "run_info": {**asked, "lifecycle_stage": "active"}
    }


# --- files


def test_calls_survive_a_writer_that_was_killed(tmp_path: Path) -> None:
    first = Outbox(tmp_path / "n1")
    first.put(logged("log-metric", key="a"))
    with (tmp_path / "n1/calls.jsonl").open("a") as file:
        file.write('\n{"id": "half')
    inbox = Inbox(tmp_path / "n1")
    assert [call.id for call, _ in inbox.unsent()] == ["log-metric-a"]
    second = Outbox(tmp_path / "n1")
    second.put(logged("log-metric", key="b"))
    assert [call.id for call, _ in inbox.unsent()] == ["log-metric-a", "log-metric-b"]
    assert first.next_id() != second.next_id()


def test_what_was_sent_is_remembered(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "n1")
    for key in "abc":
        outbox.put(logged("log-metric", key=key))
    (inbox,) = inboxes(tmp_path)
    (_, _), (call, end), _ = inbox.unsent()
    inbox.done([call], end)
    assert not inbox.empty
    (again,) = inboxes(tmp_path)
    assert [call.id for call, _ in again.unsent()] == ["log-metric-c"]


def test_an_answer_is_read_once(tmp_path: Path) -> None:
    outbox, inbox = Outbox(tmp_path / "n1"), Inbox(tmp_path / "n1")
    call = logged("get", answered=False)
    assert outbox.answer(call.id) is None
    inbox.reply(call, Answer(200, {"Content-Type": "x"}), [b"first\n", b"second"])
    found = outbox.answer(call.id)
    assert found is not None
    with found[1] as body:
        assert (found[0], body.read()) == (Answer(200, {"Content-Type": "x"}), b"first\nsecond")
    assert outbox.answer(call.id) is None


# --- the whole way, with MLflow's own client


@pytest.fixture(scope="module")
def server_uri(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[str]:
    """A real server for all tests here."""
    folder = tmp_path_factory.mktemp("server")
    copy_store(empty_store, folder / "server.db", "mlflow-artifacts:/0")
    with serving(folder / "server.db") as uri:
        yield uri


@pytest.fixture
def server(home: Path, server_uri: str) -> Server:
    return Server(server_uri, MlflowClient(server_uri, server_uri))


@pytest.fixture(params=["sqlite", "server"])
def stores(request: pytest.FixtureRequest) -> Stores:
    if request.param == "server":
        uri = request.getfixturevalue("server").uri
        return Stores(uri, uri)
    request.getfixturevalue("store")
    return Stores.current()


@pytest.fixture
def directory(home: Path) -> JobDir:
    staged, lock = JobDir.stage()
    lock.close()
    return staged


@pytest.fixture
def door(directory: JobDir) -> Iterator[Door]:
    opened = Door(directory.relay / "n1")
    yield opened
    opened.close()


@pytest.fixture
def forwarder(directory: JobDir, stores: Stores) -> Iterator[Forwarder]:
    made = Forwarder(directory, stores)
    yield made
    made.close()


@pytest.fixture
def pumping(forwarder: Forwarder) -> Iterator[None]:
    """Everything is sent on as it comes."""
    over = threading.Event()

    def pump() -> None:
        while not over.wait(0.02):
            forwarder.pump()

    thread = threading.Thread(target=pump)
    thread.start()
    yield
    over.set()
    thread.join()


def environment(door: Door, run_id: str = "") -> dict[str, str]:
    theirs = {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_REGISTRY_URI": "x", "MLFLOW_TRACKING_URI": "x"}
    return door.environment({**os.environ, **theirs, "MLFLOW_RUN_ID": run_id})


def run_script(text: str, environ: dict[str, str], folder: Path) -> str:
    """What a script says that ends well."""
    done = subprocess.run(
        [sys.executable, "-c", text], env=environ, cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


SCRIPT = """
import mlflow, pathlib
with mlflow.start_run() as run:
    mlflow.log_params({f"p{n}": n for n in range(120)})
    for step in range(1500):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metrics({"a": 1.0, "b": float("nan"), "c": float("inf")})
    mlflow.set_tag("host", "n1")
    mlflow.set_tag("host", "n2")
    mlflow.log_dict({"made": "by a rank"}, "made.json")
    pathlib.Path("weights.bin").write_bytes(bytes(range(256)) * 12_000)
    mlflow.log_artifact("weights.bin", "model")
    found = mlflow.get_run(run.info.run_id).data
    assert found.metrics["loss"] == 1 / 1500, found.metrics
    assert (found.params["p119"], found.tags["host"]) == ("119", "n2")
    model = mlflow.MlflowClient().create_logged_model(run.info.experiment_id, "net", source_run_id=run.info.run_id)
    mlflow.MlflowClient().finalize_logged_model(model.model_id, "READY")
    path = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="model/weights.bin")
    assert pathlib.Path(path).read_bytes() == pathlib.Path("weights.bin").read_bytes()
    print("model", model.model_id)
"""


@pytest.mark.usefixtures("pumping")
def test_a_script_that_knows_nothing_logs_through_files(
    stores: Stores, directory: JobDir, door: Door, tmp_path: Path
) -> None:
    client = stores.client()
    run_id = client.create_run("0").info.run_id
    said = run_script(SCRIPT, environment(door, run_id), tmp_path)
    wait_until(lambda: client.get_run(run_id).info.status == "FINISHED", 30)
    found = client.get_run(run_id)
    assert len(client.get_metric_history(run_id, "loss")) == 1500
    assert (found.data.metrics["a"], found.data.metrics["c"] > 1e300) == (1.0, True)
    assert len(found.data.params) == 120
    assert found.data.tags["host"] == "n2"
    assert found.info.end_time is not None
    assert client.get_logged_model(re.findall("model (m-.*)", said)[0]).status == "READY"
    assert sorted(item.path for item in client.list_artifacts(run_id)) == ["made.json", "model"]
    assert not directory.relay_log.exists()
    wait_until(lambda: not list(directory.relay.glob("n1/*-*")), 30)  # bodies and answers are cleared away


@pytest.mark.usefixtures("pumping")
def test_what_a_store_refuses_is_written_down_and_takes_nothing_along(
    stores: Stores, directory: JobDir, door: Door, tmp_path: Path
) -> None:
    client = stores.client()
    run_id = client.create_run("0").info.run_id
    script = """
import mlflow
with mlflow.start_run():
    mlflow.log_param("lr", 1)
    mlflow.log_metric("before", 1)
    mlflow.log_param("lr", 2)
    mlflow.log_metric("after", 2)
"""
    run_script(script, environment(door, run_id), tmp_path)
    wait_until(lambda: client.get_run(run_id).info.status == "FINISHED", 30)
    data = client.get_run(run_id).data
    assert (data.params, data.metrics) == ({"lr": "1"}, {"before": 1.0, "after": 2.0})
    (line,) = directory.relay_log.read_text().splitlines()
    assert f"POST {RUNS}log-parameter: 400" in line
    assert "Changing param values is not allowed" in line


def test_only_who_has_the_token_is_answered(door: Door, directory: JobDir) -> None:
    environ = environment(door)
    uri = environ["MLFLOW_TRACKING_URI"]
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}):
        said = requests.post(f"{uri}{RUNS}log-metric", json={"run_id": "r"}, headers=headers, timeout=10)
        assert (said.status_code, said.json()["error_code"]) == (401, "UNAUTHENTICATED")
    assert (directory.relay / "n1/calls.jsonl").read_text() == ""
    right = {"Authorization": f"Bearer {environ['MLFLOW_TRACKING_TOKEN']}"}
    assert requests.post(f"{uri}{RUNS}log-metric", json={"run_id": "r"}, headers=right, timeout=10).json() == {}
    assert "MLFLOW_TRACKING_USERNAME" not in environ
    assert "MLFLOW_REGISTRY_URI" not in environ
    assert environ["MLFLOW_TRACKING_TOKEN"] not in (directory.relay / "n1/calls.jsonl").read_text()


# --- stores that are away


@pytest.fixture
def behind(gateway: Gateway, directory: JobDir) -> Forwarder:
    return Forwarder(directory, Stores(gateway.uri, gateway.uri))


def post(door: Door, name: str, **body: Any) -> requests.Response:
    environ = environment(door)
    headers = {"Authorization": f"Bearer {environ['MLFLOW_TRACKING_TOKEN']}"}
    return requests.post(f"{environ['MLFLOW_TRACKING_URI']}{RUNS}{name}", json=body, headers=headers, timeout=60)


def test_a_store_that_is_away_loses_nothing(server: Server, gateway: Gateway, behind: Forwarder, door: Door) -> None:
    run_id = server.client.create_run("0").info.run_id
    post(door, "log-metric", run_id=run_id, key="a", value=1, step=0, timestamp=1)
    assert behind.pump() == 1
    gateway.away = True
    for step in range(1, 50):
        assert post(door, "log-metric", run_id=run_id, key="a", value=step, step=step, timestamp=1).status_code == 200
    with pytest.raises(StoreAwayError, match="the tracking store does not answer: "):
        behind.pump()
    gateway.away = False
    for status in (503, 429, 502):
        gateway.status = {"log-batch": status}
        with pytest.raises(StoreAwayError, match=f"answers {status}"):
            behind.pump()
    gateway.status = {}
    assert behind.pump() == 49
    assert behind.pump() == 0
    assert [metric.step for metric in server.client.get_metric_history(run_id, "a")] == list(range(50))


def test_a_rank_that_asks_waits_for_a_store_that_is_away(
    gateway: Gateway, behind: Forwarder, door: Door, directory: JobDir
) -> None:
    gateway.away = True
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(post(door, "search", experiment_ids=["0"]).status_code))
    thread.start()
    for _ in range(3):
        wait_until(lambda: not inboxes(directory.relay)[0].empty, 10)
        with pytest.raises(StoreAwayError):
            behind.pump()
    assert answers == []
    gateway.away = False
    assert behind.pump() == 1
    thread.join(30)
    assert answers == [200]


def test_a_request_that_breaks_the_server_does_not_hold_up_the_others(
    server: Server, gateway: Gateway, behind: Forwarder, door: Door, directory: JobDir
) -> None:
    run_id = server.client.create_run("0").info.run_id
    gateway.status = {"log-inputs": 500}
    post(door, "log-inputs", run_id=run_id)
    post(door, "set-tag", run_id=run_id, key="after", value="it")
    for _ in range(5):
        with pytest.raises(StoreAwayError, match="answers 500"):
            behind.pump()
    assert behind.pump() == 2
    assert server.client.get_run(run_id).data.tags["after"] == "it"
    assert f"POST {RUNS}log-inputs: 500" in directory.relay_log.read_text()
    assert gateway.asked.count("log-inputs") == 6
