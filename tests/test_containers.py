"""Jobs in containers: real ones with podman, where it runs; the command lines of docker as text."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished, Project, Server, command_line, finish, submit, wait_until
from images import containers_of, podman
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import (
    DataInput,
    DockerConfiguration,
    Environment,
    Experiment,
    PyTorch,
    ScriptRunConfig,
    submission,
)
from mlflow_pytorch_estimator.containers import describing, inside, mounts, runtime, starting
from mlflow_pytorch_estimator.containers.argv import Place, removal, wrap
from mlflow_pytorch_estimator.errors import ConfigError, EnvironmentSpecError, GpuClusterError, ProjectError
from mlflow_pytorch_estimator.estimator.exceptions import TrainingException, UserErrorException
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.jobenv import carried, rank_environment
from mlflow_pytorch_estimator.keeper import descendants
from mlflow_pytorch_estimator.launchers import single
from mlflow_pytorch_estimator.request import Request
from mlflow_pytorch_estimator.schedulers.base import Allocation
from mlflow_pytorch_estimator.script_source import ScriptSource
from mlflow_pytorch_estimator.spec import Container, InterpreterSpec, JobSpec
from mlflow_pytorch_estimator.tracking import Stores

# What the small image lacks comes from this machine: its libraries, and this interpreter with MLflow.
MACHINE = [f"{path}:{path}:ro" for path in dict.fromkeys(("/usr", sys.base_prefix, sys.prefix)) if Path(path).is_dir()]


def in_image(project: Project, image: str, command: str, parameters: str = "", **section: Any) -> Project:
    """A project whose `docker_env` names the image."""
    project.entry("main", command, parameters)
    path = project.path / "MLproject"
    text = path.read_text(encoding="utf-8")
    path.write_text(f"docker_env: {json.dumps({'image': image, **section})}\n{text}", encoding="utf-8")
    return project


def run(project: Project, **options: Any) -> Finished:
    return finish(submit(project, env_manager=None, **options))


# What a job in a container is


def test_a_project_runs_in_its_image(
    store: MlflowClient, project: Project, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COPIED", "over there $x")
    monkeypatch.setenv("NOT_COPIED", "stays here")
    in_image(
        project,
        image,
        'pwd; echo "[$COPIED][$NAMED][$NOT_COPIED][$MLFLOW_RUN_ID]"; ls /; echo made > outputs/file',
        environment=["COPIED", ["NAMED", "a 'b'"]],
    )
    done = run(project)
    assert done.succeeded, done.log
    lines = done.log.splitlines()
    assert lines[0] == str(done.directory.workdir)
    assert lines[1] == f"[over there $x][a 'b'][][{done.run.info.run_id}]"
    assert "sbin" not in lines[2:]  # a root of its own
    assert done.artifact("outputs/file") == "made\n"
    written = (done.directory.outputs / "file").stat()
    assert (written.st_uid, written.st_gid) == (os.getuid(), os.getgid())
    assert done.tags["mlflow.project.env"] == "container"
    assert done.tags["mlflow.docker.image.uri"] == image
    assert podman("image", "inspect", "--format", "{{.Id}}", image) in done.artifact("gpu_cluster/environment.txt")
    assert "over there" not in (done.directory.path / "job.json").read_text(encoding="utf-8")
    assert containers_of(done.run.info.run_id) == []


LOGS = """
import mlflow, mlflow_pytorch_estimator, os
print("package from", mlflow_pytorch_estimator.__file__)
mlflow.log_metric("loss", 0.5)
mlflow.log_text("hello", "note.txt")
try:
    open(os.path.join(os.path.dirname(mlflow_pytorch_estimator.__file__), "new"), "w")
except OSError as error:
    print("library:", error.strerror)
