"""Jobs submitted through the estimator: real processes, real runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import horovod_built
import mlflow
import pytest
from conftest import ROOT, Server, processes_with, wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import (
    AmlCompute,
    ComputeTarget,
    ComputeTargetException,
    DataInput,
    Environment,
    Experiment,
    ExperimentExecutionException,
    Nccl,
    PyTorch,
    PyTorchConfiguration,
    Run,
    ScriptRunConfig,
    UserErrorException,
    Workspace,
)
from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.jobdir import JobDir

Make = Callable[..., Run]


@pytest.fixture
def submit(experiment: Experiment, folder: Path) -> Make:
    """Submit a script's text with this interpreter."""

    def make(text: str, tags: dict[str, str] | None = None, **options: Any) -> Run:
        (folder / "train.py").write_text(text, encoding="utf-8")
        given_options = {"compute_target": "local", "entry_script": "train.py", "user_managed": True, **options}
        return experiment.submit(PyTorch(folder, **given_options), tags=tags)

    return make


def test_a_job_from_submission_to_files(
    submit: Make, experiment: Experiment, capfd: pytest.CaptureFixture[str]
) -> None:
    run = submit(
        "import sys\nfrom pathlib import Path\nfrom mlflow_pytorch_estimator import Run\n"
        "print('hello', sys.argv[1:])\n"
        "run = Run.get_context()\n"
        "run.log('lr', 0.1)\n"
        "for value in (1, 2, 3):\n    run.log('best_val_acc', value / 4)\n"
        "Path('outputs').mkdir(exist_ok=True)\nPath('outputs/model.pt').write_bytes(b'weights')\n",
        tags={"team": "a"},
        script_params={"--num_epochs": 3, "--output_dir": "./outputs"},
    )
    details = run.wait_for_completion(show_output=True)
    out = capfd.readouterr().out
    assert "hello ['--num_epochs', '3', '--output_dir', './outputs']\n" in out
    assert f"RunId: {run.id}" in out
    assert "Execution Summary" in out
    assert run.status == details["status"] == "Completed"
    assert run.get_metrics()["lr"] == 0.1
    assert run.get_metrics()["best_val_acc"][-1] == 0.75
    assert details["runDefinition"]["arguments"] == {"num_epochs": "3", "output_dir": "./outputs"}
    assert run.get_tags()["team"] == "a"
    assert {"outputs/model.pt", "logs/rank_0.log"} <= set(run.get_file_names())
    assert "hello" in run.get_details_with_logs()["logFiles"]["logs/rank_0.log"]
    assert [item.id for item in experiment.get_runs()] == [run.id]
    entity = experiment.workspace.stores.client().get_run(run.id)
    assert entity.data.params == {"num_epochs": "3", "output_dir": "./outputs"}
    assert entity.data.tags["mlflow.source.name"].endswith("src/train.py")


def test_what_the_script_writes_below_logs_is_kept(submit: Make, folder: Path) -> None:
    (folder / "logs").mkdir()
    (folder / "logs/of_the_source.txt").write_text("old")
    run = submit(
        "open('logs/events.txt', 'w').write('new')\nopen('logs/rank_0.log', 'w').write('not ours')\nprint('x')"
    )
    run.wait_for_completion()
    assert {name for name in run.get_file_names() if name.startswith("logs/")} == {"logs/events.txt", "logs/rank_0.log"}
    assert run.get_details_with_logs()["logFiles"]["logs/rank_0.log"] == "x\n"
    assert run.files.read_text("logs/rank_0.log") == "x\n"


def test_a_failed_run_raises_with_its_reason(submit: Make) -> None:
    run = submit("raise ValueError('no luck')")
    with pytest.raises(ExperimentExecutionException, match=r"Failed.*ValueError: no luck") as caught:
        run.wait_for_completion()
    assert caught.value.run_id == run.id
    details = run.wait_for_completion(raise_on_error=False)
    assert details["status"] == "Failed"
    assert "no luck" in details["error"]["error"]["message"]


