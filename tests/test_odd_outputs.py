"""Outputs and logs that a careless, or an ill-meaning, script leaves: none may block, leak or be lost."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from conftest import Project, finish, submit, wait_until
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import collecting, uploads
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

ODD = """
import os, socket
os.chdir("outputs")
os.makedirs("deep/er")
for name in ("plain.txt", "two\\nlines.txt", "deep/er/x.txt"):
    open(name, "w").write(name)
os.symlink("plain.txt", "inside")
os.symlink("deep", "inside folder")
os.symlink("/etc/hostname", "outside")
os.symlink("/etc", "outside folder")
os.symlink("outside", "chain")
os.symlink("../../../../job.json", "relative")
os.symlink("b", "a")
os.symlink("a", "b")
os.symlink("nothing", "dangling")
os.mkfifo("pipe")
socket.socket(socket.AF_UNIX).bind("socket")
if os.geteuid() == 0:
    try:
        os.mknod("device", 0o20666, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        os.mkfifo("device")
else:
    os.mkfifo("device")
os.makedirs("../logs", exist_ok=True)
os.mkfifo("../logs/pipe")
os.symlink("a", "../logs/a")
open("../logs/own.txt", "w").write("own")
"""
# MLflow itself is 200 MB of it; what a job leaves, however large, must not add to it by its size.
_LARGEST_AGENT = 400 << 20
LEFT_OUT = {"outside", "outside folder", "chain", "relative", "a", "b", "dangling", "pipe", "socket", "device"}


def test_only_plain_files_of_the_outputs_are_published(store: MlflowClient, project: Project) -> None:
    done = finish(submit(project.script(ODD)))
    assert done.succeeded, done.log
    stored = Path(url2pathname(urlsplit(done.run.info.artifact_uri).path))
    found = {str(path.relative_to(stored)) for path in stored.rglob("*") if path.is_file()}
    plain = {"outputs/plain.txt", "outputs/two\nlines.txt", "outputs/deep/er/x.txt", "outputs/inside"}
    assert {name for name in found if name.startswith("outputs/")} == plain
    assert (stored / "outputs/inside").read_text() == "plain.txt"
    assert {"logs/own.txt", "logs/rank_0.log"} <= found
    assert "logs/pipe" not in found
    said = done.tags["gpu_cluster.undelivered"]
    assert said.startswith("outputs: left out: ")
    assert "and 6 more" in said, said
    assert "\n" not in said


def test_what_is_left_out_and_why(tmp_path: Path) -> None:
    tree = tmp_path / "project/outputs"
    tree.mkdir(parents=True)
    (tmp_path / "project/logs").mkdir()
    subprocess.run([sys.executable, "-c", ODD], cwd=tree.parent, check=True)
    assert not collecting.is_plain(tree)
    (tmp_path / "target").mkdir()
    left = dict(text.removesuffix(")").split(" (", 1) for text in collecting.collect(tree, tmp_path / "target"))
    reasons = {name.strip("'"): why for name, why in left.items()}
    # A link to a folder inside is not followed; what it leads to is published by itself.
    assert set(reasons) == LEFT_OUT | {"inside folder"}
    assert {reasons[name] for name in ("outside", "outside folder", "chain", "relative")} == {"leads out of it"}
    assert {reasons[name] for name in ("a", "b", "dangling")} == {"a link that leads nowhere"}
    assert {reasons[name] for name in ("pipe", "socket", "device")} == {"no file"}


COLLECT = """
import sys
from pathlib import Path
from mlflow_pytorch_estimator import collecting
print(collecting.collect(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "tree/closed").mkdir(parents=True)
    (tmp_path / "tree/secret").touch(mode=0)
    (tmp_path / "tree/closed").chmod(0)
    (tmp_path / "tree/open").touch()
    (tmp_path / "target").mkdir()
    # Root without its powers is like anybody else.
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    words = [*powerless, sys.executable, "-c", COLLECT, str(tmp_path / "tree"), str(tmp_path / "target")]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert sorted(ast.literal_eval(said)) == ["'closed' (cannot be read)", "'secret' (cannot be read)"]
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["open"]


@pytest.mark.parametrize("number", [5_000, 200_000])
def test_many_outputs_arrive(number: int, store: MlflowClient, project: Project) -> None:
    script = f"for n in range({number}):\n    with open(f'outputs/{{n}}', 'w') as file:\n        file.write(str(n))\n"
    running = submit(project.script(f"import os\n{script}os.symlink('7', 'outputs/seven')\n"))
    most = _memory_until(running.directory.delivered.exists, running, 600)
    done = finish(running)
    assert done.succeeded, done.log
    stored = Path(url2pathname(urlsplit(done.run.info.artifact_uri).path), "outputs")
    assert sum(1 for _ in stored.iterdir()) == number + 1
    names = ("0", str(number - 1), "seven")
    assert [(stored / name).read_text() for name in names] == ["0", str(number - 1), "7"]
    assert most < _LARGEST_AGENT, f"the agent took {most >> 20} MB"


@pytest.mark.parametrize("size", [300 << 20, 5 << 30], ids=["300 MB", "5 GB"])
def test_a_large_log_is_uploaded_whole_at_the_end_and_not_before(
    size: int, store: MlflowClient, project: Project
) -> None:
    _needs_disk(3 * size, project.path)
    script = f"""
import os, sys, time
print("begin", flush=True)
line = b"x" * 99 + b"\\n"
for _ in range({size} // (100 << 10)):
    os.write(1, line * 1024)
print("written", flush=True)
time.sleep(3)
print("end", flush=True)
"""
    running = submit(project.script(script))
    log = running.directory.rank_log(0)
    wait_until(lambda: log.exists() and log.stat().st_size > uploads._LARGEST_LIVE_BYTES, 90, "a large log")
    time.sleep(1)
    live = store.list_artifacts(running.run_id, "logs")
    assert all(item.file_size <= uploads._LARGEST_LIVE_BYTES for item in live)
    most = _memory_until(running.directory.delivered.exists, running, 600)
    assert most < _LARGEST_AGENT, f"the agent took {most >> 20} MB"
    (stored,) = store.list_artifacts(running.run_id, "logs")
    assert stored.file_size == log.stat().st_size
    assert log.stat().st_size > 0.99 * size
    script = "from mlflow_pytorch_estimator.cli import main\nmain()"
    for words in (["logs", "last", "--grep", "^(begin|written|end)$"], ["describe", "last"], ["status", "last"]):
        limit = "import resource\nresource.setrlimit(resource.RLIMIT_DATA, (256 << 20, 256 << 20))\n"
        done = subprocess.run(
            [sys.executable, "-c", limit + script, *words], capture_output=True, text=True, check=True
        )
        assert words[0] != "logs" or done.stdout == "begin\nwritten\nend\n"


def _memory_until(condition: Callable[[], object], running: GpuClusterSubmittedRun, seconds: float) -> int:
    """The most bytes that the agent of a job had in memory at once until the condition holds."""
    most = [0]

    def holds() -> object:
        with contextlib.suppress(OSError, ValueError, StopIteration):
            agent = json.loads(running.directory.agent.read_text())["pid"]
            lines = Path(f"/proc/{agent}/status").read_text().splitlines()
            peak = next(line for line in lines if line.startswith("VmHWM:"))
            most[0] = max(most[0], int(peak.split()[1]) << 10)
        return condition()

    wait_until(holds, seconds, "the end")
    assert most[0] > 0, "the agent was never seen"
    return most[0]


def _needs_disk(size: int, path: Path) -> None:
    free = shutil.disk_usage(path).free
    if free < size:
        pytest.skip(f"needs {size >> 20} MB of free disk for a log and its copies, {free >> 20} are left")
