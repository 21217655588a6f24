"""The part ``logs`` of ``logs_and_outputs.py``."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import jobs

from mlflow_pytorch_estimator.jobdir import JobDir

WRITE = """
import os, time
rank = os.environ.get("RANK", "0")
begin = time.time()
for number in range({lines}):
    time.sleep(max(0, begin + number / {rate} - time.time()))
    print(f"{{time.time():.6f}} rank {{rank}} line {{number}} loss 0.123456 accuracy 0.9876", flush=True)
"""


def ours(directory: JobDir, *command: str) -> subprocess.Popen[bytes]:
    """A command of ours about a job."""
    whole = [sys.executable, "-m", "mlflow_pytorch_estimator", *command, directory.path.name]
    return subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def stamp(line: bytes) -> float:
    """When a rank wrote a line."""
    return float(line.rpartition(b"] ")[2].split(b" ", 1)[0])


def watch_pages(uri: str, directory: JobDir, worst: list[float]) -> None:
    """Read the first rank's log as the pages of the server do; the longest time that a line was not there."""
    run, seen = directory.path.name, 0.0
    query = urllib.parse.urlencode({"run_uuid": run, "path": "logs/rank_0.log"})
    while directory.outcome is None:
        time.sleep(0.5)
        listing = f"{uri}/api/2.0/mlflow/artifacts/list?run_id={run}&path=logs"
        with urllib.request.urlopen(listing) as answer:  # noqa: S310 - our own server
            names = [item["path"] for item in json.load(answer).get("files", [])]
        if "logs/rank_0.log" not in names:
            continue
        with urllib.request.urlopen(f"{uri}/get-artifact?{query}") as answer:  # noqa: S310
            lines = answer.read().splitlines()
        now, first = time.time(), seen or stamp(lines[0])
        if stamp(lines[-1]) > seen:
            worst.append(now - first)
            seen = stamp(lines[-1])
    # What was never seen while the job ran has waited as long.
    worst.append(time.time() - seen)


def logs(uri: str) -> None:
    """Both ways of a line to a reader."""
    jobs.current(uri)
    for ranks, rate, seconds in ((1, 10, 25), (4, 200, 40)):
        directory = jobs.start(WRITE.format(lines=rate * seconds, rate=rate), ranks)
        follower = ours(directory, "logs", "-f")
        worst: list[float] = []
        pages = threading.Thread(target=watch_pages, args=(uri, directory, worst))
        pages.start()
        arrived = [(stamp(line), time.time()) for line in follower.stdout or ()]
        follower.wait()
        pages.join()
        jobs.wait(directory)
        late = sorted(there - written for written, there in arrived if written > arrived[0][1])
        if len(arrived) != ranks * rate * seconds:
            raise RuntimeError(f"{len(arrived)} lines of {ranks * rate * seconds}")
        p95 = late[int(0.95 * len(late))]
        print(f"logs     {ranks} x {rate}/s  logs -f    {p95:.3f} s (median {statistics.median(late):.3f}, at most "
              f"{late[-1]:.3f})   goal 95 % within 0.5 s")  # fmt: skip
        print(f"logs     {ranks} x {rate}/s  artifacts  {max(worst):.1f} s at most   goal 15 s", flush=True)
