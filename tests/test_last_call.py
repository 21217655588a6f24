"""SIGTERM in a job: what was begun is finished, and the process ends as it would have without us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import wait_until

BEGIN = """
import hashlib, os, signal, sys, time
from mlflow_pytorch_estimator.estimator.recording.lastcall import before_the_end
class Item:
    def close(self):
        time.sleep(0.3)
        print("closed", flush=True)
item = Item()
before_the_end(item)
"""
COMPUTE = "print('up', flush=True)\nhashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)\n"


def end(script: str, folder: Path, job: bool = True, **more: str) -> tuple[int, str]:
    """Exit status and output of a script that gets SIGTERM once it is up."""
    environ = {**os.environ, **more}
    environ.pop("GPU_CLUSTER_JOB_DIR", None)
    if job:
        environ["GPU_CLUSTER_JOB_DIR"] = str(folder)
    output = folder / "output"
    with output.open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", script], stdout=log, stderr=log, env=environ)
    try:
        wait_until(lambda: b"up\n" in output.read_bytes(), 60, "the script")
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)
    finally:
        process.kill()
        process.wait()
    return status, output.read_text(encoding="utf-8")


@pytest.mark.parametrize("rest", [COMPUTE, "print('up', flush=True)\ntime.sleep(60)\n"], ids=["computing", "sleeping"])
def test_what_was_begun_is_finished_whatever_the_main_thread_does(tmp_path: Path, rest: str) -> None:
    status, said = end(BEGIN + rest, tmp_path)
    assert (status, said) == (-signal.SIGTERM, "up\nclosed\n")


def test_an_error_does_not_keep_the_process_alive(tmp_path: Path) -> None:
    status, said = end(BEGIN + "Item.close = None\n" + COMPUTE, tmp_path)
    assert status == -signal.SIGTERM
    assert "'NoneType' object is not callable" in said


def test_outside_of_a_job_nothing_is_changed(tmp_path: Path) -> None:
    status, said = end(BEGIN + "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n" + COMPUTE, tmp_path, False)
    assert (status, said) == (-signal.SIGTERM, "up\n")


def test_the_scripts_own_handler_counts_set_before_or_after(tmp_path: Path) -> None:
    own = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    rest = "print('up', flush=True)\ntime.sleep(60)\n"
    assert end("import signal, sys\n" + own + BEGIN + rest, tmp_path) == (7, "up\n")
    assert end(BEGIN + own + rest, tmp_path) == (7, "up\n")


def test_another_signal_ends_nothing(tmp_path: Path) -> None:
    other = (
        "signal.signal(signal.SIGUSR1, lambda *_: print('other', flush=True))\nos.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    status, said = end(BEGIN + other + "time.sleep(0.5)\n" + COMPUTE, tmp_path)
    assert (status, said) == (-signal.SIGTERM, "other\nup\nclosed\n")


def test_an_event_loop_keeps_its_descriptor(tmp_path: Path) -> None:
    loop = (
        "import asyncio\n"
        "async def main():\n"
        "    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print, 'heard')\n"
        "    before_the_end(item)\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    await asyncio.sleep(0.2)\n"
        "    print('up', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    status, said = end(BEGIN.removesuffix("before_the_end(item)\n") + loop, tmp_path)
    assert (status, said) == (-signal.SIGTERM, "heard\nup\nclosed\n")


def test_a_forked_worker_ends_at_once(tmp_path: Path) -> None:
    fork = (
        "child = os.fork()\n"
        "if not child:\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 4 * 10**6)\n"
        "    os._exit(1)\n"
        "time.sleep(0.3)\n"
        "os.kill(child, signal.SIGTERM)\n"
        "print(os.waitpid(child, 0)[1], flush=True)\n"
        "print('up', flush=True)\n"
    )
    assert end(BEGIN + fork + "time.sleep(60)\n", tmp_path) == (-signal.SIGTERM, "15\nup\nclosed\n")
