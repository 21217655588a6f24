"""Jobs on a real Slurm whose nodes share no file system with us: each has an empty disk where our folders are."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from conftest import Project, copy_store, finish, processes_with, submit, wait_until
from mlflow.tracking import MlflowClient
from rank_jobs import Jobs, begin, everything, logs
from slurm_cluster import Slurm, cluster, missing, watchers

from mlflow_pytorch_estimator.environments import cache
from mlflow_pytorch_estimator.errors import ConfigError, ProjectError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.relay import choosing
from mlflow_pytorch_estimator.schedulers.slurm import broadcast, parcels, receiving
from mlflow_pytorch_estimator.schedulers.slurm import far as far_module
from mlflow_pytorch_estimator.schedulers.slurm.handover import Handover
from mlflow_pytorch_estimator.spec import Container, Distribution, InterpreterSpec, JobSpec, Resources
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

BEGUN = "import os, sys, time\nprint('begun', flush=True)\n"
FAR = {"shared_filesystem": False}


@pytest.fixture(scope="module")
def far_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Two nodes that see nothing of what these tests write."""
    absent = missing()
    if absent:
        pytest.skip(f"Slurm is not installed: no {absent} (apt install slurm-wlm munge)")
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can give nodes on this machine a disk of their own (unshare --mount)")
    hidden = tmp_path_factory.getbasetemp()
    tried = ["unshare", "--mount", "--propagation=private", "mount", "-t", "tmpfs", "none", str(hidden)]
    if subprocess.run(tried, capture_output=True, timeout=30, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount: nodes on it cannot have a disk of their own")
    with cluster(static=2, remembered=300, hidden=hidden) as slurm:
        yield slurm


@pytest.fixture
def far(far_lab: Slurm, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    monkeypatch.setenv("SLURM_CONF", str(far_lab.conf))
    return far_lab


@pytest.fixture(scope="module")
def reachable(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[str]:
    """The address of a real `mlflow server`, by this machine's name as nodes would use it."""
    folder = tmp_path_factory.mktemp("server")
    copy_store(empty_store, folder / "server.db", "mlflow-artifacts:/0")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://{socket.gethostname()}:{port}"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "0.0.0.0", "--port", str(port), "--workers", "1"),
        *("--allowed-hosts", "*", "--backend-store-uri", f"sqlite:///{folder}/server.db"),
        *("--artifacts-destination", str(folder / "stored")),
    ]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until(lambda: _answers(port), 240, "the MLflow server")
            yield uri
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # nothing of it is kept, and it would wait for open connections
            process.wait(30)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


@pytest.fixture
def tracked(home: Path, reachable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """That server as MLflow's current store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", reachable)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", reachable)
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(reachable)
    mlflow.set_registry_uri(reachable)
    mlflow.set_experiment(experiment_id="0")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    yield MlflowClient()
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


@dataclass
class FarJobs(Jobs):
    """Jobs that share no file system with this side."""

    def submit(self, *arguments: Any, **fields: Any) -> GpuClusterSubmittedRun:
        return super().submit(*arguments, shared_filesystem=False, tracking_uri=mlflow.get_tracking_uri(), **fields)


@pytest.fixture
def quick(tracked: MlflowClient, far: Slurm) -> Iterator[Jobs]:
    """Ranks under this interpreter, which the nodes have as well."""
    yield FarJobs(tracked, sys.executable, "slurm")
    ids = far.command("squeue", "--noheader", "--format=%A").split()
    if ids:
        far.command("scancel", "--full", *ids)
    wait_until(lambda: not far.command("squeue", "--noheader"), 60, "an empty queue")


def on_node(slurm: Slurm, node: str, *command: str) -> str:
    """What a command prints on a node."""
    pid = slurm.processes[node].pid
    done = subprocess.run(
        ["nsenter", f"--target={pid}", "--mount", *command], capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout


def messages(directory: JobDir) -> list[str]:
    return [f"{event.phase}: {event.message}" for event in directory.events()]


def reason(submitted: GpuClusterSubmittedRun) -> str:
    found = submitted.directory.outcome
    assert found is not None
    return found.reason


def test_a_project_runs(project: Project, quick: Jobs, far: Slurm, home: Path) -> None:
    project.script(
        "import mlflow, os, pathlib\n"
        "print('hello from', os.environ['SLURMD_NODENAME'], os.environ['WORD'])\n"
        "assert sorted(p.name for p in pathlib.Path(os.environ['HOME_HERE']).iterdir()) == ['jobs'], 'shared'\n"
        "mlflow.log_metric('loss', 0.5)\n"
        "pathlib.Path('outputs/deep').mkdir(parents=True)\n"
        "pathlib.Path('outputs/deep/made.txt').write_text('made')\n"
        "pathlib.Path('outputs/empty').touch()\n"
        "pathlib.Path('outputs/big').write_bytes(bytes(range(256)) * 4000)\n"
    )
    os.environ |= {"WORD": "a word", "HOME_HERE": str(home)}
    try:
        submitted = submit(project, config={"scheduler": "slurm", "cpus_per_node": 1, **FAR})
    finally:
        del os.environ["WORD"], os.environ["HOME_HERE"]
    done = finish(submitted)
    assert done.succeeded, everything(done)
    assert done.log.splitlines()[0] == "hello from n1 a word"
    assert done.run.data.metrics["loss"] == 0.5
    assert done.artifact("outputs/deep/made.txt") == "made"
    assert {"outputs/empty", "outputs/big", "logs/rank_0.log"} <= done.files()
    assert (done.directory.outputs / "big").read_bytes() == bytes(range(256)) * 4000
    assert "n1, 1 CPU, 0 GPUs (slurm scheduler)" in done.tags["mlflow.note.content"]
    assert done.run.info.status == "FINISHED"
    assert any(name.startswith("system/") for name in done.run.data.metrics)
    wait_until(lambda: not on_node(far, "n1", "ls", str(home / "jobs")), 20, "a tidy node")
    assert on_node(far, "n2", "ls", str(home)) == ""


def test_ranks_of_two_nodes_meet(quick: Jobs, far: Slurm, home: Path) -> None:
    script = """
import os, pathlib
import torch.distributed as dist
import torch
dist.init_process_group("gloo")
tensor = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(tensor)
print(os.environ["RANK"], os.environ["WORLD_SIZE"], tensor.item(), os.environ["SLURMD_NODENAME"])
outputs = pathlib.Path("outputs")
(outputs / f"of-{os.environ['RANK']}.txt").write_text(os.environ["SLURMD_NODENAME"])
(pathlib.Path(os.environ["CHECKPOINT_DIR"]) / f"at-{os.environ['RANK']}").touch()
dist.destroy_process_group()
"""
    done = finish(quick.submit(script, 1, 2, "torch", cpus=1))
    assert done.succeeded, everything(done)
    places = [log.split() for log in logs(done)]
    assert [place[:3] for place in places] == [["0", "2", "3.0"], ["1", "2", "3.0"]]
    assert {place[3] for place in places} == {"n1", "n2"}
    assert {done.artifact("outputs/of-0.txt"), done.artifact("outputs/of-1.txt")} == {"n1", "n2"}
    assert {path.name for path in done.directory.checkpoints.iterdir()} == {"at-0", "at-1"}
    assert any(name.startswith("system/n2/") for name in done.run.data.metrics)
    for node in ("n1", "n2"):
        wait_until(lambda: not on_node(far, node, "ls", str(home / "jobs")), 20, f"a tidy {node}")  # noqa: B023 - waited for here


def test_the_rank_that_fails_is_named_with_its_traceback(quick: Jobs) -> None:
    script = f"{BEGUN}if os.environ['RANK'] == '1':\n    raise ValueError('no good')\ntime.sleep(600)"
    done = finish(quick.submit(script, 1, 2, "torch", grace_seconds=2.0, cpus=1))
    found = done.directory.outcome
    assert found is not None
    assert found.reason == "rank 1 exited with status 1 (ValueError: no good)"
    assert (found.failure or {})["node"] in {"n1", "n2"}
    assert "ValueError: no good" in done.directory.rank_log(1).read_text()
    assert done.run.info.status == "FAILED"


def test_logs_come_while_the_job_runs_and_a_cancel_goes_there(quick: Jobs, far: Slurm) -> None:
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    submitted = quick.submit(f"{deaf}{BEGUN}time.sleep(600)", 1, 2, "torch", grace_seconds=1.0, cpus=1)
    begin(submitted)
    wait_until(lambda: status(submitted) == "RUNNING", 60, "the status")
    submitted.cancel()
    assert (status(submitted), reason(submitted)) == ("KILLED", "canceled by request")
    # Not CANCELLED by scancel, the last resort: the agent was told, and has ended the job itself, with its status.
    wait_until(lambda: state(far, submitted) == "FAILED", 30, "the end in Slurm")
    wait_until(lambda: processes_with(submitted.run_id) == [], 60, "the end of all processes")


def state(slurm: Slurm, submitted: GpuClusterSubmittedRun) -> str:
    job_id = submitted.directory.job_id or ""
    return slurm.command("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T").strip()


def status(submitted: GpuClusterSubmittedRun) -> str:
    return str(MlflowClient().get_run(submitted.run_id).info.status)


def test_scancel_ends_the_run_and_the_logs_come_back(quick: Jobs, far: Slurm) -> None:
    # Slurm sends the signal to all that is in the job, and the agent to what it has started: the first one counts.
    script = f"{BEGUN}import signal\ndef end(*_):\n    signal.signal(signal.SIGTERM, lambda *_: None)\n"
    script += "    print('ended', flush=True)\n    sys.exit(1)\nsignal.signal(signal.SIGTERM, end)\ntime.sleep(600)"
    submitted = quick.submit(script, kind="single", distribution=Distribution())
    begin(submitted, 1)
    far.command("scancel", submitted.directory.job_id or "")
    done = finish(submitted)
    assert done.run.info.status == "KILLED"
    assert done.log == "begun\nended\n"


def test_a_killed_agent_is_no_success(quick: Jobs) -> None:
    submitted = quick.submit(f"{BEGUN}time.sleep(600)", kind="single", distribution=Distribution())
    begin(submitted, 1)
    wait_until(submitted.directory.agent.exists, 30, "the agent's record")
    os.kill(json.loads(submitted.directory.agent.read_text())["pid"], signal.SIGKILL)
    assert not submitted.wait()
    assert "was killed by SIGKILL without a word about the ranks" in reason(submitted)
    assert f"what was not fetched stays on the disk of n1 in {submitted.directory.path}" in reason(submitted)
    assert status(submitted) == "FAILED"


def couriers(run_id: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if any(word.endswith("slurm.courier") for word in words) and any(run_id in word for word in words):
                found.append(int(path.parent.name))
    return found


def test_a_broken_connection_loses_nothing(quick: Jobs, home: Path) -> None:
    script = f"{BEGUN}from pathlib import Path\n"
    script += "for n in range(400):\n    print(n, 'x' * 2000, flush=True)\n    time.sleep(0.02)\n"
    script += "while not Path('go').exists():\n    time.sleep(0.1)\n"
    script += "Path('outputs/big').write_bytes(bytes(range(256)) * 20000)\n"
    submitted = quick.submit(script, kind="single", distribution=Distribution(), cpus=1)
    begin(submitted, 1, "\n20 ")
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"srun\0") and submitted.run_id.encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)  # the connection alone
    begin(submitted, 1, "\n100 ")
    for pid in [*watchers(home), *couriers(submitted.run_id)]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not submitted.directory.alive, 10, "the end of the watcher")
    assert submitted.get_status() == "RUNNING"  # whoever looks starts another watcher
    begin(submitted, 1, "\n399 ")
    _go(submitted)
    done = finish(submitted)
    assert done.succeeded, everything(done)
    assert done.log == "begun\n" + "".join(f"{n} {'x' * 2000}\n" for n in range(400))
    assert (done.directory.outputs / "big").read_bytes() == bytes(range(256)) * 20000
    assert len(messages(done.directory)) == len(set(messages(done.directory)))


def _go(submitted: GpuClusterSubmittedRun) -> None:
    """Let the script end, by a file where it runs."""
    (rank,) = [
        pid
        for pid in processes_with(submitted.run_id)
        if Path(f"/proc/{pid}/cwd").readlink() == submitted.directory.source
        and Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:2] == [b"train.py"]
    ]
    Path(f"/proc/{rank}/cwd/go").touch()


def test_checkpoints_come_back_while_the_job_runs(quick: Jobs) -> None:
    script = f"{BEGUN}from pathlib import Path\nfolder = Path(os.environ['CHECKPOINT_DIR'])\n"
    script += "(folder / 'one').write_text('1')\nwhile not Path('go').exists():\n    time.sleep(0.1)\n"
    script += "(folder / 'two').write_text('2')\n(folder / 'one').unlink()\ntime.sleep(600)\n"
    submitted = quick.submit(script, kind="single", distribution=Distribution(), grace_seconds=1.0)
    folder = submitted.directory.checkpoints
    wait_until((folder / "one").exists, 90, "the first checkpoint")
    _go(submitted)
    wait_until(lambda: (folder / "two").exists() and not (folder / "one").exists(), 60, "the second one alone")
    assert (folder / "two").read_text() == "2"
    submitted.cancel()
    assert status(submitted) == "KILLED"


# --- the environment


@pytest.fixture
def environment(home: Path) -> Path:
    """An environment of a job with a Python of its own, both where the nodes do not see them."""
    base = Path(os.path.realpath(sys.executable)).parent.parent
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    copy = home.parent / "pythons/own"
    heavy = shutil.ignore_patterns("site-packages", "test", "__pycache__", "*.a", "share", "include")
    if base in parcels.SYSTEM:
        pytest.skip(f"the Python of these tests, {base}, cannot be copied: run them with one of uv's or pyenv's")
    shutil.copytree(base, copy, symlinks=True, ignore=heavy)
    link = copy.with_name("own-link")
    link.symlink_to(copy)
    folder = home / "envs/abcdef0123456789"
    subprocess.run([link / "bin" / version, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (folder / "lib" / version / "site-packages/shared.pth").write_text("\n".join(packages))
    cache.store(folder, {"made": "for a test"})
    return folder


def test_environment_and_python_are_sent_once(
    tracked: MlflowClient, quick: Jobs, environment: Path, far: Slurm
) -> None:
    jobs = FarJobs(tracked, str(environment / "bin/python"), "slurm", "uv")
    script = "import os, sys, psutil\nprint(sys.prefix, os.path.realpath(sys.executable), os.listdir(sys.argv[1]))"
    here = environment.parents[1].parent / "pythons"
    options = {"command": f"python train.py {here}", "scheduler_options": {"nodelist": "n1"}, "cpus": 1}

    def run() -> list[str]:
        done = finish(jobs.submit(script, kind="single", distribution=Distribution(), **options))
        assert done.succeeded, everything(done)
        prefix, python, *listed = done.log.split()
        assert (prefix, Path(python).parent) == (str(environment), here / "own/bin")
        assert sorted(eval(" ".join(listed))) == ["own", "own-link"]  # noqa: S307 - what our own script prints
        return [message.removeprefix("Scaling: ").split(":")[0] for message in messages(done.directory)]

    first = run()
    assert [words for words in first if words.startswith("sends ")] == [
        "sends Python own to n1",
        f"sends environment {environment.name} to n1",
        "sends the job to n1",
    ]
    assert not any("environment" in words or "Python" in words for words in run())
    cache.store(environment, {"made": "again"})
    again = run()
    assert f"sends environment {environment.name} to n1" in again
    assert not any("Python" in words for words in again)
    assert sorted(on_node(far, "n1", "ls", "-A", str(environment.parent)).split()) == [environment.name]


def test_a_python_that_is_not_on_the_node(tracked: MlflowClient, quick: Jobs, tmp_path: Path) -> None:
    python = tmp_path / "only-here/python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    submitted = FarJobs(tracked, str(python), "slurm").submit(BEGUN, kind="single", distribution=Distribution())
    assert not submitted.wait()
    assert f"the job could not be sent to its nodes: node n1 has no {python}, which is not sent" in reason(submitted)
    assert status(submitted) == "FAILED"


def test_a_folder_that_cannot_be_made_on_the_node(quick: Jobs, far: Slurm, home: Path) -> None:
    on_node(far, "n1", "mkdir", "-p", str(home.parent))
    on_node(far, "n1", "touch", str(home))
    submitted = quick.submit(BEGUN, kind="single", distribution=Distribution(), scheduler_options={"nodelist": "n1"})
    assert not submitted.wait()
    assert f"a node says cannot create directory '{home}" in reason(submitted)
    assert "set GPU_CLUSTER_HOME and GPU_CLUSTER_ENVIRONMENTS to folders" in reason(submitted)


def test_a_file_system_that_is_shared_after_all(tracked: MlflowClient, slurm: Slurm) -> None:
    submitted = FarJobs(tracked, sys.executable, "slurm").submit(BEGUN, kind="single", distribution=Distribution())
    assert not submitted.wait()
    assert f"node n1 sees {submitted.directory.path}, so there is a shared file system" in reason(submitted)
    assert status(submitted) == "FAILED"


def test_a_python_of_the_machine_must_be_there(tmp_path: Path) -> None:
    python = tmp_path / "envs/key/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/usr/bin/env")
    cache.store(python.parents[1], {})
    found = parcels.needs(InterpreterSpec("uv", python=str(python)))
    assert [parcel.folder for parcel in found.parcels] == [python.parents[1]]
    assert found.present == (Path("/usr/bin/env").resolve(),)


# --- ends without a connection


def test_results_that_nobody_fetches_stay_and_it_is_said_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mlflow_pytorch_estimator.schedulers.slurm.far.FETCH_SECONDS", 0.5)
    directory = JobDir(tmp_path / "jobs/1")
    directory.path.mkdir(parents=True)
    handover = Handover(directory)
    handover.start()
    handover.deliver()
    assert f"they stay in {directory.path}" in capsys.readouterr().err
    assert far_module.exit_status(directory) == far_module.NOT_FETCHED
    directory.write_job(_job())
    assert far_module.last_word(directory, 1, "n1", "usual") == "usual"
    words = far_module.last_word(directory, far_module.NOT_ARRIVED, "n1", "usual")
    assert words == f"the job was not sent to its nodes within 1800 s; {directory.path}/courier.log says more"
    far_module.FarFiles(directory).sent.touch()
    words = far_module.last_word(directory, far_module.NOT_FETCHED, "n1", "usual")
    assert words == f"its results could not be fetched: they stay on the disk of n1 in {directory.path}"
    far_module.FarFiles(directory).fetched.touch()
    handover.deliver()
    assert not directory.path.exists()
    assert far_module.exit_status(directory) == 0


def test_a_node_writes_nowhere_else(tmp_path: Path) -> None:
    directory = JobDir(tmp_path / "jobs/1")
    directory.logs.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (directory.path / "link").symlink_to(tmp_path / "elsewhere")
    books = receiving.Books(directory)
    for name in ("../2/x", "/etc/x", "link/x", "logs/../../x"):
        with pytest.raises(ProjectError, match="does not belong to the job"):
            books.enter("n1", {"grown": name, "at": 0, "data": "eA=="})
    assert not list((tmp_path / "elsewhere").iterdir())


def test_bytes_that_are_here_already_change_nothing(tmp_path: Path) -> None:
    directory = JobDir(tmp_path / "jobs/1")
    directory.logs.mkdir(parents=True)
    books = receiving.Books(directory)
    for at, text in ((0, "one "), (0, "one "), (2, "e two"), (99, "later"), (7, " end")):
        data = base64.b64encode(text.encode()).decode()
        books.enter("n1", {"grown": "logs/rank_0.log", "at": at, "data": data})
    assert directory.rank_log(0).read_text() == "one two end"


# --- refused before there is a run


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("sqlite:////somewhere/mlflow.db", "cannot reach the tracking store sqlite:////somewhere/mlflow.db"),
        ("/somewhere/mlruns", "start `mlflow server --host 0.0.0.0`"),
        ("http://127.0.0.1:5000", "cannot reach the tracking store http://127.0.0.1:5000"),
        ("http://me:secret@localhost:5000", "http://(?!me:secret)"),
    ],
)
def test_a_store_that_nodes_cannot_reach(uri: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        broadcast.check(_job(tracking_uri=uri))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"container": Container("x")}, "images are not sent to the nodes: leave out the image"),
        ({"distribution": Distribution("torch", 1, min_nodes=1)}, "min_node_count needs a file system"),
        ({"prepare_on": "node"}, "prepare_on: a node can only build for a file system that all share"),
        ({"resources": Resources(2), "max_retries": 1}, "max_retries on several nodes needs a file system"),
        ({"resources": Resources(2), "distribution": Distribution("torch", max_restarts=1)}, "max_restarts on several"),
        ({"inputs": {"A": "http://x/y"}, "storage_dir": "/data"}, "the inputs in /data are not sent"),
    ],
)
def test_what_needs_a_shared_file_system(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        broadcast.check(_job(**fields))
    broadcast.check(replace(_job(**fields), shared_filesystem=True))


@pytest.mark.parametrize("uri", ["http://mlflow:5000", "https://me:secret@10.0.0.1", "databricks", "mysql://db/mlflow"])
def test_a_store_that_nodes_can_reach(uri: str) -> None:
    broadcast.check(_job(tracking_uri=uri))
    assert not choosing.only_from_here(uri)


def _job(**fields: Any) -> JobSpec:
    settings = {"tracking_uri": "http://mlflow:5000", **fields}
    return JobSpec("1", "0", "p", "main", "true", {}, InterpreterSpec("local"), shared_filesystem=False, **settings)


def test_it_is_for_clusters_alone(project: Project, store: MlflowClient) -> None:
    project.script("print(1)")
    with pytest.raises(ConfigError, match="shared_filesystem is for clusters: the local scheduler runs jobs here"):
        submit(project, config=FAR)
    with pytest.raises(ConfigError, match="shared_filesystem is 'no'; it must be true or false"):
        submit(project, config={"shared_filesystem": "no"})
    assert store.search_runs(["0"]) == []