"""


def test_mlflow_in_the_image_reaches_a_local_store(store: MlflowClient, project: Project, image: str) -> None:
    (project.path / "train.py").write_text(LOGS, encoding="utf-8")
    done = run(in_image(project, image, "python train.py", volumes=MACHINE))
    assert done.succeeded, done.log
    assert f"package from {done.directory.library}/" in done.log
    assert "library: Read-only file system" in done.log
    assert done.run.data.metrics["loss"] == 0.5
    assert done.artifact("note.txt") == "hello"


def test_mlflow_in_the_image_reaches_a_server(server: Server, project: Project, image: str) -> None:
    (project.path / "train.py").write_text(LOGS, encoding="utf-8")
    in_image(project, image, "python train.py", volumes=MACHINE)
    process = command_line(
        "run", str(project.path), "-b", "gpu-cluster", "-A", "hostname=elsewhere", "-A", "uts=private"
    )
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, output + errors
    (found,) = server.client.search_runs(["0"])
    assert found.data.metrics["loss"] == 0.5
    assert "note.txt" in {item.path for item in server.client.list_artifacts(found.info.run_id)}


def test_an_image_without_mlflow_is_named(store: MlflowClient, project: Project, image: str) -> None:
    done = run(in_image(project, image, "python -c 'import mlflow'"))
    assert not done.succeeded
    assert "the image has no `python` that can import mlflow" in done.log


def test_the_status_of_the_script_is_that_of_the_rank(store: MlflowClient, project: Project, image: str) -> None:
    done = run(in_image(project, image, "exit 7"))
    assert (done.run.info.status, done.tags["gpu_cluster.exit_code"]) == ("FAILED", "7")
    assert done.tags["gpu_cluster.failure"] == "rank 0 exited with status 7"


def test_files_of_parameters_and_volumes_are_there(
    store: MlflowClient, project: Project, image: str, tmp_path: Path
) -> None:
    for name in ("given", "volume"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(f"in {name}\n", encoding="utf-8")
    in_image(project, image, "cat {data}/file /mnt/file", "{data: path}", volumes=[f"{tmp_path}/volume:/mnt:ro"])
    done = run(project, parameters={"data": str(tmp_path / "given")})
    assert done.log == "in given\nin volume\n"


def test_docker_args_reach_the_runtime(store: MlflowClient, project: Project, image: str) -> None:
    in_image(project, image, "cat /proc/sys/kernel/hostname /proc/mounts")
    done = run(project, docker_args={"uts": "private", "hostname": "elsewhere", "shm-size": "48m"})
    assert done.log.startswith("elsewhere\n")
    assert "size=49152k" in next(line for line in done.log.splitlines() if " /dev/shm " in line)


def test_a_job_keeps_to_its_cores(store: MlflowClient, project: Project, image: str) -> None:
    done = run(in_image(project, image, "cat /proc/self/status"), config={"cpus_per_node": 1})
    (allowed,) = [line.split()[1] for line in done.log.splitlines() if line.startswith("Cpus_allowed_list")]
    assert allowed in {str(core) for core in os.sched_getaffinity(0)}


# The estimator


def test_the_estimator_runs_a_script_in_an_image(
    experiment: Experiment, folder: Path, image: str, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("from outside\n", encoding="utf-8")
    (folder / "train.py").write_text("", encoding="utf-8")
    configuration = ScriptRunConfig(
        folder,
        command=["bash", "-c", 'cat "$GPU_CLUSTER_INPUT_X"; echo "$PATH $HOME"; cat /proc/mounts'],
        environment=_environment(image, {"PATH": "/bin:/mine", "HOME": "/tmp"}),  # noqa: S108 - in the container
        docker_runtime_config=DockerConfiguration(
            use_docker=True, shm_size="32MiB", arguments=["--env-file", "/dev/null"]
        ),
    )
    inputs = replace(configuration.describe().source, inputs=(DataInput(tmp_path / "data", "x"),))
    configuration._job = replace(configuration.describe(), source=inputs)
    submitted = experiment.submit(configuration)
    submitted.wait_for_completion()
    log = submitted.get_all_logs() if hasattr(submitted, "get_all_logs") else ""
    text = Path(next(path for path in log if "rank_0" in path)).read_text(encoding="utf-8") if log else ""
    assert text.startswith("from outside\n/bin:/mine /tmp\n")
    assert "size=32768k" in next(line for line in text.splitlines() if " /dev/shm " in line)


def test_a_local_argument_of_a_script_is_mounted(store: MlflowClient, folder: Path, image: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("from outside\n", encoding="utf-8")
    words = ("bash", "-c", 'cat "$1"; cat /proc/mounts', "bash", DataInput(tmp_path / "data"))
    container = describing.describe(image)
    source = ScriptSource(folder, words, lambda root: describing.environment(container), "bash", container=container)
    done = finish(submission.submit(Request(source, "0", Stores.current())))
    first, *others = done.log.splitlines()
    assert first == "from outside"
    assert sum(f" {tmp_path}/data " in line for line in others) == 1


def _environment(image: str, variables: Mapping[str, str]) -> Environment:
    created = Environment.from_docker_image("mine", image)
    created.environment_variables = dict(variables)
    return created


# Its end


def begun(project: Project, store: MlflowClient) -> Any:
    submitted = submit(project, env_manager=None, config={"grace_period_seconds": 20})
    log = submitted.directory.rank_log(0)
    wait_until(lambda: log.exists() and "up\n" in log.read_text(encoding="utf-8"), 60, "the script")
    return submitted


# Not the first process, and its parent is a shell that waits: the signal must reach the whole group.
STUBBORN = "true && bash -c 'trap \"echo asked; exit 3\" TERM; echo up; while true; do sleep 0.1; done'"


def test_canceling_asks_the_script_first(store: MlflowClient, project: Project, image: str) -> None:
    submitted = begun(in_image(project, image, STUBBORN), store)
    submitted.cancel()
    done = finish(submitted)
    assert done.tags["gpu_cluster.status"] == "Canceled"
    assert "asked" in done.log
    assert containers_of(submitted.run_id) == []


@pytest.mark.parametrize("victims", ["agent", "keeper", "agent and keeper", "client"])
def test_nothing_is_left_of_a_killed_job(store: MlflowClient, project: Project, image: str, victims: str) -> None:
    command = "bash -c 'trap \"\" TERM; echo up; while true; do sleep 0.1; done'"
    submitted = begun(in_image(project, image, command), store)
    assert len(containers_of(submitted.run_id)) == 1
    name = containers_of(submitted.run_id)[0]
    inside_pid = int(podman("inspect", "--format", "{{.State.Pid}}", name))
    agent = json.loads(submitted.directory.agent.read_text(encoding="utf-8"))["pid"]
    keeper = next(pid for pid in descendants(agent) if "keeper.py" in _arguments(pid))
    client = next(pid for pid in descendants(keeper) if " run --rm" in _arguments(pid))
    pids = {"agent": [agent], "keeper": [keeper], "agent and keeper": [agent, keeper], "client": [client]}[victims]
    if victims == "agent and keeper":
        os.kill(agent, signal.SIGSTOP)  # or the keeper acts while the second signal is on its way
        pids = [keeper, agent]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    if victims == "agent and keeper":
        done = finish(submitted)  # somebody must look; the others need nobody
    wait_until(lambda: not _lives(inside_pid), 10, "the end of the script")
    wait_until(lambda: containers_of(submitted.run_id) == [], 10, "the end of the container")
    if victims != "agent and keeper":
        done = finish(submitted)
    assert done.tags["gpu_cluster.status"] == "Failed"


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _arguments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
    except OSError:
        return ""


# What is missing


def fake(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "(neither docker nor podman is installed): install podman"),
        ("echo 'Cannot connect to the daemon.' >&2; exit 1", "(docker: Cannot connect to the daemon.): install podman"),
    ],
)
def test_without_a_runtime_nothing_is_created(
    store: MlflowClient,
    home: Path,
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str | None,
    words: str,
) -> None:
    (tmp_path / "bin").mkdir()
    if script:
        fake(tmp_path / "bin", "docker", script)
    in_image(project, "some/image", "true")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(GpuClusterError) as caught:
        submit(project, env_manager=None)
    assert words in str(caught.value)
    assert store.search_runs(["0"]) == []
    assert [path for path in (home / "jobs").iterdir() if path.is_dir()] == []


def test_the_runtime_that_has_the_image_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path / "bin", "docker", '[ "$1" != info ] || { echo "[name=seccomp name=rootless]"; exit; }; exit 1')
    fake(tmp_path / "bin", "podman", 'case "$1" in info) echo false;; image) echo sha256:abc;; *) exit 1;; esac')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    chosen = runtime.choose(Container("x"), "local")
    assert (chosen.runtime, chosen.image_id, chosen.rootless) == ("podman", "sha256:abc", False)
    fake(tmp_path / "bin", "podman", 'case "$1" in info) echo true;; *) exit 1;; esac')
    chosen = runtime.choose(Container("x"), "local")
    assert (chosen.runtime, chosen.image_id, chosen.rootless) == ("docker", None, True)


def test_docker_that_is_podman_is_podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path / "bin", "docker", 'case "$1" in --version) echo podman version 4.3.1;; *) echo true;; esac')
    shutil.copy(tmp_path / "bin/docker", tmp_path / "bin/podman")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    assert runtime.choose(Container("x"), "local").runtime == "podman"


def test_only_what_can_be_run_is_accepted() -> None:
    with pytest.raises(ConfigError, match="only the local scheduler runs containers, not 'slurm'"):
        runtime.choose(Container("x"), "slurm")
    with pytest.raises(ConfigError, match="one rank in a container, not 2"):
        runtime.choose(Container("x"), "local", 2)


# The command line


def test_the_command_line_of_docker() -> None:
    container = Container(
        "pytorch/pytorch",
        "2g",
        ("/data:/data",),
        ("--cap-add", "SYS_PTRACE"),
        "docker",
        "/usr/bin/docker",
        False,
        "sha256:1",
    )
    place = Place("/work", 1000, 100, (0, 3), (1, 2), ("/job:/job",))
    assert wrap(container, ("bash", "-c", "x"), ("AWS_KEY", "RANK"), "the-name", place) == (
        *("/usr/bin/docker", "run", "--rm", "--name=the-name", "--pull=never", "--network=host", "--shm-size=2g"),
        *("--security-opt=label=disable", "--stop-timeout=0", "--workdir=/work", "--user=1000:100"),
        *("--log-driver=none", "--cpuset-cpus=0,3", "--env=HOME=/tmp", '--gpus="device=1,2"'),
        *("--volume", "/job:/job", "--volume", "/data:/data", "--env", "AWS_KEY", "--env", "RANK"),
        *("--cap-add", "SYS_PTRACE", "sha256:1", *inside.enter(("bash", "-c", "x"))),
    )
    assert removal(container, ("a", "b")) == ("/usr/bin/docker", "rm", "--force", "a", "b")


def test_the_command_line_of_podman() -> None:
    container = Container("x", runtime="podman", program="podman", image_id="1")
    place = Place("/work", 0, 0, (0,), (1, 2))
    assert wrap(container, ("true",), (), "n", place) == (
        *("podman", "run", "--rm", "--name=n", "--pull=never", "--network=host", "--ipc=host"),
        *("--security-opt=label=disable", "--stop-timeout=0", "--workdir=/work", "--user=0:0"),
        *("--log-driver=passthrough", "--device=nvidia.com/gpu=1", "--device=nvidia.com/gpu=2"),
        *("1", *inside.enter(("true",))),
    )
    assert removal(container, ("n",)) == ("podman", "rm", "--force", "--ignore", "n")


@pytest.mark.parametrize(
    ("kind", "rootless", "words"),
    [
        ("podman", True, {"--userns=keep-id", "--user=5:6"}),
        ("podman", False, {"--user=5:6"}),
        ("docker", True, {"--user=0:0"}),
        ("docker", False, {"--user=5:6"}),
    ],
)
def test_files_belong_to_who_submitted(kind: str, rootless: bool, words: set[str]) -> None:
    argv = wrap(Container("x", runtime=kind, rootless=rootless), ("true",), (), "n", Place("/", 5, 6))
    assert {word for word in argv if word.startswith(("--user", "--userns"))} == words


def test_an_option_of_the_user_replaces_ours() -> None:
    container = describing.add_arguments(Container("x"), {"net": "none", "w": "/elsewhere", "ipc": "private"})
    argv = wrap(container, ("true",), (), "n", Place("/", 0, 0))
    assert not [word for word in argv if word.startswith(("--network", "--workdir", "--ipc=", "--shm-size"))]
    assert container.arguments == ("--net", "none", "-w", "/elsewhere", "--ipc", "private")


def test_variables_that_steer_the_client_travel_under_other_names() -> None:
    assert inside.renamed({"PATH": "/a", "DOCKER_HOST": "h", "X": "1"}) == {
        "X": "1",
        "GPU_CLUSTER_INSIDE": "DOCKER_HOST PATH",
        "GPU_CLUSTER_INSIDE_PATH": "/a",
        "GPU_CLUSTER_INSIDE_DOCKER_HOST": "h",
    }


def test_what_of_the_nodes_environment_comes_in(tmp_path: Path) -> None:
    container = Container("x", runtime="docker", program="/usr/bin/docker", image_id="1")
    job = JobSpec("r", "0", "p", "main", 'echo "${MY_TOKEN}"', {}, InterpreterSpec("container"), container=container)
    job = replace(job, environment_variables=("GIVEN", "PATH"))
    directory = JobDir(tmp_path)
    directory.write_job(job)
    node = {
        "HOME": "/h",
        "LANG": "C",
        "GPU_CLUSTER_HOME": "/g",
        "AWS_KEY": "k",
        **carried({"GIVEN": "1", "PATH": "/a"}),
    }
    environ = rank_environment({**node, "MY_TOKEN": "secret", "CUDA_X": "1", "PATH": "/bin"}, job, directory)
    place = Allocation("node", (1,), (4, 6))
    (rank,) = single.launch(job, place)
    found = starting.command(job, directory, rank, environ, place)
    names = {value for option, value in pairwise(found.argv) if option == "--env"}
    assert {"GIVEN", "AWS_KEY", "MY_TOKEN", "MLFLOW_RUN_ID", "CUDA_VISIBLE_DEVICES", "GPU_CLUSTER_INSIDE"} <= names
    assert names & {*node, "PATH", "CUDA_X"} == {"AWS_KEY"}
    assert not [word for word in found.argv if "secret" in word]
    assert '--gpus="device=4,6"' in found.argv
    assert found.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert found.afterwards == ("/usr/bin/docker", "rm", "--force", "gpu-cluster-r-0")
    assert starting.names(job) == ("gpu-cluster-r-0",)


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_the_entry_passes_on_signals_and_status(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "sh").symlink_to(str(shutil.which(shell)))
    for name in ("sleep", "cat"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    if shell == "bash":
        (tmp_path / "bash").symlink_to(str(shutil.which("bash")))
    script = "trap 'echo asked; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        inside.enter(("bash", "-c", script)), stdout=subprocess.PIPE, text=True, env={"PATH": str(tmp_path)}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10)[0] == "asked\n"
    assert process.returncode == 5


@pytest.mark.parametrize(
    ("command", "error", "status"), [("echo error >&2", "error\n", 0), ("exit 0", "", 0), ("kill -9 $$", "", 137)]
)
def test_the_entry_says_nothing_itself(command: str, error: str, status: int) -> None:
    # The command ends while the shell still has job control, which would tell of it: seen on a busy machine.
    slow = [word.replace("child=$!\n", "child=$!\nsleep 0.3\n") for word in inside.enter(("bash", "-c", command))]
    assert slow != list(inside.enter(("bash", "-c", command)))
    done = subprocess.run(slow, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines(keepends=True) if not line.startswith("gpu-cluster: the image")]
    assert (done.stdout, "".join(said), done.returncode) == ("", error, status)


# Stores


def test_local_stores_are_mounted_and_servers_are_not(tmp_path: Path) -> None:
    uris = (f"sqlite:///{tmp_path}/db/mlflow.db", "https://host/x", "databricks")
    found = mounts.with_stores(Container("x", volumes=("a:b",)), f"file://{tmp_path}/some%20place", *uris)
    assert found.volumes == ("a:b", f"{tmp_path}/some place:{tmp_path}/some place", f"{tmp_path}/db:{tmp_path}/db")
    assert mounts.with_stores(Container("x"), "mlflow-artifacts:/0", "http://localhost:5000").volumes == ()


# What cannot be right


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"image": "-v"}, "image of docker_env is '-v'"),
        ({"image": "a", "volume": []}, "docker_env has no key 'volume' (known: image, volumes, environment)"),
        ({"image": "a", "volumes": ["/there/is/none:/x"]}, "there is no '/there/is/none' on this machine"),
        ({"image": "a", "volumes": ["/usr"]}, "'/usr' must be 'SOURCE:TARGET'"),
        ({"image": "a", "environment": ["NOT_SET_HERE"]}, "NOT_SET_HERE is not set here"),
        ({"image": "a", "environment": [["A", "1", "2"]]}, "must be a variable's name, or a list of name and value"),
        ({"image": "a", "environment": [["A"]]}, "must be a variable's name, or a list of name and value"),
        ({"image": "a", "environment": ["A=1"]}, "must be a variable's name, or a list of name and value"),
        ({"image": "a", "environment": [["MLFLOW_RUN_ID", "1"]]}, "MLFLOW_RUN_ID is set by the backend itself"),
        ("image", "it must be a mapping with the key 'image'"),
    ],
)
def test_a_wrong_docker_env_is_one_line(section: object, words: str) -> None:
    with pytest.raises((ProjectError, ConfigError)) as caught:
        describing.read_docker_env(section, {})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "x"}, "'name' cannot be used: the backend names its containers"),
        ({"d": True}, "'detach' cannot be used"),
        ({"t": True}, "'tty' cannot be used: a job has no terminal"),
        ({"e": "A=1"}, "'env' cannot be used: its value would be on the command line"),
        (["x"], "is no option"),
        (["--label", 3], "3 must be text"),
    ],
)
def test_wrong_arguments_are_refused(given: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        describing.add_arguments(Container("x"), given)
    assert words in str(caught.value)


def test_a_secret_is_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "hunter2hunter2")
    with pytest.raises(ConfigError, match="a secret of the environment"):
        describing.add_arguments(Container("x"), {"label": "hunter2hunter2"})


@pytest.mark.parametrize(
    ("size", "wanted"),
    [("2g", "2g"), ("512M", "512m"), ("2GiB", "2g"), ("64mb", "64m"), ("1024", "1024b"), ("8kib", "8k")],
)
def test_sizes(size: str, wanted: str) -> None:
    assert describing.describe("x", size).shm_size == wanted


@pytest.mark.parametrize("size", ["", "0", "2 g", "-1g", "g", "1.5g", "2t", "2gg", 2])
def test_wrong_sizes_are_refused(size: object) -> None:
    with pytest.raises(ConfigError, match="it must be a size such as"):
        describing.describe("x", size)


def test_docker_args_and_managers_beside_the_wrong_project(store: MlflowClient, project: Project) -> None:
    project.entry("main", "true")
    with pytest.raises(GpuClusterError, match="--docker-args is for a project with docker_env"):
        submit(project, docker_args={"shm-size": "1g"})
    in_image(project, "x", "true")
    with pytest.raises(GpuClusterError, match="leave out --env-manager local"):
        submit(project)
    assert store.search_runs(["0"]) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pip_packages": ["six"]}, "custom_docker_image brings its own packages: leave out pip_packages"),
        ({"conda_packages": ["six"]}, "leave out conda_packages"),
        ({"framework_version": "2.13"}, "leave out framework_version"),
        ({"use_docker": False}, "use_docker=False, but custom_docker_image names an image"),
        ({"custom_docker_image": "two words"}, "custom_docker_image is 'two words'"),
        ({"shm_size": "much"}, "shm_size is 'much'"),
        ({"custom_docker_image": None, "shm_size": "2g"}, "shm_size needs custom_docker_image"),
        ({"custom_docker_image": None, "use_docker": True}, "use_docker=True needs an image"),
        ({"environment_definition": Environment("x")}, "leave out custom_docker_image"),
        ({"image_registry_details": object()}, "docker login"),
    ],
)
def test_the_estimator_refuses_by_name(folder: Path, options: dict[str, Any], words: str) -> None:
    (folder / "train.py").write_text("", encoding="utf-8")
    given = {"compute_target": "local", "entry_script": "train.py", "custom_docker_image": "some/image", **options}
    with pytest.raises(TrainingException) as caught:
        PyTorch(folder, **given)
    assert words in str(caught.value)


def test_the_estimator_describes_the_container(folder: Path) -> None:
    (folder / "train.py").write_text("", encoding="utf-8")
    estimator = PyTorch(
        folder, compute_target="local", entry_script="train.py", custom_docker_image="a/b:1", shm_size="4g"
    )
    source = estimator.describe().source
    assert source.container == Container("a/b:1", "4g")
    assert source.environment(folder).manager == "container"


def test_an_environment_names_an_image(folder: Path) -> None:
    created = Environment.from_docker_image("mine", "a/b")
    created.docker.shm_size, created.docker.arguments = "1g", ["--cap-add", "SYS_PTRACE"]
    assert created.container() == Container("a/b", "1g", (), ("--cap-add", "SYS_PTRACE"))
    assert created.describe(folder).manager == "container"
    created.python.conda_dependencies.add_pip_package("six")
    with pytest.raises(EnvironmentSpecError, match="the image a/b brings its own packages: leave out six"):
        created.describe(folder)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("enabled", True, "docker.enabled needs docker.base_image"),
        ("shm_size", "2g", "docker.shm_size needs docker.base_image"),
        ("base_dockerfile", "FROM x", "docker.base_dockerfile: images are not built here"),
        ("base_image", "a b", "base_image is 'a b'"),
    ],
)
def test_a_docker_section_that_cannot_be_had(folder: Path, name: str, value: object, words: str) -> None:
    created = Environment("mine")
    setattr(created.docker, name, value)
    with pytest.raises(EnvironmentSpecError) as caught:
        created.describe(folder)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "image", "words"),
    [
        (DockerConfiguration(use_docker=True), None, "needs an image"),
        (DockerConfiguration(), "a/b", "use_docker=False, but the environment names an image"),
        (DockerConfiguration(use_docker=True, shm_size="x"), "a/b", "shm_size is 'x'"),
        (object(), "a/b", "must be a DockerConfiguration"),
    ],
)
def test_a_wrong_docker_configuration(folder: Path, settings: Any, image: str | None, words: str) -> None:
    environment = Environment.from_docker_image("mine", image) if image else None
    with pytest.raises(TrainingException) as caught:
        ScriptRunConfig(folder, command=["true"], environment=environment, docker_runtime_config=settings)
    assert words in str(caught.value)


def test_volumes_are_always_shared() -> None:
    with pytest.raises(UserErrorException, match="shared_volumes=False is not supported"):
        DockerConfiguration(shared_volumes=False)


# The description


def test_a_container_survives_its_file() -> None:
    container = Container("x", "1g", ("a:b",), ("--c",), "podman", "/usr/bin/podman", True, "id")
    job = JobSpec("r", "0", "p", "main", "true", {}, InterpreterSpec("container"), container=container)
    assert JobSpec.from_json(job.to_json()) == job
    raw = json.loads(job.to_json())
    del raw["container"]
    assert JobSpec.from_json(json.dumps(raw)) == replace(job, container=None)
