"""Where users stumble: odd names and values, Ctrl-C, stores that refuse, MLflow's own logging beside ours."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import (
    DataInput,
    Experiment,
    PyTorch,
    Run,
    ScriptRunConfig,
    TrainingException,
    UserErrorException,
    Workspace,
    WorkspaceException,
)
from mlflow_pytorch_estimator.data_input import DataInput as Input
from mlflow_pytorch_estimator.errors import GpuClusterError, ProjectError
from mlflow_pytorch_estimator.estimator import training
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.jobenv import CARRIED_VARIABLE, rank_environment
from mlflow_pytorch_estimator.spec import InterpreterSpec, JobSpec, Resources

Make = Callable[..., Run]


@pytest.fixture
def submit(experiment: Experiment, folder: Path) -> Make:
    def make(text: str, script: str = "train.py", **options: Any) -> Run:
        path = folder / script
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return experiment.submit(estimator(folder, entry_script=script, **options))

    return make


def estimator(folder: Path, **options: Any) -> PyTorch:
    return PyTorch(folder, **{"compute_target": "local", "user_managed": True, "entry_script": "train.py", **options})


def _log(run: Run) -> str:
    return str(run.get_details_with_logs()["logFiles"].get("logs/rank_0.log", ""))


# --- parameters


def test_parameters_of_any_name_reach_script_and_run(submit: Make) -> None:
    params = {"--a@b": 1, "--" + "n" * 300: "v", "--.": 2, "-x": 3, "--x": 4, "---": "5", "--a//b": "", "-e=f": "g"}
    run = submit("import json, sys\nprint(json.dumps(sys.argv[1:]))", script_params=params)
    assert run.wait_for_completion()["status"] == "Completed"
    assert json.loads(_log(run)) == [str(part) for pair in params.items() for part in pair if part != ""]
    stored = run.experiment.workspace.stores.client().get_run(run.id).data.params
    assert stored["a_b"] == "1"
    assert stored["x"] == "3"
    assert sorted(value for name, value in stored.items() if "x" in name) == ["3", "4"]


def test_of_an_option_given_twice_the_last_is_shown() -> None:
    assert training.parameters_of(["--lr", "1", "--lr", "2", "--lr=3", "-5", "--", "---"]) == {"lr": "3"}


# --- the script and its folder


@pytest.mark.parametrize(("script", "shown"), [("-c.py", "./-c.py"), ("deep/-m.py", "deep/-m.py")])
def test_a_script_that_is_called_like_an_option(submit: Make, script: str, shown: str) -> None:
    run = submit("import sys\nprint(sys.argv[0])", script)
    run.wait_for_completion()
    assert _log(run) == f"{shown}\n"


@pytest.mark.parametrize("script", [".", "..", "../x.py", "/etc/passwd"])
def test_a_script_that_is_none(folder: Path, script: str) -> None:
    with pytest.raises(TrainingException, match="entry_script"):
        estimator(folder, entry_script=script)


@pytest.mark.parametrize(
    ("script", "ignored"),
    [
        ("train.py", "train.py\n"),
        ("deep/train.py", "deep/\n"),
        ("deep/train.py", "*.py\n"),
        ("outputs/train.py", ""),
        ("venv/train.py", ""),
    ],
)
def test_a_script_that_the_job_would_lack_is_refused(submit: Make, folder: Path, script: str, ignored: str) -> None:
    (folder / ".gitignore").write_text(ignored)
    (folder / "venv").mkdir()
    (folder / "venv/pyvenv.cfg").touch()
    with pytest.raises(ProjectError, match=f"would lack '{script}'.*amlignore"):
        submit("", script)
    assert list(Experiment(Workspace(), "birds").get_runs()) == []


def test_an_amlignore_brings_the_script_back(submit: Make, folder: Path) -> None:
    (folder / ".gitignore").write_text("*.py\n")
    (folder / ".amlignore").write_text("!train.py\n")
    (folder / "real").mkdir()
    (folder / "real/one.py").write_text("print('linked')")
    (folder / "link").symlink_to("real")
    run = submit("print('x')")
    run.wait_for_completion()
    assert _log(run) == "x\n"
    assert estimator(folder, entry_script="link/one.py").describe().source.describe(folder).entry_point == "link/one.py"


def test_a_folder_whose_name_is_not_utf8(experiment: Experiment, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe d\n"))
    odd.mkdir()
    (odd / "train.py").write_text("print('x')")
    run = experiment.submit(estimator(odd))
    assert run.wait_for_completion()["status"] == "Completed"
    assert "\\udcff" in run.tags["mlflow.source.name"]


# --- inputs


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"a-b": ".", "a_b": "."}, "'a-b' and 'a_b' would share"),
        ({"a": ".", "A": "."}, "GPU_CLUSTER_INPUT_A"),
        ([".", DataInput(".", "input_0")], "two inputs are called 'input_0'"),
        ({"a b": "."}, "'a b' cannot name an input"),
        ({"": "."}, "'' cannot name an input"),
    ],
)
def test_inputs_that_the_script_could_not_tell_apart(folder: Path, inputs: object, words: str) -> None:
    (folder / "train.py").touch()
    with pytest.raises(TrainingException, match=words):
        estimator(folder, inputs=inputs)


def test_file_uris_and_addresses(tmp_path: Path) -> None:
    path = tmp_path / "with space"
    path.mkdir()
    assert Input(path.as_uri()).local_path() == str(path)
    assert Input(f"file:{tmp_path}/with%20space").local_path() == str(path)
    with pytest.raises(ProjectError, match=r"https://.* cannot be downloaded.*mode='direct'"):
        Input("https://example.org/x").local_path()
    with pytest.raises(ProjectError, match=r"there is no file or folder '/nope'$"):
        Input("/nope").local_path()


# --- variables and secrets


def test_variables_are_counted_in_bytes() -> None:
    assert len(training.variables({"A": "v" * 120_000})["A"]) == 120_000
    for value in ("v" * 140_000, "é" * 30_000, "\n" * 70_000):
        with pytest.raises(TrainingException, match=r"take \d+ bytes and are too long"):
            training.variables({"A": value})


def test_paths_of_the_user_do_not_hide_the_jobs_own(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    directory.library.mkdir()
    spec = InterpreterSpec("uv", {}, python="/env/bin/python")
    job = JobSpec("r", "0", "p", "main", "true", {}, spec, resources=Resources())
    theirs = {"PATH": "/theirs", "PYTHONPATH": "/mine", "PYTHONDONTWRITEBYTECODE": "1"}
    made = rank_environment({"PATH": "/usr/bin", CARRIED_VARIABLE: json.dumps(theirs)}, job, directory)
    assert made["PATH"] == "/env/bin:/theirs"
    assert made["PYTHONPATH"] == f"{directory.library}:/mine"
    assert made["PYTHONDONTWRITEBYTECODE"] == "1"
    assert CARRIED_VARIABLE not in made


def test_no_secret_in_what_an_estimator_shows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "train.py").touch()
    monkeypatch.setenv("HUB_TOKEN", "from'the\"shell\n")
    made = estimator(
        folder,
        environment_variables={"MY_KEY": "hunter2hunter2", "PLAIN": "thing"},
        script_params={"--key": "hunter2hunter2", "--hub": "a from'the\"shell\n b", "--url": "https://me:pw@host/"},
    )
    shown = repr(made)
    assert "environment_variables=['MY_KEY', 'PLAIN']" in shown
    assert "'--key': '<MY_KEY>', '--hub': 'a <HUB_TOKEN> b', '--url': 'https://host/'" in shown
    assert not [word for word in ("hunter2", "shell", "thing", "pw") if word in shown]


def test_descriptions_and_runs_can_be_copied(submit: Make, folder: Path) -> None:
    run = submit("print('x')")
    run.wait_for_completion()
    for made in (copy.deepcopy(run), pickle.loads(pickle.dumps(run))):  # noqa: S301 - our own bytes
        assert (made.id, made.status) == (run.id, "Completed")
    for described in (estimator(folder), PyTorch(folder, compute_target="local", entry_script="train.py")):
        again = pickle.loads(pickle.dumps(described))  # noqa: S301 - our own bytes
        assert again.describe().source.words == ("python", "train.py")


# --- the run inside of a job


def test_the_context_survives_mlflows_own_runs(submit: Make) -> None:
    run = submit(
        "import mlflow, multiprocessing\nfrom mlflow_pytorch_estimator import Run\n"
        "def worker():\n    Run.get_context().log('worker', 1)\n"
        "if __name__ == '__main__':\n"
        "    print(Run.get_context().status)\n"
        "    with mlflow.start_run():\n        mlflow.log_metric('theirs', 1)\n"
        "    run = Run.get_context(allow_offline=False)\n    run.log('ours', 2)\n"
        "    with mlflow.start_run(), mlflow.start_run(nested=True):\n        Run.get_context().log('nested', 3)\n"
        "    process = multiprocessing.get_context('spawn').Process(target=worker)\n"
        "    process.start()\n    process.join()\n"
    )
    run.wait_for_completion()
    assert run.get_metrics() == {"theirs": 1, "ours": 2, "nested": 3, "worker": 1}
    assert "Running" in _log(run).splitlines()


def test_only_rank_zero_writes_to_the_run_that_the_ranks_share(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = experiment.start_logging()
    monkeypatch.setenv("MLFLOW_RUN_ID", run.id)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    mine, before = Run.get_context(), run.name
    assert isinstance(mine, Run)
    with caplog.at_level("INFO"):
        mine.log("a", 1)
        mine.tag("b", "1")
        mine.display_name = "rank 1"
        mine.description = "rank 1"
    assert caplog.text.count("does not write to the run") == 1
    assert (run.name, run.description, run.get_metrics()) == (before, None, {})
    assert "b" not in run.tags


# --- waiting

_WAIT = """
import sys
from mlflow_pytorch_estimator import Run, Workspace
run = Workspace().get_run(sys.argv[1])
print("up", flush=True)
run.wait_for_completion(show_output=sys.argv[2] == "yes")
"""


def _waiting(run: Run, show: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _WAIT, run.id, show],
        text=True,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **options,
    )


def test_ctrl_c_is_answered_also_without_output(submit: Make) -> None:
    run = submit("import time\ntime.sleep(600)")
    with _waiting(run, "no", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "up\n"
        wait_until(lambda: run.status == "Running")
        time.sleep(1)  # until it follows the job
        os.killpg(process.pid, signal.SIGINT)
        while "press Ctrl-C again" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(0.3)  # no hand is faster
        os.killpg(process.pid, signal.SIGINT)
        assert "canceling" in process.stderr.read()
    assert run.status == "Canceled"


def test_nobody_reads_the_header(submit: Make) -> None:
    run = submit("print('x')")
    reader, writer = os.pipe()
    os.close(reader)
    # `up` has nobody to read it either: that line is the test's own.
    code = _WAIT.replace('print("up", flush=True)', "")
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, run.id, "yes"], stdout=writer, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(writer)
        assert process.stderr is not None
        assert "DetachedError: nobody reads the output of run" in process.stderr.read()
    assert run.wait_for_completion()["status"] == "Completed"


def test_a_store_that_refuses_the_end_is_one_line(submit: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

    run = submit("print('x')")
    run.wait_for_completion()

    def refuse(*_given: object) -> None:
        raise MlflowException("API request to http://me:pw@host failed\nwith much text")

    monkeypatch.setattr(GpuClusterSubmittedRun, "follow", refuse)
    with pytest.raises(GpuClusterError, match=r"did not take the end of run .*http://host failed with much") as caught:
        run.wait_for_completion()
    assert "\n" not in str(caught.value)


# --- experiments, tags and names


def test_an_archived_experiment_says_so(experiment: Experiment, folder: Path) -> None:
    (folder / "train.py").touch()
    experiment.archive()
    experiment.archive()
    attempts: list[Callable[[], object]] = [lambda: experiment.submit(estimator(folder)), experiment.start_logging]
    for attempt in attempts:
        with pytest.raises(UserErrorException, match=r"archived; reactivate\(\)"):
            attempt()
    Experiment(experiment.workspace, "cats")
    with pytest.raises(UserErrorException, match="there is an experiment 'cats' already"):
        experiment.reactivate("cats")
    assert experiment.archived_time is not None
    experiment.reactivate("birds")
    assert experiment.start_logging().status == "Running"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tags": {"a@b": 1}}, "'a@b' cannot be the key of a tag"),
        ({"tags": {"a": "\udcff"}}, "no valid Unicode"),
        ({"run_name": 3}, "run_name is 3"),
        ({"run_name": "x" * 251}, "run_name is 'xxx"),
    ],
)
def test_names_that_no_store_takes(experiment: Experiment, folder: Path, options: dict[str, Any], words: str) -> None:
    (folder / "train.py").touch()
    with pytest.raises(UserErrorException, match=words):
        experiment.submit(estimator(folder), **options)
    with pytest.raises(UserErrorException, match=words):
        experiment.start_logging(**options)
    assert list(experiment.get_runs()) == []


def test_a_tag_that_mlflow_refuses(experiment: Experiment) -> None:
    run = experiment.start_logging()
    for method in (run.set_tags, run.add_properties):
        with pytest.raises(UserErrorException, match="cannot be the key"):
            method({"good": "1", "a@b": "1"})
    assert "good" not in run.tags


def test_a_store_that_is_away_is_one_line_without_password(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    workspace = Workspace(tracking_uri="http://me:pw12345@127.0.0.1:9")
    for attempt in (
        lambda: Experiment(workspace, "x"),
        lambda: workspace.get_run("a" * 32),
        lambda: workspace.experiments,
    ):
        with pytest.raises(UserErrorException) as caught:
            attempt()
        assert "pw12345" not in str(caught.value)
        assert "no run" not in str(caught.value)
        assert "127.0.0.1" in str(caught.value)


def test_a_store_that_cannot_be(home: Path) -> None:
    for uri in ("foo://x", "postgresql+pg8000://u:pw@h/db"):
        with pytest.raises((UserErrorException, GpuClusterError), match="experiment 'x'"):
            Experiment(Workspace(tracking_uri=uri), "x")


# --- workspaces


def test_a_workspace_shows_no_password(tmp_path: Path, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "config.json"
    path.write_text('\ufeff{"tracking_uri": "postgresql://me:pw12345@host/db"}', encoding="utf-8")
    with caplog.at_level("INFO"):
        workspace = Workspace.from_config(path)
    assert workspace.get_mlflow_tracking_uri() == "postgresql://me:pw12345@host/db"
    assert "postgresql://host/db" in repr(workspace)
    assert "pw12345" not in f"{workspace!r}{caplog.text}{workspace.get_details()}"


def test_a_config_that_is_passed_over_is_named(
    store: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text('{"tracking_uri": ')
    with caplog.at_level("INFO"):
        assert Workspace.from_config().get_mlflow_tracking_uri() == store.tracking_uri
    assert f"passed over {tmp_path / 'config.json'}" in caplog.text


def test_a_config_that_cannot_be_written(tmp_path: Path, home: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceException, match="cannot write"):
        Workspace().write_config(tmp_path / "file")


def test_script_run_config_checks_the_script_too(experiment: Experiment, folder: Path) -> None:
    (folder / ".gitignore").write_text("train.py")
    (folder / "train.py").touch()
    with pytest.raises(ProjectError, match="would lack"):
        experiment.submit(ScriptRunConfig(folder, "train.py", compute_target="local"))
