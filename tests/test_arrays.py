"""Arrays on this machine: runs of one project that differ in their parameters, all or nothing, below one run."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from array_jobs import Gates, above, job, one_core, script, settled, statuses
from conftest import Project, processes_with, wait_until
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import Environment, Experiment, PyTorch, ScriptRunConfig, tracking
from mlflow_pytorch_estimator.arrays import group
from mlflow_pytorch_estimator.arrays.submit import submit_many
from mlflow_pytorch_estimator.config import read_config
from mlflow_pytorch_estimator.errors import ConfigError, GpuClusterError, ProjectError
from mlflow_pytorch_estimator.jobdir import JobDir, Outcome
from mlflow_pytorch_estimator.project_source import ProjectSource
from mlflow_pytorch_estimator.request import Request
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun
from mlflow_pytorch_estimator.tracking import Stores


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    return Gates(tmp_path / "gates")


def numbers(count: int) -> list[dict[str, Any]]:
    return [{"--number": number} for number in range(count)]


def left_behind(home: Path) -> list[str]:
    jobs = home / "jobs"
    return [path.name for path in jobs.iterdir()] if jobs.is_dir() else []


# --- running


def test_runs_that_differ_in_their_parameters(
    experiment: Experiment, folder: Path, gates: Gates, store: MlflowClient
) -> None:
    config = script(folder, gates)
    parameters: list[dict[str, Any]] = [{"--number": 0}, {"--number": 1, "--fails": ""}, {"--number": 2}]
    runs = experiment.submit_array(config, parameters, {"kind": "sweep"}, run_name="sweep")
    (folder / "train.py").write_text("raise SystemExit('edited after the submission')")
    gates.end(0, 1, 2)
    assert settled(runs) == ["FINISHED", "FAILED", "FINISHED"]
    assert above(runs).wait_for_completion(raise_on_error=False)["error"] == {
        "error": {"code": "Failed", "message": "1 of 3 runs failed"}
    }
    assert statuses([above(runs)]) == ["FAILED"]
    assert [run.name for run in (above(runs), *runs)] == ["sweep", "sweep-0", "sweep-1", "sweep-2"]
    assert [store.get_run(run.id).data.params for run in runs] == [
        {"number": "0"},
        {"number": "1", "fails": ""},
        {"number": "2"},
    ]
    assert len({run.get_snapshot_id() for run in (above(runs), *runs)}) == 1
    assert {run.tags["kind"] for run in (above(runs), *runs)} == {"sweep"}
    assert [run.id for run in experiment.get_runs()] == [above(runs).id]
    assert f"| {runs[1].id} | fails=, number=1 |" in above(runs).tags["mlflow.note.content"]
    assert [job(run).directory.rank_log(0).read_text() for run in runs] == [f"number {n}\n" for n in range(3)]


def test_parameters_replace_those_of_an_estimator(experiment: Experiment, folder: Path, store: MlflowClient) -> None:
    (folder / "train.py").write_text("import sys\nprint(sys.argv[1:])\n")
    estimator = PyTorch(
        folder,
        compute_target="local",
        entry_script="train.py",
        script_params={"--lr": 0.1, "--epochs": 2},
        user_managed=True,
    )
    runs = experiment.submit_array(estimator, [{"--lr": 0.3}, {"--batch": 8}])
    assert settled(runs) == ["FINISHED"] * 2
    assert [store.get_run(run.id).data.params for run in runs] == [
        {"lr": "0.3", "epochs": "2"},
        {"lr": "0.1", "epochs": "2", "batch": "8"},
    ]
    assert above(runs).wait_for_completion()["status"] == "Completed"


def test_as_many_at_once_as_are_allowed_and_nobody_else_waits(
    experiment: Experiment, folder: Path, gates: Gates
) -> None:
    config = script(folder, gates, one_core(experiment.workspace, "local"))
    runs = experiment.submit_array(config, numbers(3), max_concurrent=1)
    gates.wait_for(1)
    waiting = "waiting for another run of its array to end (1 of 1 running)"
    wait_until(lambda: runs[2].get_detailed_status() == {"status": "Queued", "details": waiting}, 60, "the reason")
    (another,) = experiment.submit_array(config, [{"--number": 7}])
    assert gates.wait_for(2) == {0, 7}
    gates.end(7)
    assert settled([another]) == ["FINISHED"]
    assert gates.begun() == {0, 7}
    runs[1].cancel()
    gates.end(0)
    assert gates.wait_for(3) == {0, 2, 7}
    gates.end(2)
    assert settled(runs) == ["FINISHED", "KILLED", "FINISHED"]
    assert above(runs).wait_for_completion()["status"] == "Completed"


def test_another_process_follows_and_cancels_all(experiment: Experiment, folder: Path, gates: Gates) -> None:
    runs = experiment.submit_array(script(folder, gates), numbers(3))
    gates.wait_for(1)
    command = [sys.executable, "-m", "mlflow_pytorch_estimator"]
    follower = subprocess.Popen(
        [*command, "logs", "--follow", above(runs).id], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    done = subprocess.run(
        [*command, "cancel", above(runs).id], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == f"run {above(runs).id} ended Canceled\n", done.stderr
    assert statuses([above(runs), *runs]) == ["KILLED"] * 4
    _, said = follower.communicate(timeout=60)
    assert follower.returncode == 4  # canceled
    assert "gpu-cluster: Canceled   after" in said
    assert said.splitlines()[-1].endswith("ended Canceled: canceled by request")
    assert "3 of 3 runs have ended" in said
    assert processes_with(str(gates.folder)) == []


# --- preparing


def test_an_environment_that_cannot_be_built_is_the_end_of_all(experiment: Experiment, folder: Path) -> None:
    (folder / "train.py").write_text("")
    environment = Environment("absent")
    environment.python.conda_dependencies.add_pip_package("six==0.0.0.1")
    runs = experiment.submit_array(ScriptRunConfig(folder, "train.py", environment=environment), numbers(2))
    assert settled(runs) == ["FAILED"] * 2
    assert len({run.tags["gpu_cluster.failure"] for run in runs}) == 1
    with pytest.raises(GpuClusterError, match=r"(?s)2 of 2 runs failed: .*six"):
        above(runs).wait_for_completion()
    assert [job(run).directory.job_id for run in runs] == [None, None]


def test_an_input_that_is_not_there_fails_one_run(experiment: Experiment, folder: Path, store: MlflowClient) -> None:
    source = store.create_run("0").info.run_id
    store.log_text(source, "1 2 3", "numbers.txt")
    (folder / "train.py").write_text("import sys\nprint(open(sys.argv[2]).read())\n")
    given = [{"--data": f"runs:/{source}/{name}.txt"} for name in ("numbers", "absent", "numbers")]
    environment = Environment("as-it-is")
    environment.python.user_managed_dependencies = True
    runs = experiment.submit_array(ScriptRunConfig(folder, "train.py", environment=environment), given)
    assert settled(runs) == ["FINISHED", "FAILED", "FINISHED"]
    assert [job(run).directory.rank_log(0).read_text() for run in (runs[0], runs[2])] == ["1 2 3\n"] * 2
    assert runs[1].tags["gpu_cluster.failure"].startswith(f"cannot download the input runs:/{source}/absent.txt")
    assert above(runs).get_detailed_status() == {"status": "Failed", "details": "1 of 3 runs failed"}


def test_a_preparer_that_is_killed(experiment: Experiment, folder: Path) -> None:
    (folder / "train.py").write_text("")
    environment = Environment("slow")
    environment.python.conda_dependencies.add_pip_package("slow @ http://192.0.2.1/slow-1.0-py3-none-any.whl")
    runs = experiment.submit_array(ScriptRunConfig(folder, "train.py", environment=environment), numbers(2))
    assert [run.status for run in (above(runs), *runs)] == ["Preparing"] * 3
    (preparer,) = [pid for pid in processes_with(above(runs).id) if _is_preparer(pid)]
    os.kill(preparer, signal.SIGKILL)
    wait_until(lambda: not job(above(runs)).directory.alive, 30, "the end of the preparer")
    with pytest.raises(GpuClusterError, match="2 of 2 runs failed: the process that prepared the environment was kill"):
        above(runs).wait_for_completion()
    assert statuses([above(runs), *runs]) == ["FAILED"] * 3


def _is_preparer(pid: int) -> bool:
    return b"mlflow_pytorch_estimator.arrays.preparing" in Path(f"/proc/{pid}/cmdline").read_bytes()


# --- all or nothing


@pytest.mark.parametrize(
    ("parameters", "limit", "words"),
    [
        ([*numbers(6), {"--number": None}], None, r"parameters\[6\]: script_params: the value of '--number' is a None"),
        ([*numbers(6), {"--number": [1, 2]}], None, r"parameters\[6\]: script_params: --number is a list"),
        ([*numbers(6), {"number": 7}], None, r"parameters\[6\]: 'number' is no option of a script; it must begin wit"),
        ([*numbers(6), ["--number"]], None, r"parameters\[6\] is \['--number'\]; it must be a dict"),
        ([*numbers(6), {"--number": "x" * 200_000}], None, "run 6 of the array: the arguments are 200.* bytes long"),
        ({"--number": 1}, None, "parameters is a dict; it must be a list, a dict for each run"),
        ([], None, "parameters is empty"),
        (numbers(2), 0, "max_concurrent is 0; it must be a whole number from 1"),
        (numbers(2), True, "max_concurrent is True"),
    ],
)
def test_what_is_refused_before_there_is_a_run(
    experiment: Experiment, folder: Path, gates: Gates, home: Path, parameters: Any, limit: Any, words: str
) -> None:
    config = script(folder, gates)
    with pytest.raises(GpuClusterError, match=words) as caught:
        experiment.submit_array(config, parameters, max_concurrent=limit)
    assert "\n" not in str(caught.value)
    assert list(experiment.get_runs(include_children=True)) == []
    assert left_behind(home) == []


def test_more_runs_than_this_process_may_open_files(
    experiment: Experiment, folder: Path, gates: Gates, home: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))  # each machine has its own
    try:
        with pytest.raises(GpuClusterError, match="600 runs are too many for this process, which may open 500 files"):
            experiment.submit_array(script(folder, gates), numbers(600))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list(experiment.get_runs(include_children=True)) == []
    assert left_behind(home) == []


def test_a_command_has_no_parameters(experiment: Experiment, folder: Path) -> None:
    with pytest.raises(GpuClusterError, match=r"parameters\[0\]: a ScriptRunConfig with a command has no arguments"):
        experiment.submit_array(ScriptRunConfig(folder, command="true"), [{"--lr": 1}])


def test_a_store_that_goes_away_in_the_middle(
    experiment: Experiment, folder: Path, gates: Gates, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, calls = tracking.create_run, []

    def failing(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 4:
            raise MlflowException("the disk is full")
        return create(*arguments)

    monkeypatch.setattr(tracking, "create_run", failing)
    with pytest.raises(GpuClusterError, match="the disk is full"):
        experiment.submit_array(script(folder, gates), numbers(5))
    runs = list(experiment.get_runs(include_children=True))
    assert statuses(runs) == ["FAILED"] * 3
    assert {run.tags["gpu_cluster.failure"] for run in runs} == {"the array could not be submitted: the disk is full"}
    assert sorted(left_behind(home)) == sorted(run.id for run in runs)
    assert not any(job(run).directory.alive for run in runs)


# --- MLflow projects


def project_request(project: Project, uri: str, **parameters: Any) -> Request:
    options = {"env_manager": "local", "ENV_MANAGER": "local"}
    source = ProjectSource(uri, "main", parameters, None, {"ENV_MANAGER": options["ENV_MANAGER"]})
    return Request(source, "0", Stores.current(), config=read_config({"cpus_per_node": 1}, whole=False))


def test_a_project_from_git_is_fetched_once(
    project: Project, store: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.script("import sys\nprint(sys.argv[1:])\n").entry("main", "python train.py {lr}", "{lr: float}")
    git = ("git", "-C", str(project.path), "-c", "user.name=me", "-c", "user.email=me@localhost")
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "one")):
        subprocess.run([*git, *words], check=True, timeout=30)
    bare = tmp_path / "bare.git"  # a working copy would be taken as it is
    subprocess.run(["git", "clone", "-q", "--bare", str(project.path), str(bare)], check=True, timeout=30)
    subprocess.run(["git", "-C", str(bare), "remote", "remove", "origin"], check=True, timeout=30)
    trace = tmp_path / "trace"
    monkeypatch.setenv("GIT_TRACE", str(trace))
    uri = f"file://{bare}"
    requests = [project_request(project, uri, lr=lr) for lr in (0.1, 0.2, 0.3)]
    with pytest.raises(ProjectError, match=r"run 1 of the array: .*lr"):
        submit_many([requests[0], project_request(project, uri)])
    assert store.search_runs(["0"]) == []
    trace.unlink()
    submitted = submit_many(requests)
    assert trace.read_text().count("built-in: git fetch") == 1
    assert [run.wait() for run in submitted.runs] == [True] * 3
    assert [run.directory.rank_log(0).read_text() for run in submitted.runs] == ["['0.1']\n", "['0.2']\n", "['0.3']\n"]
    assert submitted.group.wait()
    tags = store.get_run(submitted.runs[2].run_id).data.tags
    assert (tags["mlflow.source.name"], tags["mlflow.parentRunId"]) == (uri, submitted.group.run_id)


def test_requests_that_differ_in_more_than_parameters(project: Project, store: MlflowClient) -> None:
    project.script("print(1)")
    first = project_request(project, str(project.path))
    larger = replace(first, config=read_config({"cpus_per_node": 2}, whole=False))
    with pytest.raises(ConfigError, match="run 1 of the array has another config than run 0"):
        submit_many([first, larger])
    with pytest.raises(GpuClusterError, match="run 1 of the array: it is of another project"):
        submit_many([first, replace(first, source=replace(cast(ProjectSource, first.source), entry_point="other"))])
    waiting = replace(first, config=read_config({"after": "a" * 32}, whole=False))
    with pytest.raises(ConfigError, match="after is for single runs"):
        submit_many([waiting, waiting])
    with pytest.raises(ConfigError, match="an array has one run at least"):
        submit_many([])
    assert store.search_runs(["0"]) == []


# --- the run above


def ended(*phases: Phase) -> list[Outcome]:
    return [Outcome(phase, f"reason {number}", None, 0.0) for number, phase in enumerate(phases)]


@pytest.mark.parametrize(
    ("phases", "canceled", "expected"),
    [
        ([Phase.COMPLETED, Phase.COMPLETED], False, (Phase.COMPLETED, "")),
        ([Phase.COMPLETED, Phase.CANCELED], False, (Phase.COMPLETED, "")),
        ([Phase.CANCELED, Phase.CANCELED], False, (Phase.CANCELED, "all its runs were canceled")),
        ([Phase.COMPLETED, Phase.CANCELED], True, (Phase.CANCELED, "canceled by request")),
        ([Phase.COMPLETED, Phase.COMPLETED], True, (Phase.COMPLETED, "")),
        ([Phase.FAILED, Phase.CANCELED, Phase.COMPLETED], False, (Phase.FAILED, "1 of 3 runs failed, 1 canceled")),
        ([Phase.FAILED], False, (Phase.FAILED, "1 of 1 runs failed: reason 0")),
    ],
)
def test_how_an_array_has_ended(phases: list[Phase], canceled: bool, expected: tuple[Phase, str]) -> None:
    assert group.verdict(ended(*phases), canceled=canceled) == expected


def test_whoever_looks_ends_an_array_whose_last_run_could_not(
    experiment: Experiment, folder: Path, gates: Gates
) -> None:
    runs = experiment.submit_array(script(folder, gates), numbers(2))
    gates.end(0, 1)
    assert settled(runs) == ["FINISHED"] * 2
    directory = job(above(runs)).directory
    wait_until(directory.delivered.exists, 30, "the end")
    for name in ("delivered", "outcome.json"):  # as if the last agent had been killed in that moment
        (directory.path / name).unlink()
    tracking.mark_scheduled(Stores.current(), above(runs).id)
    assert GpuClusterSubmittedRun.of_run(above(runs).id).get_status() == "FINISHED"
    assert statuses([above(runs)]) == ["FINISHED"]
    assert JobDir.of_run(above(runs).id).delivered.exists()
