"""Whole jobs through MLflow's Python API: what the run says afterwards."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import mlflow
import pytest
from conftest import Project, companion, finish, processes_with, submit, wait_until
from mlflow.exceptions import ExecutionException
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator.errors import RunFailedError
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun


def test_a_run_worth_opening(store: MlflowClient, project: Project) -> None:
    project.script(
        "import os, pathlib, sys\n"
        "print('hello', sys.argv[1:])\n"
        "pathlib.Path('outputs/sub').mkdir(parents=True)\n"
        "pathlib.Path('outputs/sub/model.bin').write_bytes(b'x')\n"
    )
    project.entry("main", "python train.py {lr} {name}", "{lr: {type: float, default: 1e-3}, name: string}")
    done = finish(submit(project, parameters={"name": "it's"}, run_name="first"))

    assert done.succeeded
    assert done.run.info.status == "FINISHED"
    assert done.run.info.run_name == "first"
    assert done.run.data.params == {"lr": "1e-3", "name": "it's"}
    assert done.tags["gpu_cluster.status"] == "Completed"
    assert done.tags["gpu_cluster.scheduler"] == "local"
    assert done.tags["gpu_cluster.job_id"] == "local-1"
    assert done.tags["gpu_cluster.exit_code"] == "0"
    assert "gpu_cluster.failure" not in done.tags
    assert done.tags["mlflow.project.backend"] == "gpu-cluster"
    assert done.tags["mlflow.source.type"] == "PROJECT"
    assert done.tags["mlflow.project.entryPoint"] == "main"
    assert done.files() >= {
        "logs/rank_0.log",
        "outputs/sub/model.bin",
        "gpu_cluster/job.json",
        "gpu_cluster/timeline.json",
        "gpu_cluster/environment.txt",
    }
    assert done.artifact("logs/rank_0.log") == "hello ['1e-3', \"it's\"]\n"
    assert "mlflow==" in done.artifact("gpu_cluster/environment.txt")
    phases = [entry["phase"] for entry in json.loads(done.artifact("gpu_cluster/timeline.json"))]
    assert phases == ["Queued", "Running", "Finalizing"]
    assert "python train.py" in done.tags["mlflow.note.content"]


def test_the_job_directory_is_private(store: MlflowClient, project: Project) -> None:
    done = finish(submit(project.entry("main", "echo hi")))
    assert stat.S_IMODE(done.directory.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(done.directory.rank_log(0).stat().st_mode) == 0o600


def test_failure_names_rank_status_and_traceback(store: MlflowClient, project: Project) -> None:
    project.script("import pathlib, sys\npathlib.Path('outputs/kept').touch()\nraise SystemExit(3)\n")
    done = finish(submit(project))
    assert not done.succeeded
    assert done.run.info.status == "FAILED"
    assert done.tags["gpu_cluster.exit_code"] == "3"
    assert done.tags["gpu_cluster.failure"] == "rank 0 exited with status 3"
    assert "outputs/kept" in done.files()
    assert json.loads(done.artifact("gpu_cluster/failure.json"))["exit_code"] == 3


def test_the_traceback_is_found_without_the_scripts_help(store: MlflowClient, project: Project) -> None:
    project.script("def f():\n    raise ValueError('no luck')\nf()\n")
    done = finish(submit(project))
    failure = json.loads(done.artifact("gpu_cluster/failure.json"))
    assert failure["traceback"].startswith("Traceback (most recent call last):")
    assert failure["traceback"].endswith("ValueError: no luck")
    assert done.tags["gpu_cluster.failure"] == "rank 0 exited with status 1 (ValueError: no luck)"
    assert "ValueError: no luck" in done.tags["mlflow.note.content"]


def test_death_by_signal_is_named(store: MlflowClient, project: Project) -> None:
    done = finish(submit(project.script("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")))
    assert done.run.info.status == "FAILED"
    assert done.tags["gpu_cluster.failure"] == "rank 0 was killed by SIGSEGV"
    assert json.loads(done.artifact("gpu_cluster/failure.json"))["signal"] == "SIGSEGV"


def test_a_process_that_leaves_start_run_does_not_end_the_run(store: MlflowClient, project: Project) -> None:
    project.script(
        "import subprocess, sys, time\n"
        "child = 'import mlflow\\nwith mlflow.start_run(): raise ValueError(1)'\n"
        "assert subprocess.run([sys.executable, '-c', child]).returncode == 1\n"
        "print('child has gone', flush=True)\n"
        "time.sleep(14)\n"
    )
    running = submit(project)
    wait_until(lambda: "child has gone" in _text(running), 60)
    assert running.get_status() == "RUNNING"
    # The agent puts the status in MLflow right as well, within its ten seconds.
    wait_until(lambda: store.get_run(running.run_id).info.status == "RUNNING", 14)
    done = finish(running)
    assert done.run.info.status == "FINISHED"


def test_the_scripts_own_parameters_win(store: MlflowClient, project: Project) -> None:
    project.script("import mlflow\nwith mlflow.start_run():\n    mlflow.log_param('lr', 0.001)\n")
    project.entry("main", "python train.py {lr} {other}", "{lr: float, other: {default: a b}}")
    done = finish(submit(project, parameters={"lr": "1e-3"}))
    assert done.succeeded
    assert done.run.data.params == {"lr": "0.001", "other": "a b"}


NASTY = ["; echo pwned", "$(id)", "`id`", "a'b\"c", "line\nbreak", "täglich ☃", "--flag", "$HOME", "*", "\\", ""]


@pytest.mark.parametrize("value", NASTY)
def test_values_reach_the_script_unchanged(store: MlflowClient, project: Project, value: str) -> None:
    project.script("import json, sys\njson.dump(sys.argv[1:], open('outputs/argv.json', 'w'))\n")
    project.entry("main", "python train.py {value}", "{value: string}")
    done = finish(submit(project, parameters={"value": value, "extra": value}))
    assert json.loads(done.artifact("outputs/argv.json")) == [value, "--extra", value]
    assert done.run.data.params == {"value": value, "extra": value}


def test_python_synchronous_raises_with_the_true_status(store: MlflowClient, project: Project) -> None:
    with pytest.raises(ExecutionException, match="exited with status 3") as caught:
        submit(project.entry("main", "exit 3"), synchronous=True)
    assert isinstance(caught.value, RunFailedError)
    assert store.get_run(caught.value.run_id).info.status == "FAILED"


def test_a_canceled_synchronous_run_stays_killed(store: MlflowClient, project: Project, tmp_path: Path) -> None:
    script = tmp_path / "cancel.sh"
    started = tmp_path / "started"
    project.entry("main", f"touch {started}; sleep 60")
    script.write_text(
        f"while [ ! -e {started} ]; do sleep 0.1; done\n"
        f"for job in {tmp_path}/home/jobs/*; do touch $job/cancel; done\n",
        encoding="utf-8",
    )
    with subprocess.Popen(["bash", str(script)]), pytest.raises(RunFailedError, match="Canceled") as caught:
        submit(project, synchronous=True)
    assert store.get_run(caught.value.run_id).info.status == "KILLED"


def test_asynchronous_returns_at_once_and_cancel_ends_everything(store: MlflowClient, project: Project) -> None:
    project.script("import subprocess, time\nsubprocess.Popen(['setsid', 'sleep', '987'])\ntime.sleep(987)\n")
    began = time.monotonic()
    running = submit(project, config={"grace_period_seconds": 1})
    assert time.monotonic() - began < 5
    assert running.get_status() in {"SCHEDULED", "RUNNING"}
    wait_until(lambda: len(_sleepers(running)) >= 2, 30, "both processes of the job")
    running.cancel()
    assert running.get_status() == "KILLED"
    assert store.get_run(running.run_id).info.status == "KILLED"
    assert store.get_run(running.run_id).data.tags["gpu_cluster.status"] == "Canceled"
    assert processes_with(running.run_id) == []
    assert running.wait() is False


def test_cancel_is_heard_by_a_script_that_ignores_sigterm(store: MlflowClient, project: Project) -> None:
    project.script(
        "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(987)\n"
    )
    running = submit(project, config={"grace_period_seconds": 1})
    wait_until(lambda: "deaf" in _text(running), 30)
    began = time.monotonic()
    running.cancel()
    assert 1 <= time.monotonic() - began < 6
    assert processes_with(running.run_id) == []
    assert store.get_run(running.run_id).info.status == "KILLED"


def test_cancel_from_another_process(store: MlflowClient, project: Project) -> None:
    running = submit(project.entry("main", "echo up; sleep 987"))
    wait_until(lambda: "up" in _text(running), 30)
    assert companion("status", running.run_id).stdout == "Running\n"
    answer = companion("cancel", running.run_id)
    assert (answer.returncode, answer.stdout) == (0, f"run {running.run_id} ended Canceled\n")
    assert store.get_run(running.run_id).info.status == "KILLED"
    assert companion("status", running.run_id).stdout == "Canceled: canceled by request\n"
    assert companion("logs", running.run_id).stdout == "up\n"
    assert "nothing to cancel" in companion("cancel", running.run_id).stdout


def test_a_killed_agent_takes_the_job_along(store: MlflowClient, project: Project) -> None:
    project.script("import subprocess, time\nsubprocess.Popen(['setsid', 'sleep', '987'])\ntime.sleep(987)\n")
    running = submit(project)
    wait_until(lambda: len(_sleepers(running)) >= 2, 30, "both processes of the job")
    os.kill(_agent(running), signal.SIGKILL)
    wait_until(lambda: not processes_with(running.run_id), 10, "the end of everything of the job")
    assert running.get_status() == "FAILED"
    run = store.get_run(running.run_id)
    assert run.info.status == "FAILED"
    assert "agent was killed" in run.data.tags["gpu_cluster.failure"]


def test_a_killed_keeper_fails_the_job_and_leaves_nothing(store: MlflowClient, project: Project) -> None:
    project.script("import subprocess, time\nsubprocess.Popen(['setsid', 'sleep', '987'])\ntime.sleep(987)\n")
    running = submit(project)
    wait_until(lambda: len(_sleepers(running)) >= 2, 30, "both processes of the job")
    keepers = [
        pid for pid in processes_with(running.run_id) if b"keeper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(keepers) == 1
    os.kill(keepers[0], signal.SIGKILL)
    done = finish(running)
    assert done.run.info.status == "FAILED"
    assert processes_with(running.run_id) == []


def test_background_children_end_with_the_job(store: MlflowClient, project: Project) -> None:
    done = finish(submit(project.entry("main", "(setsid sleep 987 &); sleep 987 & echo done")))
    assert done.succeeded
    assert processes_with(done.run.info.run_id) == []


def _slow_environment(project: Project) -> None:
    """An environment whose one package takes minutes to build."""
    package = project.path / "slow"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "b"\nbackend-path = ["."]\n'
    )
    (package / "b.py").write_text("import time\nprint('building', flush=True)\ntime.sleep(600)\n")
    (project.path / "requirements.txt").write_text("./slow\n")


def test_canceled_while_preparing(store: MlflowClient, project: Project) -> None:
    _slow_environment(project.entry("main", "echo hi"))
    running = submit(project, env_manager=None)
    wait_until(lambda: any("resolving" in event.message for event in running.directory.events()), 30)
    assert running.get_status() == "SCHEDULED"
    assert store.get_run(running.run_id).data.tags["gpu_cluster.status"] == "Preparing"
    running.cancel()
    assert running.get_status() == "KILLED"
    assert processes_with(running.run_id) == []


def test_killed_while_preparing(store: MlflowClient, project: Project) -> None:
    _slow_environment(project.entry("main", "echo hi"))
    running = submit(project, env_manager=None)
    wait_until(lambda: any("resolving" in event.message for event in running.directory.events()), 30)
    preparers = [
        pid for pid in processes_with(running.run_id) if b"preparer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(preparers) == 1
    os.kill(preparers[0], signal.SIGKILL)
    wait_until(lambda: running.get_status() == "FAILED", 30)
    assert "prepared the environment was killed" in store.get_run(running.run_id).data.tags["gpu_cluster.failure"]


def test_a_full_disk_while_preparing_is_the_reason(store: MlflowClient, project: Project, home: Path) -> None:
    cache = home / "envs"
    cache.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", cache], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode()}")
    try:
        (project.entry("main", "echo hi").path / "requirements.txt").write_text("six\n")
        done = finish(submit(project, env_manager=None))
        assert done.run.info.status == "FAILED"
        assert "no space left on device" in done.tags["gpu_cluster.failure"].lower()
        assert not done.directory.alive
    finally:
        subprocess.run(["umount", cache], check=True)


def test_two_jobs_for_one_machine_run_one_after_the_other(store: MlflowClient, project: Project) -> None:
    project.entry("main", "date +%s.%N; sleep 1; date +%s.%N")
    first, second = submit(project), submit(project)
    times = [[float(line) for line in finish(run).log.split()] for run in (first, second)]
    assert times[0][1] <= times[1][0]


def test_jobs_that_fit_together_run_together(store: MlflowClient, project: Project, tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    # Each waits for the other: they can only succeed side by side.
    project.entry(
        "main",
        f"touch {tmp_path}/{{me}}; nproc; "
        f"for i in $(seq 300); do [ -e {tmp_path}/{{other}} ] && exit; sleep 0.1; done; exit 1",
        "{me: string, other: string}",
    )
    one = submit(project, parameters={"me": "a", "other": "b"}, config={"cpus_per_node": 1})
    two = submit(project, parameters={"me": "b", "other": "a"}, config={"cpus_per_node": 1})
    done = finish(one), finish(two)
    assert [item.succeeded for item in done] == [True, True]
    assert [item.log for item in done] == ["1\n", "1\n"]


def test_a_queued_job_can_be_canceled(store: MlflowClient, project: Project) -> None:
    first = submit(project.entry("main", "sleep 987"))
    second = submit(project)
    wait_until(lambda: any("waiting" in event.message for event in second.directory.events()), 30)
    assert second.get_status() == "SCHEDULED"
    second.cancel()
    assert second.get_status() == "KILLED"
    first.cancel()
    assert not second.directory.rank_logs()


def test_nested_projects_run_inside_the_share_of_their_parent(store: MlflowClient, project: Project) -> None:
    project.entry("step", "echo inner")
    project.script(
        "import mlflow\n"
        "with mlflow.start_run() as parent:\n"
        "    child = mlflow.projects.run('.', 'step', backend='gpu-cluster', env_manager='local')\n"
        "    print(child.get_status(), child.run_id)\n"
    )
    done = finish(submit(project))
    assert done.succeeded
    assert "inner" in done.log
    children = store.search_runs([done.run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{done.run.info.run_id}'")
    assert [child.info.status for child in children] == ["FINISHED"]


def test_the_parent_is_the_active_run(store: MlflowClient, project: Project) -> None:
    with mlflow.start_run() as parent:
        done = finish(submit(project.entry("main", "echo hi")))
    assert done.tags["mlflow.parentRunId"] == parent.info.run_id


def test_logs_grow_in_the_run_while_the_job_lives(store: MlflowClient, project: Project) -> None:
    running = submit(project.script("import time\nfor i in range(400):\n    print(i)\n    time.sleep(0.1)\n"))

    def uploaded() -> str:
        if not store.list_artifacts(running.run_id, "logs"):
            return ""
        return Path(store.download_artifacts(running.run_id, "logs/rank_0.log")).read_text(encoding="utf-8")

    wait_until(uploaded, 30, "a first log")
    first = len(uploaded())
    wait_until(lambda: len(uploaded()) > first, 30, "a longer log")
    assert running.get_status() == "RUNNING"
    assert store.get_run(running.run_id).data.tags["gpu_cluster.status"] == "Running"
    wait_until(lambda: "system/cpu_utilization_percentage" in store.get_run(running.run_id).data.metrics, 15)
    running.cancel()


def test_a_job_can_import_what_it_needs(store: MlflowClient, project: Project) -> None:
    project.script(
        "import mlflow, mlflow_pytorch_estimator\nprint(mlflow_pytorch_estimator.__version__, mlflow.__version__)\n"
    )
    import mlflow_pytorch_estimator

    done = finish(submit(project))
    assert done.log.split() == [mlflow_pytorch_estimator.__version__, mlflow.__version__]


def test_outputs_do_not_follow_links_out(store: MlflowClient, project: Project, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("secret")
    project.entry(
        "main",
        f"ln -s {tmp_path}/private outputs/out; echo a > outputs/a; ln -s a outputs/b; "
        f"ln -s {tmp_path}/private/key outputs/key",
    )
    done = finish(submit(project))
    assert {name for name in done.files() if name.startswith("outputs")} == {"outputs/a", "outputs/b"}


def test_secrets_stay_in_the_environment(
    store: MlflowClient, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = "s3cr3t-v4lue-'of-hf"
    monkeypatch.setenv("HF_TOKEN", secret)
    project.script(
        "import os, sys\n"
        "token = os.environ['HF_TOKEN']\n"
        "assert sys.argv[1:] == [token, '--url', f'x={token}&y'], sys.argv\n"
        "raise ValueError('boom')\n"
    )
    project.entry("main", "python train.py {token}", "{token: string}")
    done = finish(submit(project, parameters={"token": secret, "url": f"x={secret}&y"}))
    assert done.tags["gpu_cluster.failure"] == "rank 0 exited with status 1 (ValueError: boom)"
    assert done.run.data.params == {"token": "<HF_TOKEN>", "url": "x=<HF_TOKEN>&y"}
    seen = [path for path in tmp_path.rglob("*") if path.is_file() and b"s3cr3t-v4lue" in path.read_bytes()]
    assert seen == []


def test_a_project_in_a_subdirectory_reaches_its_siblings(store: MlflowClient, project: Project) -> None:
    inner = project.path / "inner"
    inner.mkdir()
    (project.path / "common.txt").write_text("shared")
    (inner / "outputs").mkdir()
    (inner / "outputs/old").touch()
    Project(inner).entry("main", "cat ../common.txt; touch outputs/new")
    done = finish(submit(f"{project.path}#inner"))
    assert done.log == "shared"
    assert {name for name in done.files() if name.startswith("outputs")} == {"outputs/new"}


def test_of_run_refuses_unknown_runs(home: Path) -> None:
    answer = companion("status", "nope")
    assert answer.returncode == 1
    assert answer.stderr.startswith("Error: there is no run 'nope' of this machine (`gpu-cluster runs` lists them)")
    assert len(answer.stderr.splitlines()) == 1


def _text(run: GpuClusterSubmittedRun) -> str:
    log = run.directory.rank_log(0)
    return log.read_text(encoding="utf-8") if log.exists() else ""


def _sleepers(run: GpuClusterSubmittedRun) -> list[int]:
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_with(run.run_id)}
    return [pid for pid, line in lines.items() if line.startswith((b"sleep\0987", b"python\0train.py"))]


def _agent(run: GpuClusterSubmittedRun) -> int:
    return int(json.loads(run.directory.agent.read_text())["pid"])