def test_waiting_on_a_canceled_run_raises_too(submit: Make) -> None:
    run = submit("import time\nprint('up', flush=True)\ntime.sleep(600)")
    wait_until(lambda: run.status == "Running", what="the job")
    run.cancel()
    assert run.status == "Canceled"
    assert processes_with(run.id) == []
    with pytest.raises(ExperimentExecutionException, match="Canceled"):
        run.wait_for_completion()


def test_no_half_line_is_lost_or_doubled(submit: Make, capfd: pytest.CaptureFixture[str]) -> None:
    run = submit(
        "import sys, time\n"
        "for part in ('one', ' and', ' two\\nthr', 'ee', '\\nlast'):\n"
        "    sys.stdout.write(part); sys.stdout.flush(); time.sleep(0.3)\n"
    )
    run.wait_for_completion(show_output=True)
    assert "one and two\nthree\nlast\n" in capfd.readouterr().out


def test_a_script_on_a_silent_wait_prints_nothing(submit: Make, capfd: pytest.CaptureFixture[str]) -> None:
    submit("print('job')").wait_for_completion()
    assert "job" not in capfd.readouterr().out


def test_variables_reach_the_script_and_no_file(submit: Make, experiment: Experiment) -> None:
    run = submit(
        "import os, sys\nprint(os.environ['PLAIN'], len(os.environ['MY_API_KEY']), sys.argv[2])",
        environment_variables={"PLAIN": "a b", "MY_API_KEY": "s3cr3t-value-9"},
        script_params={"--key": "s3cr3t-value-9"},
    )
    run.wait_for_completion()
    job = run.job
    assert job is not None
    assert job.directory.rank_log(0).read_text() == "a b 14 s3cr3t-value-9\n"
    files = [path for path in job.directory.path.rglob("*") if path.is_file() and path.name != "rank_0.log"]
    assert [path for path in files if b"s3cr3t-value-9" in path.read_bytes()] == []
    assert "s3cr3t" not in str(experiment.workspace.stores.client().get_run(run.id).to_dictionary())
    assert job.directory.job.environment_variables == ("MY_API_KEY", "PLAIN")


def test_the_agents_own_path_is_not_the_users(submit: Make) -> None:
    run = submit(
        "import os\nprint(os.environ['LD_LIBRARY_PATH'])", environment_variables={"LD_LIBRARY_PATH": "/nowhere"}
    )
    run.wait_for_completion()
    assert "/nowhere" in run.get_details_with_logs()["logFiles"]["logs/rank_0.log"]


