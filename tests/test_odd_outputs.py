"""Outputs and logs that a careless, or an ill-meaning, script leaves: none may block, leak or be lost."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from conftest import Project, finish, submit, wait_until
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import collecting, uploads

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


def test_five_thousand_outputs_arrive(store: MlflowClient, project: Project) -> None:
    script = "for n in range(5000):\n    with open(f'outputs/{n}', 'w') as file:\n        file.write(str(n))\n"
    done = finish(submit(project.script(f"import os\n{script}os.symlink('7', 'outputs/seven')\n")))
    assert done.succeeded, done.log
    stored = Path(url2pathname(urlsplit(done.run.info.artifact_uri).path), "outputs")
    assert len(list(stored.iterdir())) == 5001
    assert [(stored / name).read_text() for name in ("0", "4999", "seven")] == ["0", "4999", "7"]


def test_a_large_log_is_uploaded_whole_at_the_end_and_not_before(store: MlflowClient, project: Project) -> None:
    size = 300 << 20
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
    wait_until(running.directory.delivered.exists, 120, "the end")
    (stored,) = store.list_artifacts(running.run_id, "logs")
    assert stored.file_size == log.stat().st_size
    script = "from mlflow_pytorch_estimator.cli import main\nmain()"
    for words in (["logs", "last", "--grep", "^(begin|written|end)$"], ["describe", "last"], ["status", "last"]):
        limit = "import resource\nresource.setrlimit(resource.RLIMIT_DATA, (256 << 20, 256 << 20))\n"
        done = subprocess.run(
            [sys.executable, "-c", limit + script, *words], capture_output=True, text=True, check=True
        )
        assert words[0] != "logs" or done.stdout == "begin\nwritten\nend\n"
