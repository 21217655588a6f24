"""`gpu-cluster`: what it prints, its exit statuses, and what becomes of runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import mlflow
import pytest
from click.testing import CliRunner, Result
from conftest import copy_store, wait_until
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import tags
from mlflow_pytorch_estimator.cli import SECTIONS, _Commands, exits, listing, main, output
from mlflow_pytorch_estimator.cli.words import duration
from mlflow_pytorch_estimator.jobdir import JobDir

COMMANDS = [name for section in SECTIONS.values() for name in section]


def gpu_cluster(*arguments: str, **options: object) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="gpu-cluster", **options)  # type: ignore[arg-type]


def answer(*arguments: str) -> Any:
    result = gpu_cluster(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """A home and a store with one run that has completed, and a later one that has failed."""
    folder = tmp_path_factory.mktemp("cli")
    copy_store(empty_store, folder / "mlflow.db", str(folder / "mlruns/0"))
    before = mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPU_CLUSTER_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
        patch.chdir(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        source = folder / "src"
        source.mkdir()
        (source / "good.py").write_text("import sys\nprint('hello', *sys.argv[1:])\n")
        (source / "bad.py").write_text("print('before')\nraise ValueError('no luck')\n")
        (source / "slow.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(600)\n")
        shutil.copy(source / "good.py", source / "-odd.py")
        patch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
        good = gpu_cluster("submit", "--env-manager", "local", "src/good.py", "--lr", "0.1", "--", "x y")
        assert good.exit_code == exits.COMPLETED, good.output
        assert "hello --lr 0.1 -- x y" in good.output
        bad = gpu_cluster("submit", "--env-manager", "local", "--experiment", "birds", "--name", "bad", "src/bad.py")
        assert bad.exit_code == exits.FAILED
        assert "ended Failed: rank 0 exited with status 1 (ValueError: no luck); log: " in bad.output
        yield folder
    mlflow.set_tracking_uri(before)


def ids() -> list[str]:
    return [item["run_id"] for item in answer("runs")]


def test_the_help_is_there_in_no_time_and_imports_nothing_large() -> None:
    code = "import sys; from mlflow_pytorch_estimator.cli import main; main(['--help'], standalone_mode=False); "
    done = subprocess.run(
        [sys.executable, "-c", f"{code}sys.exit('mlflow' in sys.modules)"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_what_the_list_says_of_it_and_how_it_is_used(name: str) -> None:
    assert isinstance(main, _Commands)
    command = main.get_command(click.Context(main), name)
    assert command is not None
    said = next(text for section in SECTIONS.values() for key, (_, text) in section.items() if key == name)
    assert command.get_short_help_str(limit=200).rstrip(".") == said.rstrip(".")
    shown = gpu_cluster(name, "--help")
    assert shown.exit_code == 0
    if not isinstance(command, click.Group):
        assert f"gpu-cluster {name}" in (command.help or "")


def test_what_the_list_of_runs_shows(place: Path) -> None:
    shown = gpu_cluster("runs").stdout.splitlines()
    assert shown[0].split() == ["RUN", "STATE", "ELAPSED", "COMPUTE", "METRIC", "NAME", "REASON"]
    assert "Failed" in shown[1]
    assert "bad" in shown[1]
    assert shown[1].endswith("rank 0 exited with status 1 (ValueError: no luck)")
    assert "Completed" in shown[2]
    assert len(gpu_cluster("runs", "--experiment", "birds").stdout.splitlines()) == 2
    assert "Completed" not in gpu_cluster("runs", "--state", "failed").stdout
    assert gpu_cluster("runs", "--state", "Running").stdout == "no runs\n"
    assert "there is no experiment 'fish'" in gpu_cluster("runs", "--experiment", "fish").output


def test_a_narrow_terminal_leaves_room_for_the_reason() -> None:
    titles: tuple[str, ...] = ("RUN", "STATE", "ELAPSED", "COMPUTE", "METRIC", "NAME", "REASON")
    rows = [
        titles,
        ("489df9f3", "Failed", "23.7 s", "local", "loss=0.3333", "orderly-sow-372", "rank 0 exited with status 1"),
    ]
    assert listing._fitting(rows, 100)[0] == titles
    assert listing._fitting(rows, 80)[0] == ("RUN", "STATE", "ELAPSED", "COMPUTE", "METRIC", "REASON")
    assert listing._fitting(rows, 60)[0] == ("RUN", "STATE", "ELAPSED", "COMPUTE", "REASON")
    completed = [titles, (*rows[1][:-1], "")]
    assert listing._fitting(completed, 80)[0] == titles
    assert listing._fitting(rows, 20)[1:] == [("489df9f3", "Failed", "23.7 s", "rank 0 exited with status 1")]


def test_where_there_are_no_runs_the_place_is_said(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = mlflow.get_tracking_uri()
    shutil.copy(place / "mlflow.db", tmp_path / "empty.db")
    empty = f"sqlite:///{tmp_path}/empty.db"
    client = MlflowClient(empty)
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            client.delete_run(run.info.run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", empty)
    mlflow.set_tracking_uri(empty)
    try:
        shown = gpu_cluster("runs").stdout.splitlines()
    finally:
        mlflow.set_tracking_uri(used)
    assert shown == [f"no runs in {empty}", f"jobs were submitted from here to {used}: set MLFLOW_TRACKING_URI"]


def test_what_is_known_of_one(place: Path) -> None:
    bad, good = ids()
    assert gpu_cluster("status", good[:2]).stdout == "Completed\n"
    assert answer("runs")[0]["last_metric"] is None
    assert "last_metric" not in answer("status", bad)  # which asks no store
    assert gpu_cluster("status", "last").stdout == "Failed: rank 0 exited with status 1 (ValueError: no luck)\n"
    assert gpu_cluster("status", good[:8]).stdout == "Completed\n"
    described = gpu_cluster("describe", bad).stdout
    assert "python bad.py" in described
    assert described.rstrip().endswith("ValueError: no luck")
    found = answer("describe", bad)
    assert [item["phase"] for item in found["phases"]] == ["Queued", "Running", "Finalizing"]
    assert found["phases"] == answer("describe", bad)["phases"]  # they do not grow
    assert found["exit_code"] == 1
    assert found["ended"] > found["started"] >= found["submitted"]
    assert (found["name"], found["experiment"], found["launcher"]) == ("bad", "birds", "single")
    assert "\nExperiment    birds\n" in described
    assert f"\nArtifacts     {found['artifacts']}\n" in described
    assert f"log: {found['job_directory']}/logs/rank_0.log" in described
    assert answer("status", bad)["status"] == "Failed"
    assert answer("status", bad)["name"] == "bad"


def test_numbers_that_json_does_not_know_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"a": [float("nan"), float("inf"), -float("inf"), 1.5], "b": ({"c": float("nan")},)})

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found == {"a": ["NaN", "Infinity", "-Infinity", 1.5], "b": [{"c": "NaN"}]}


def test_logs(place: Path) -> None:
    bad, good = ids()
    assert gpu_cluster("logs", good).stdout == "hello --lr 0.1 -- x y\n"
    assert gpu_cluster("logs", bad, "--grep", "^Val.e").stdout == "ValueError: no luck\n"
    assert gpu_cluster("logs", bad, "-n", "1").stdout == "ValueError: no luck\n"
    assert gpu_cluster("logs", bad, "-n", "1", "--grep", "before").stdout == "before\n"
    nobody = gpu_cluster("logs", bad, "--rank", "1")
    assert nobody.exit_code == exits.FAILED
    assert "the run has no rank 1, but 0" in nobody.output
    assert gpu_cluster("logs", "-f", good).exit_code == exits.COMPLETED
    assert gpu_cluster("attach", bad).exit_code == exits.FAILED
    refused = gpu_cluster("logs", bad, "--grep", "(")
    assert refused.exit_code == exits.USAGE
    assert "'(' is no regular expression" in refused.output


def test_a_run_of_another_machine_is_read_from_the_store(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = ids()
    monkeypatch.setenv("GPU_CLUSTER_HOME", str(place / "other home"))
    assert gpu_cluster("status", bad).stdout == "Failed: rank 0 exited with status 1 (ValueError: no luck)\n"
    assert gpu_cluster("logs", good).stdout == "hello --lr 0.1 -- x y\n"
    assert gpu_cluster("logs", bad, "-n", "1").stdout == "ValueError: no luck\n"
    assert answer("status", good)["job_directory"] is None
    assert gpu_cluster("wait", good).exit_code == exits.COMPLETED
    unknown = gpu_cluster("status", "0" * 32)
    assert unknown.exit_code == 1
    assert "the tracking store does not have it" in unknown.output
    assert "no job was submitted from here yet" in gpu_cluster("cancel", "last").output


def test_a_job_is_followed_waited_for_and_canceled(place: Path) -> None:
    begun = gpu_cluster("submit", "--env-manager", "local", "--detach", "src/slow.py")
    assert begun.exit_code == 0
    directory = JobDir.of_run(ids()[0])
    assert f"gpu-cluster cancel {directory.path.name}" in begun.output
    wait_until(lambda: gpu_cluster("logs", "last").stdout == "up\n", 60, "the first line")
    options = ("--env-manager", "local", "--name", "waiter", "--after", directory.path.name[:8])
    assert gpu_cluster("submit", *options, "--detach", "src/good.py").exit_code == 0
    reason = f"waits for run {directory.path.name}"
    wait_until(lambda: gpu_cluster("status", "last").stdout == f"Queued: {reason}\n", 60, "the reason")
    nothing = gpu_cluster("logs", "last")
    assert nothing.stdout == ""
    assert nothing.stderr == f"no rank has started: Queued, {reason}\n"
    assert gpu_cluster("cancel", "last").exit_code == 0
    mistyped = gpu_cluster("cancel", directory.path.name, "nonsense")
    assert "no job of run 'nonsense' here" in mistyped.output
    assert mistyped.output.endswith("; nothing was canceled\n")
    assert directory.alive
    early = gpu_cluster("retry", directory.path.name)
    assert f"run {directory.path.name} has not ended: wait for it or cancel it" in early.output
    _let_go_of(directory, ids()[-1])
    waited = gpu_cluster("wait", directory.path.name, "--timeout", "0.1")
    assert (waited.exit_code, waited.stdout.split()[1]) == (exits.UNFINISHED, "Running")
    canceled = gpu_cluster("cancel", "--all")
    assert canceled.stdout == f"run {directory.path.name} ended Canceled\n"
    assert not directory.alive
    assert gpu_cluster("wait", directory.path.name).exit_code == exits.CANCELED
    assert gpu_cluster("cancel", "--all").stdout == "nothing to cancel\n"
    assert gpu_cluster("cancel", "last").stdout.startswith("nothing to cancel: run")


def _let_go_of(directory: JobDir, ended: str) -> None:
    """Ctrl-C ends what only looks, and not the job."""
    command = [sys.executable, "-c", "from mlflow_pytorch_estimator.cli.program import run; run()"]
    for words, status, said in (
        (["logs", "-f", directory.path.name], exits.DETACHED, "the job goes on"),
        (["wait", ended, directory.path.name], exits.DETACHED, "no longer waiting; the jobs go on"),
        (["runs", "--watch"], 0, ""),
    ):
        process = subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, said in err) == (status, True), err
        assert "Traceback" not in err
        assert "again" not in err  # a second one would cancel
    assert directory.alive
    assert not directory.cancel_requested


def test_several_are_canceled_at_once_and_each_is_said_to_be(place: Path) -> None:
    for _ in range(2):
        assert gpu_cluster("submit", "--env-manager", "local", "--detach", "src/slow.py").exit_code == 0
    wanted, ended = ids()[:2], ids()[-1]
    found = answer("cancel", *wanted, ended)
    assert [(item["run_id"], item["canceled_now"]) for item in found] == [
        *((run, True) for run in wanted),
        (ended, False),
    ]
    assert {item["status"] for item in found[:2]} == {"Canceled"}


def test_the_same_job_again_whatever_has_become_of_the_sources(place: Path) -> None:
    _, good = [run for run in ids() if answer("describe", run)["entry_point"] in {"good.py", "bad.py"}][-2:]
    script = place / "src/good.py"
    before = script.read_text()
    script.write_text("raise SystemExit('changed')\n")
    try:
        again = gpu_cluster("retry", good)
        with_others = gpu_cluster("retry", good, "--lr", "0.5")
        mistyped = gpu_cluster("retry", good, "--resum")
    finally:
        script.write_text(before)
    assert again.exit_code == exits.COMPLETED, again.output
    assert "gpu-cluster: sources as of 20" in again.stderr
    assert with_others.exit_code == mistyped.exit_code == exits.USAGE
    assert "--lr 0.5: a retry has the arguments of its run; for others: gpu-cluster submit" in with_others.output
    assert "Did you mean '--resume'?" in mistyped.output
    assert "hello --lr 0.1 -- x y" in again.output
    run = MlflowClient().get_run(ids()[0])
    assert run.info.run_id != good
    assert run.data.tags[tags.RETRY_OF] == good
    assert run.data.params == MlflowClient().get_run(good).data.params
    assert run.info.run_name == MlflowClient().get_run(good).info.run_name
    assert answer("describe", run.info.run_id)["retry_of"] == good
    assert f"Retry of      {good}" in gpu_cluster("describe", run.info.run_id).stdout
    assert "has left no checkpoints" in gpu_cluster("retry", good, "--resume").output


def test_a_variable_whose_value_is_kept_nowhere_is_asked_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = gpu_cluster("submit", "--env-manager", "local", "--env", "COLOUR=red", "src/good.py")
    assert first.exit_code == exits.COMPLETED, first.output
    before = ids()
    refused = gpu_cluster("retry", "last")
    assert refused.exit_code == 1
    assert "export COLOUR first" in refused.output
    assert ids() == before
    monkeypatch.setenv("COLOUR", "blue")
    assert gpu_cluster("retry", "last").exit_code == exits.COMPLETED


def test_options_behind_the_script_are_said_to_go_to_it(place: Path) -> None:
    done = gpu_cluster("submit", "--env-manager", "local", "src/good.py", "--name", "x", "--lr", "1")
    assert "note: --name behind src/good.py goes to the script" in done.stderr
    assert "hello --name x --lr 1" in done.output
    assert "note:" not in gpu_cluster("submit", "--env-manager", "local", "src/good.py", "--lr", "1").stderr


def test_a_folder_that_is_no_project_says_what_else_there_is(place: Path) -> None:
    refused = gpu_cluster("run", "src")
    assert refused.exit_code == exits.FAILED
    assert "has no MLproject file, and no script 'main'" in refused.output
    assert "`gpu-cluster submit SCRIPT`" in refused.output


def test_a_project(place: Path) -> None:
    project = place / "project"
    project.mkdir()
    (project / "MLproject").write_text(
        "name: toy\nentry_points:\n  main:\n    parameters: {word: {type: str, default: hi}}\n"
        "    command: 'echo said {word} $GPU_CLUSTER_WORLD_SIZE'\n"
    )
    options = ("--env-manager", "local", "--experiment", "projects")
    done = gpu_cluster("run", "project", "-P", "word=servus", *options)
    assert done.exit_code == exits.COMPLETED, done.output
    assert "said servus" in done.output
    before = ids()
    planned = gpu_cluster("run", "project", "-j", "2x2", "--launcher", "torchrun", "--dry-run", *options)
    assert planned.exit_code == 0, planned.output
    assert "4 ranks on 2 nodes" in planned.output
    assert ids() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rnus",), "there is no command 'rnus'; did you mean 'runs'?"),
        (("run", ".", "-j", "2"), "'2' is not of the form NODESxRANKS, such as 2x4"),
        (("run", ".", "-j", "0x2"), "'0x2' is nothing: there is at least one node"),
        (("run", ".", "-P", "lr"), "'lr' is not of the form NAME=VALUE"),
        (("run", ".", "-c", '{"nodes": 2}'), "unknown key 'nodes'"),
        (("run", "nowhere", "--dry-run"), "nowhere"),
        (("submit", "none.py"), "there is no script 'none.py'"),
        (("submit", "--env-manager", "local", "--pip", "torch", "src/good.py"), "leave out the packages"),
        (
            ("submit", "-j", "1x2", "--env-manager", "local", "src/good.py"),
            "-j 1x2 needs --launcher torchrun, horovod or",
        ),
        (("submit", "--pipp", "torch", "src/good.py"), "No such option '--pipp'. Did you mean"),
        (("submit", "--env-manager", "local", "--after", "nope", "src/good.py"), "there is no run 'nope' of this"),
        (("cancel",), "name the runs to cancel, or --all"),
        (("cancel", "--experiment", "birds", "last"), "--experiment goes with --all"),
        (("status", "abc"), "there is no run 'abc' of this machine (`gpu-cluster runs` lists them)"),
        (("status", "../x"), "there is no run '../x' of this machine"),
        (("runs", "--watch", "--json"), "leave out --json"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(place: Path, arguments: tuple[str, ...], words: str) -> None:
    before = ids()
    refused = gpu_cluster(*arguments)
    assert refused.exit_code in {exits.FAILED, exits.USAGE}
    assert words in refused.output
    assert "Traceback" not in refused.output
    assert ids() == before
    assert not list((place / "home/jobs").glob(".new-*"))


def test_two_runs_that_begin_alike_are_not_guessed(place: Path) -> None:
    for name in ("abcd0", "abcd1"):
        shutil.copytree(JobDir.of_run(ids()[0]).path, place / "home/jobs" / name, symlinks=True)
    try:
        assert "2 runs begin with 'abcd': abcd0, abcd1" in gpu_cluster("status", "abcd").output
    finally:
        for name in ("abcd0", "abcd1"):
            shutil.rmtree(place / "home/jobs" / name)


def test_runs_that_crashes_have_left_are_ended_but_those_of_others_are_not(place: Path) -> None:
    client = MlflowClient()
    experiment = client.create_experiment("crashed")
    ours, theirs = (
        client.create_run(experiment, tags={tags.SCHEDULER: "local", tags.HOME: home}).info.run_id
        for home in (tags.here()[tags.HOME], "elsewhere:/home/you")
    )
    plain = client.create_run(experiment).info.run_id
    said = gpu_cluster("runs", "--repair", "--experiment", "crashed")
    assert said.exit_code == 0
    assert f"{ours} ended Failed: its job directory has gone" in said.output
    assert f"{theirs} left alone: it was submitted from elsewhere:/home/you" in said.output
    assert client.get_run(ours).info.status == "FAILED"
    assert client.get_run(ours).data.tags[tags.FAILURE].startswith("its job directory has gone")
    assert client.get_run(theirs).info.status == client.get_run(plain).info.status == "RUNNING"


def test_a_job_that_runs_out_of_time_says_what_it_did_last(place: Path) -> None:
    script = (
        "print('epoch 7', flush=True)\nimport time, mlflow\nmlflow.log_metric('loss', float('nan'))\ntime.sleep(600)\n"
    )
    (place / "src/endless.py").write_text(script)
    done = gpu_cluster("submit", "--env-manager", "local", "--max-time", "0.5m", "src/endless.py")
    assert done.exit_code == exits.FAILED
    assert "ran longer than max_run_duration_seconds (30 s); log: /" in done.output
    described = gpu_cluster("describe", "last").stdout
    assert "logs/rank_0.log\nepoch 7\n" in described
    assert "because of" not in described
    assert answer("runs")[0]["last_metric"] == {"name": "loss", "value": "NaN", "step": 0}


def test_a_run_that_never_began_says_why_instead_of_its_logs(place: Path) -> None:
    failed = gpu_cluster("submit", "--pip", "no-such-package-of-ours==9.9", "src/good.py")
    assert failed.exit_code == exits.FAILED
    shown = gpu_cluster("logs", "last")
    assert shown.stdout == ""
    assert shown.stderr.startswith("no rank has started: Failed, ")


def test_clusters(place: Path) -> None:
    made = gpu_cluster("compute", "create", "lab", "--cpus", "1", "--max-nodes", "2")
    assert made.exit_code == 0, made.output
    assert made.stdout.splitlines()[1].split() == ["lab", "local", "0", "of", "0-2", "1", "CPU", "Succeeded"]
    assert gpu_cluster("compute", "list").stdout == made.stdout
    assert answer("compute", "show", "lab")["name"] == "lab"
    assert gpu_cluster("compute", "nodes", "lab").stdout == "no nodes are up\n"
    assert (
        "no compute target 'lob'; create it with `gpu-cluster compute create`"
        in gpu_cluster("compute", "show", "lob").output
    )
    differs = gpu_cluster("compute", "create", "lab", "--cpus", "1", "--max-nodes", "3")
    assert "exists already with max_nodes=2; update it" in differs.output
    assert "nothing to change" in gpu_cluster("compute", "update", "lab").output
    changed = gpu_cluster("compute", "update", "lab", "--max-nodes", "3")
    assert changed.stdout.splitlines()[1].split()[4] == "0-3"
    done = gpu_cluster("submit", "--env-manager", "local", "--compute", "lab", "src/good.py")
    assert done.exit_code == exits.COMPLETED, done.output
    assert answer("runs")[0]["compute"] == "lab"
    assert gpu_cluster("compute", "delete", "lab").stdout == "lab deleted\n"
    assert gpu_cluster("compute", "list").stdout.startswith("no clusters")


def test_many_runs_are_listed_in_the_order_of_their_start(place: Path) -> None:
    client = MlflowClient()
    experiment = client.create_experiment("many")
    start = int(time.time() * 1000)
    for number in range(30):
        client.create_run(experiment, start_time=start + number, run_name=f"n{number}", tags={tags.SCHEDULER: "slurm"})
    found = answer("runs", "--experiment", "many", "-n", "20")
    assert [item["name"] for item in found] == [f"n{number}" for number in range(29, 9, -1)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list"], "did you mean 'runs'?"),
        (["lgos"], "did you mean 'logs'?"),
        (["submit", "src"], "'src' is a folder: name the script to run"),
        (["submit", "src/gone.py"], "there is no script 'src/gone.py'"),
        (["submit", "--source", "gone", "good.py"], "there is no script 'good.py' in --source gone"),
        (["submit", "--source", "src", "../src/good.py"], "must be a relative path inside --source"),
        (["submit", "src/run.sh"], "run.sh is no Python script"),
        (["submit", "src/shell"], "shell is no Python script"),
        (["submit", "-c", "{", "src/good.py"], "-c: the backend config is not valid JSON"),
        (["submit", "-c", '{"gpu": 1}', "src/good.py"], "-c: "),
        (["submit", "-c", "gone.json", "src/good.py"], "-c: "),
        (["submit", "--max-time", "1x", "src/good.py"], "'1x' is no time: write seconds, such as 90, or 90s, 30m"),
        (["submit", "-j", "0x1", "src/good.py"], "'0x1' is nothing: there is at least one node with one rank"),
        (["submit", "-j", "2x", "src/good.py"], "'2x' is not of the form NODESxRANKS"),
    ],
)
def test_what_cannot_be_read_is_refused_with_status_2(place: Path, words: list[str], said: str) -> None:
    (place / "src/run.sh").write_text("echo\n")
    (place / "src/shell").write_text("#!/bin/sh\necho\n")
    before = len(list((place / "home/jobs").iterdir()))
    refused = gpu_cluster(*words)
    assert said in refused.output
    assert refused.exit_code == exits.USAGE
    assert len(list((place / "home/jobs").iterdir())) == before


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("30s", 30), ("2m", 120), ("2h", 7200), ("1d", 86400)]
)
def test_times(text: str, seconds: float) -> None:
    assert duration(text) == seconds


def test_colours_are_for_those_who_want_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32mCompleted" in gpu_cluster("runs", color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in gpu_cluster("runs", color=True).stdout


def completed(words: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", "from mlflow_pytorch_estimator.cli import main; main(prog_name='gpu-cluster')"],
        env={**os.environ, "_GPU_CLUSTER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    return [line.partition(",")[2] for line in done.stdout.split()]


def test_runs_and_clusters_are_completed(place: Path) -> None:
    all_runs = [path.name for path in (place / "home/jobs").iterdir()]
    offered = completed("gpu-cluster status ")
    assert offered[0] == "last"
    assert sorted(offered[1:]) == sorted(name[:8] for name in all_runs)
    assert completed(f"gpu-cluster status {all_runs[0][:6]}") == [all_runs[0][:8]]
    assert gpu_cluster("compute", "create", "rack", "--cpus", "1", "--max-nodes", "1").exit_code == 0
    try:
        assert completed("gpu-cluster submit --compute=ra") == ["rack"]
    finally:
        assert gpu_cluster("compute", "delete", "rack").exit_code == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    assert "_GPU_CLUSTER_COMPLETE" in gpu_cluster("completion", shell).stdout
    completed = subprocess.run(
        [sys.executable, "-c", "from mlflow_pytorch_estimator.cli import main; main(prog_name='gpu-cluster')"],
        env={"_GPU_CLUSTER_COMPLETE": "bash_complete", "COMP_WORDS": "gpu-cluster ca", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.stdout.strip() == "plain,cancel"


def test_what_is_known_of_a_job_here_is_told_without_mlflow(place: Path) -> None:
    run = ids()[-1]
    code = (
        "import atexit, os, sys\n"
        "sys.argv = ['gpu-cluster', *sys.argv[1:]]\n"
        "from mlflow_pytorch_estimator.cli import program\n"
        "class Late:\n"
        "    def __del__(self, write=os.write): write(2, b'taken apart')\n"
        "late = Late()\n"
        "main = program.main\n"
        "def noted(**options):\n"
        "    atexit.register(lambda: print('mlflow' in sys.modules))\n"
        "    main(**options)\n"
        "program.main = noted\n"
        "program.run()\n"
    )
    for command, said, status in (
        (["status"], "Completed\n", 0),
        (["logs"], "hello --lr 0.1 -- x y\n", 0),
        (["logs", "-f"], "hello --lr 0.1 -- x y\n", 0),
        (["cancel"], f"nothing to cancel: run {run} ended Completed\n", 0),
        (["wait"], f"{run}  Completed\n", 0),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *command, run], capture_output=True, text=True, check=False, cwd=place
        )
        assert (done.stdout, done.returncode) == (f"{said}False\n", status), done.stderr
        assert "taken apart" not in done.stderr
    unknown = subprocess.run(
        [sys.executable, "-c", code, "logs", "nonsense"], capture_output=True, text=True, check=False
    )
    assert unknown.returncode == exits.FAILED
    assert "there is no run 'nonsense' of this machine" in unknown.stderr