def test_use_gpu_without_a_gpu_is_said(
    submit: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run = submit("print('on the CPU')", use_gpu=True)
    run.wait_for_completion()
    assert "this machine has none" in caplog.text
    assert "this machine has none" in run.get_tags()["gpu_cluster.notice"]
    assert run.get_details()["warnings"]


def test_ranks_of_two_nodes_are_one_run(submit: Make) -> None:
    two = PyTorchConfiguration("Gloo", node_count=2)
    run = submit("import os\nprint('rank', os.environ['RANK'])", distributed_training=two)
    run.wait_for_completion()
    assert run.get_tags()["gpu_cluster.distribution"] == "torch, 2 x 1"
    assert "gpu_cluster.notice" not in run.get_tags()
    assert {"logs/rank_0.log", "logs/rank_1.log"} <= set(run.get_file_names())


def test_nccl_without_a_gpu_is_said(submit: Make, caplog: pytest.LogCaptureFixture) -> None:
    run = submit("import os\nprint(os.environ['GPU_CLUSTER_DISTRIBUTED_BACKEND'])", distributed_training=Nccl())
    run.wait_for_completion()
    assert (
        run.get_tags()["gpu_cluster.notice"] == "nccl needs GPUs, and the job has none: the ranks are told to use gloo"
    )
    assert "told to use gloo" in caplog.text
    (log,) = [Path(path) for path in run.get_all_logs() if path.endswith("rank_0.log")]
    assert log.read_text() == "gloo\n"


def test_the_time_limit_ends_a_job(submit: Make) -> None:
    run = submit("import time\ntime.sleep(600)", max_run_duration_seconds=1)
    with pytest.raises(ExperimentExecutionException, match=r"longer than max_run_duration_seconds \(1 s\)"):
        run.wait_for_completion()
    assert processes_with(run.id) == []


def test_a_compute_target_places_the_job(submit: Make, experiment: Experiment) -> None:
    workspace = experiment.workspace
    config = AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6", max_nodes=2)
    cluster = ComputeTarget.create(workspace, "gpu-cluster", config)
    run = submit("import time\nprint('up', flush=True)\ntime.sleep(600)", compute_target=cluster)
    wait_until(lambda: run.status == "Running", what="the job")
    nodes = cluster.list_nodes()
    assert [(node["nodeState"], node["runId"]) for node in nodes] == [("running", run.id)]
    assert cluster.get_status().node_state_counts.running == 1
    run.cancel()
    assert run.get_details()["target"] == "gpu-cluster"
    assert [node["nodeState"] for node in cluster.list_nodes()] == ["idle"]
    cluster.delete()
    with pytest.raises(ComputeTargetException, match="no compute target 'gpu-cluster'"):
        submit("print()", compute_target="gpu-cluster")
    with pytest.raises(ComputeTargetException):
        ComputeTarget(workspace, "gpu-cluster")


def test_too_many_nodes_for_a_target_are_refused_before_a_run_exists(submit: Make, experiment: Experiment) -> None:
    config = AmlCompute.provisioning_configuration(vm_size="STANDARD_D2_V2", max_nodes=2)
    ComputeTarget.create(experiment.workspace, "small", config)
    with pytest.raises(GpuClusterError, match="3"):
        submit("print()", compute_target="small", node_count=3, distributed_training=PyTorchConfiguration("Gloo"))
    assert list(experiment.get_runs()) == []


def test_the_backend_takes_a_compute_target_by_name(experiment: Experiment, project: Any) -> None:
    config = AmlCompute.provisioning_configuration(vm_size="STANDARD_D2_V2", max_nodes=1)
    ComputeTarget.create(experiment.workspace, "small", config)
    project.entry("main", "echo hi")
    submitted = mlflow.projects.run(
        str(project.path), backend="gpu-cluster", backend_config={"compute": "small"}, env_manager="local"
    )
    assert submitted.get_status() == "FINISHED"
    assert experiment.workspace.get_run(submitted.run_id).get_tags()["gpu_cluster.compute"] == "small"


def test_inputs_become_paths(submit: Make, experiment: Experiment, tmp_path: Path) -> None:
    first = submit(
        "from pathlib import Path\nPath('outputs/a').mkdir(parents=True)\nPath('outputs/a/x').write_text('kept')"
    )
    first.wait_for_completion()
    data = tmp_path / "data"
    data.mkdir()
    (data / "y").write_text("local")
    run = submit(
        "import json, os, sys\nfrom pathlib import Path\nfrom mlflow_pytorch_estimator import Run\n"
        "found = Run.get_context().input_datasets\n"
        "print(json.dumps([Path(sys.argv[2], 'x').read_text(), Path(found['more'], 'y').read_text(),\n"
        "    Path(os.environ['GPU_CLUSTER_INPUT_MORE']).samefile(found['more']), sys.argv[4],\n"
        "    Path(found['again'], 'x').read_text(), sys.argv[6]]))",
        script_params={
            "--old": f"runs:/{first.id}/outputs/a",
            "--folder": "./as/it/is",
            "--uri": DataInput("s3://bucket/key", mode="direct"),
        },
        inputs={"more": str(data), "again": f"runs:/{first.id}/outputs/a"},
    )
    run.wait_for_completion()
    log = run.get_details_with_logs()["logFiles"]["logs/rank_0.log"]
    assert json.loads(log.splitlines()[-1]) == ["kept", "local", True, "./as/it/is", "kept", "s3://bucket/key"]


def test_an_input_that_is_not_there_is_refused_before_a_run_exists(submit: Make, experiment: Experiment) -> None:
    with pytest.raises(GpuClusterError, match="no file or folder"):
        submit("print()", inputs={"data": "/no/such/folder"})
    assert list(experiment.get_runs()) == []


def test_an_artifact_that_is_not_there_fails_the_run_with_the_reason(submit: Make) -> None:
    run = submit("print()", script_params={"--old": "runs:/00000000000000000000000000000000/x"})
    with pytest.raises(ExperimentExecutionException, match="00000000000000000000000000000000"):
        run.wait_for_completion()


def test_resume_from_passes_the_checkpoint(submit: Make, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text("epoch 7")
    run = submit("import sys\nprint(sys.argv[1], open(sys.argv[2]).read())", resume_from=tmp_path / "checkpoint")
    run.wait_for_completion()
    assert "--resume-from epoch 7" in run.get_details_with_logs()["logFiles"]["logs/rank_0.log"]


def test_a_command_of_script_run_config(experiment: Experiment, folder: Path) -> None:
    environment = Environment("here")
    environment.python.user_managed_dependencies = True
    config = ScriptRunConfig(folder, command="echo one | tr a-z A-Z", environment=environment)
    run = experiment.submit(config, run_name="shell")
    run.wait_for_completion()
    assert run.name == "shell"
    assert run.get_details_with_logs()["logFiles"]["logs/rank_0.log"] == "ONE\n"


def test_other_things_cannot_be_submitted(experiment: Experiment) -> None:
    with pytest.raises(UserErrorException, match="cannot be submitted"):
        experiment.submit("train.py")  # type: ignore[arg-type]  # that is the test
    assert list(experiment.get_runs()) == []


def test_a_child_job(submit: Make, experiment: Experiment, folder: Path) -> None:
    parent = experiment.start_logging()
    (folder / "train.py").write_text("print('child')")
    config = PyTorch(folder, compute_target="local", entry_script="train.py", user_managed=True)
    child = parent.submit_child(config)
    child.wait_for_completion()
    assert [run.id for run in parent.get_children()] == [child.id]
    assert parent.status == "Running"


def test_a_job_ends_itself_whatever_it_calls(submit: Make) -> None:
    run = submit(
        "from mlflow_pytorch_estimator import Run\nrun = Run.get_context()\nrun.complete()\nrun.fail('x')\n"
        "import mlflow\nprint(mlflow.MlflowClient().get_run(run.id).info.status)\n"
        "with Run.get_context() as again:\n    again.log('a', 1)\n"
    )
    run.wait_for_completion()
    lines = run.get_details_with_logs()["logFiles"]["logs/rank_0.log"].splitlines()
    assert {"SCHEDULED", "RUNNING"} & set(lines)
    assert sum("whose own end decides" in line for line in lines) == 3
    assert run.get_metrics() == {"a": 1}


def test_a_job_can_cancel_itself(submit: Make) -> None:
    run = submit("import time\nfrom mlflow_pytorch_estimator import Run\nRun.get_context().cancel()\ntime.sleep(600)")
    assert run.wait_for_completion(raise_on_error=False)["status"] == "Canceled"


def test_every_rank_but_the_first_is_muted(submit: Make) -> None:
    run = submit(
        "import os, subprocess, sys\n"
        "text = 'from mlflow_pytorch_estimator import Run; run = Run.get_context(); '\n"
        'text += \'run.log("loss", %s); run.tag("t", "%s")\'\n'
        "for rank in '01':\n"
        "    environ = {**os.environ, 'RANK': rank, 'WORLD_SIZE': '2'}\n"
        "    subprocess.run([sys.executable, '-c', text % (rank, rank)], env=environ, check=True)\n"
    )
    run.wait_for_completion()
    assert run.get_metrics() == {"loss": 0}
    assert run.get_tags()["t"] == "0"
    assert "rank 1" in run.get_details_with_logs()["logFiles"]["logs/rank_0.log"]


def test_logs_of_a_running_job(submit: Make, tmp_path: Path) -> None:
    run = submit("import time\nprint('early', flush=True)\ntime.sleep(600)")
    wait_until(lambda: "early" in run.get_details_with_logs()["logFiles"].get("logs/rank_0.log", ""), what="the log")
    saved = run.get_all_logs(tmp_path / "saved")
    assert str(tmp_path / "saved/logs/rank_0.log") in saved
    html = run._repr_html_()
    assert "early" in html
    assert "Running" in html
    run.cancel()


def test_the_page_in_a_notebook_escapes_what_it_shows(submit: Make) -> None:
    run = submit("print('<script>alert(1)</script>')\nraise ValueError('<b>')")
    run.wait_for_completion(raise_on_error=False)
    html = run._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
    assert "Failed" in html


def test_a_workspace_with_a_home_and_stores_of_its_own(store: MlflowClient, folder: Path, tmp_path: Path) -> None:
    workspace = Workspace(tracking_uri=f"sqlite:///{tmp_path}/own.db", home=tmp_path / "own-home")
    (folder / "train.py").write_text("from mlflow_pytorch_estimator import Run\nRun.get_context().log('a', 2)")
    config = PyTorch(folder, compute_target="local", entry_script="train.py", user_managed=True)
    run = Experiment(workspace, "elsewhere").submit(config)
    run.wait_for_completion()
    assert run.get_metrics() == {"a": 2}
    assert (tmp_path / "own-home/jobs" / run.id).is_dir()
    assert not (tmp_path / "home/jobs").exists()
    assert store.get_experiment_by_name("elsewhere") is None


def test_on_a_server_the_header_links_to_the_page(
    server: Server, folder: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    workspace = Workspace(tracking_uri=server.uri)
    experiment = Experiment(workspace, "birds")
    (folder / "train.py").write_text(
        "from pathlib import Path\nPath('outputs').mkdir(exist_ok=True)\nPath('outputs/model.bin').write_text('x')"
    )
    run = experiment.submit(PyTorch(folder, compute_target="local", entry_script="train.py", user_managed=True))
    run.wait_for_completion(show_output=True)
    url = f"{server.uri}/#/experiments/{experiment.id}/runs/{run.id}"
    assert run.get_portal_url() == url
    assert f"Web View: {url}" in capfd.readouterr().out
    model = run.register_model("birds", "outputs/")
    assert (model.id, model.version) == ("birds:1", 1)
    run.download_file("outputs/model.bin", tmp_path / "got.bin")
    assert (tmp_path / "got.bin").read_text() == "x"


def test_a_plain_script_prints(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "from mlflow_pytorch_estimator import Run\nrun = Run.get_context()\n"
        "for step in range(2):\n    run.log('loss', step / 2, step=step)\nprint(run.get_metrics())\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "GPU_CLUSTER"))}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert "loss" in done.stdout
    assert "{'loss': [0.0, 0.5]}" in done.stdout
    assert list(tmp_path.iterdir()) == [tmp_path / "script.py"]


# What a process can be given: everything but NUL and lone surrogates other than those of undecodable bytes.
ARGUMENTS = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
    | st.binary(max_size=10).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
    | st.integers()
    | st.floats(),
    max_size=8,
)


def argv_of(run: Run) -> list[bytes]:
    return [bytes.fromhex(item) for item in json.loads(Path(run.job.directory.outputs, "argv").read_text())]  # type: ignore[union-attr]


def test_arguments_reach_the_script_byte_for_byte(experiment: Experiment, folder: Path) -> None:
    """Many fuzzed argument lists, all in one job: the script is given them one list after the other."""
    collected: list[list[Any]] = []

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(ARGUMENTS)
    def collect(arguments: list[Any]) -> None:
        collected.append(arguments)

    collect()
    (folder / "train.py").write_text(
        "import json, os, sys\nfrom pathlib import Path\nPath('outputs').mkdir(exist_ok=True)\n"
        "Path('outputs/argv').write_text(json.dumps([os.fsencode(word).hex() for word in sys.argv[1:]]))\n"
    )
    everything = [item for arguments in collected for item in arguments]
    environment = Environment("here")
    environment.python.user_managed_dependencies = True
    config = ScriptRunConfig(folder, "train.py", everything, environment=environment)
    run = experiment.submit(config)
    run.wait_for_completion()
    assert argv_of(run) == [os.fsencode(str(item)) for item in everything]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    options=st.fixed_dictionaries(
        {},
        optional={
            "compute_target": st.none() | st.text(max_size=5) | st.integers(),
            "entry_script": st.none() | st.text(max_size=5) | st.just("train.py"),
            "script_params": st.dictionaries(st.text(max_size=3), st.none() | st.text(max_size=5) | st.integers()),
            "node_count": st.integers(-1, 3) | st.text(max_size=2),
            "process_count_per_node": st.integers(-1, 3) | st.none(),
            "distributed_backend": st.none() | st.sampled_from(["mpi", "x", ""]),
            "use_gpu": st.booleans() | st.none(),
            "pip_packages": st.lists(st.text(max_size=6), max_size=2) | st.none(),
            "conda_packages": st.lists(st.text(max_size=6), max_size=2) | st.text(max_size=3),
            "environment_variables": st.dictionaries(st.text(max_size=3), st.text(max_size=3)),
            "inputs": st.none() | st.lists(st.text(max_size=4)) | st.integers(),
            "resume_from": st.none() | st.text(max_size=4) | st.integers(),
            "max_run_duration_seconds": st.none() | st.integers(-1, 2) | st.floats() | st.text(max_size=1),
            "framework_version": st.none() | st.text(max_size=4) | st.sampled_from(["2.9", "2.13"]),
            "shm_size": st.none() | st.text(max_size=2),
        },
    )
)
def test_whatever_is_refused_is_refused_in_our_words(tmp_path_factory: Any, options: dict[str, Any]) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    (folder / "train.py").touch()
    try:
        estimator = PyTorch(folder, **{"compute_target": "local", "entry_script": "train.py", **options})
    except GpuClusterError as error:
        assert str(error).splitlines() == [str(error)]  # noqa: PT017 - most of the fuzzed are refused
    else:
        assert estimator.describe().source.words[:2] == ("python", "train.py")


def test_what_is_refused_at_submission_leaves_nothing(experiment: Experiment, folder: Path, home: Path) -> None:
    (folder / "train.py").touch()
    long = PyTorch(folder, compute_target="local", entry_script="train.py", user_managed=True,
                   script_params={"--x": "y" * 140_000})  # fmt: skip
    for config, word in ((long, "bytes long"),):
        with pytest.raises(GpuClusterError, match=word):
            experiment.submit(config)
    assert list(experiment.get_runs()) == []
    assert [path for path in (home / "jobs").iterdir() if path.is_dir()] == []


def test_old_runs_are_read_from_another_working_directory(
    submit: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submit("print('x')")
    run.wait_for_completion()
    monkeypatch.chdir("/")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/another.db")
    directory = JobDir.of_run(run.id)
    directory.delivered.unlink()
    assert run.status == "Completed"  # delivered again, to the store that the job belongs to
    assert directory.delivered.exists()


@pytest.mark.parametrize("name", ["train_with_estimator.py", "train_with_horovod.py"])
def test_the_examples(
    store: MlflowClient,
    home: Path,
    tmp_path: Path,
    name: str,
    photographs: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """The tutorial's flow, in an environment of its own; Horovod is compiled once for all tests."""
    if name == "train_with_horovod.py":
        request.getfixturevalue("horovod_environment")
        monkeypatch.setenv("GPU_CLUSTER_ENVIRONMENTS", str(horovod_built.HOROVOD_ENVIRONMENTS))
    words = [str(photographs())] if name == "train_with_estimator.py" else []
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/estimator" / name), *words],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert time.monotonic() - start < 900
    run = next(iter(Workspace().experiments["pytorch-birds" if words else "pytorch-horovod"].get_runs()))
    assert run.status == "Completed"
    if words:
        assert "best validation accuracy:" in done.stdout
        assert "pt-dnn:1" in done.stdout
        assert (tmp_path / "model.pt").stat().st_size > 40_000_000
        assert Workspace().models["pt-dnn"].version == 1
    else:
        assert "horovod, 1 x 2" in run.get_tags()["gpu_cluster.distribution"]
