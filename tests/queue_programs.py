"""A queue of real executables: ``sbatch`` and its like as small programs over files, jobs as processes of this machine.

They answer as Slurm does in a certain version at a certain site, see ``queue_files.DIALECTS``, from recorded output
where it is known: the states that end a job, ``sacct`` or none, job ids with a cluster behind them, what sites print
around an id. Each is this file, started without site-packages: ``python -IS FILE NAME FOLDER ARGUMENT...``.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # -I leaves it out
from queue_files import CPUS, GPUS, NODES, Job, Queue, processes

_MEMORY_MB = 1000
_KILL_WAIT_SECONDS = 2.0
_POLL_SECONDS = 0.05
_INVALID = "slurm_load_jobs error: Invalid job id specified\n"


# --- the programs; each returns its exit status


def sbatch(queue: Queue, words: list[str]) -> int:
    text = sys.stdin.read()
    header = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]
    options = _options([*header, *words])
    wanted = _wanted(options)
    if not _reached(queue, options):
        sys.stderr.write(f"sbatch: error: No cluster '{options.get('clusters', '')}' known by database.\n")
        return 1
    if int(options["nodes"]) > len(NODES) or wanted[0] > CPUS or wanted[1] > GPUS or wanted[2] > _MEMORY_MB:
        sys.stderr.write("allocation failure: Requested node configuration is not available\n")
        return 1
    if "test-only" in options:
        now = time.strftime("%FT%T")
        sys.stderr.write(f"sbatch: Job 1 to start at {now} using 2 processors on nodes f1 in partition debug\n")
        return 0
    with queue.locked():
        number = max((job.number for job in queue.jobs()), default=0) + 1
        (queue.folder / f"script-{number}").write_text(text)
        job = Job(number, options, dict(os.environ), cpus=wanted[0], gpus=wanted[1])
        queue.store(job)
    subprocess.Popen(
        [sys.executable, "-IS", __file__, "lead", str(queue.folder), str(number)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    sys.stdout.write(queue.dialect.banner)
    suffix = f";{options['clusters']}" if "clusters" in options else ""
    print(f"{number}{suffix}")
    return 0


def squeue(queue: Queue, words: list[str]) -> int:
    options = _options(words)
    wanted = {int(word) for word in options["jobs"].split(",")}
    known = [job for job in queue.jobs() if job.number in wanted] if _reached(queue, options) else []
    known = [job for job in known if queue.dialect.remembers or not job.over]
    if len(wanted) == 1 and not known:
        sys.stderr.write(_INVALID)
        return 1
    for job in known:
        values = {"i": str(job.number), "T": job.state, "r": job.reason, "N": _short(job.nodes)}
        print(_formatted(options["format"], values))
    return 0


def scancel(queue: Queue, words: list[str]) -> int:
    options = _options(words)
    for word in options["words"].split():
        with queue.locked():
            job = queue.find(int(word))
            if job is None or not _reached(queue, options):
                sys.stderr.write(f"scancel: error: Kill job error on job id {word}: Invalid job id specified\n")
                return 1
            if options.get("state", job.state) == job.state and not job.over:
                job.canceled = True
                queue.store(job)
    return 0


def sacct(queue: Queue, words: list[str]) -> int:
    if not queue.dialect.accounting:
        sys.stderr.write("Slurm accounting storage is disabled\n")
        return 1
    options = _options(words)
    for job in queue.jobs():
        if str(job.number) == options["jobs"] and _reached(queue, options):
            state = f"CANCELLED by {os.getuid()}" if job.state == "CANCELLED" else job.state
            values = {"JobID": str(job.number), "State": state, "ExitCode": job.exit_code}
            values["NodeList"] = _short(job.nodes) or "None assigned"
            print("|".join(values[name] for name in options["format"].split(",")))
    return 0


def scontrol(queue: Queue, words: list[str]) -> int:
    options = _options(words)
    verb = options["words"].split()
    if verb[:2] == ["show", "hostnames"]:
        print("\n".join(name for name in NODES if name in _long(verb[2])))
        return 0
    if verb[:2] == ["show", "job"]:
        job = queue.find(int(verb[2])) if _reached(queue, options) else None
        if job is None or (job.over and not queue.dialect.remembers):
            sys.stderr.write(_INVALID)
            return 1
        nodes = _short(job.nodes) or queue.dialect.nowhere
        print(
            f"JobId={job.number} JobName={job.options['job-name']} UserId=me(1000) GroupId=me(1000) MCS_label=N/A "
            f"Priority=4294901757 Nice=0 Account=(null) QOS=(null) JobState={job.state} Reason={job.reason} "
            f"Dependency=(null) Requeue=0 Restarts=0 BatchFlag=1 Reboot=0 ExitCode={job.exit_code} Partition=debug "
            f"AllocNode:Sid=login1:6924 ReqNodeList=(null) ExcNodeList=(null) NodeList={nodes} Command=(null)"
        )
        return 0
    sys.stderr.write(f"invalid keyword: {' '.join(verb)}\n")
    return 1


def sinfo(queue: Queue, words: list[str]) -> int:
    options = _options(words)
    values = {"P": "debug*", "a": "up", "T": "idle", "c": str(CPUS), "m": "1000", "G": f"gpu:{GPUS}", "E": "none"}
    for node in NODES if "Node" in options else NODES[:1]:
        busy = [job for job in queue.jobs() if job.state == "RUNNING" and node in job.nodes]
        here = {**values, "N": node, **({"T": "mixed"} if busy else {})}
        print(_formatted(options["format"], here))
    return 0


def srun(queue: Queue, words: list[str]) -> int:
    """A step on one node; ended with the job, as all that has its mark."""
    first = next(number for number, word in enumerate(words) if not word.startswith("-"))
    options = _options(words[:first])
    environ = {**os.environ, "SLURMD_NODENAME": options["nodelist"], "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}
    os.execvpe(words[first], words[first:], environ)  # noqa: S606 - as slurmstepd does
    raise AssertionError("exec does not return")


# --- the life of a job


def lead(queue: Queue, words: list[str]) -> int:
    """Wait for the job's turn, run it, see it end."""
    number = int(words[0])
    while not _granted(queue, number):
        with queue.locked():
            job = queue.find(number)
            if job is None or (queue.folder / "closed").exists():
                return 0
            if job.canceled:
                job.state, job.reason = "CANCELLED", "None"
                queue.store(job)
                return 0
        time.sleep(_POLL_SECONDS)
    _run(queue, number)
    return 0


def _granted(queue: Queue, number: int) -> bool:
    with queue.locked():
        job = queue.find(number)
        if job is None or job.canceled or (queue.folder / "closed").exists():
            return False
        earlier = [other for other in queue.jobs() if other.number < number and other.state == "PENDING"]
        shares = {node: queue.free(node) for node in NODES}
        fitting = [node for node, (cpus, gpus) in shares.items() if cpus >= job.cpus and len(gpus) >= job.gpus]
        fits = len(fitting) >= int(job.options["nodes"])
        job.reason = "Priority" if earlier else "None" if fits else queue.dialect.waiting
        if fits and not earlier:
            job.state, job.nodes = "RUNNING", fitting[: int(job.options["nodes"])]
            job.environ |= _variables(queue, job, shares[job.nodes[0]][1])
        queue.store(job)
        return job.state == "RUNNING"


def _variables(queue: Queue, job: Job, gpus: list[int]) -> dict[str, str]:
    """What Slurm tells a batch script."""
    names = _short(job.nodes)
    told = {"SLURM_JOB_ID": str(job.number), "SLURM_JOBID": str(job.number), "SLURM_JOB_NODELIST": names}
    place = {"SLURM_NODELIST": names, "SLURMD_NODENAME": job.nodes[0], "SLURM_CPUS_ON_NODE": str(job.cpus)}
    tasks = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": str(len(job.nodes)), "SLURM_NODEID": "0"}
    devices = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus[: job.gpus]))} if job.gpus else {}
    return told | place | tasks | devices | {"QUEUE_OF_JOB": f"{queue.folder}:{job.number}:"}


def _run(queue: Queue, number: int) -> None:
    job = queue.find(number)
    assert job is not None
    mark = job.environ["QUEUE_OF_JOB"]
    with Path(job.options["output"].strip('"')).open("ab") as output:
        batch = subprocess.Popen(
            ["/bin/bash", str(queue.folder / f"script-{number}")],
            cwd=job.options["chdir"].strip('"'),
            env=job.environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    kill_at: float | None = None
    while batch.poll() is None:
        now, current = time.monotonic(), queue.find(number)
        if (queue.folder / "closed").exists():
            kill_at = 0.0
        if kill_at is None and current is not None and current.canceled:
            kill_at = now + _KILL_WAIT_SECONDS
            _signal(mark, signal.SIGTERM)
        elif kill_at is not None and now > kill_at:
            _signal(mark, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    _signal(mark, signal.SIGKILL)  # what a batch script leaves behind
    with queue.locked():
        last = queue.find(number)
        if last is not None:
            last.state, last.exit_code = _end(batch.returncode, canceled=last.canceled)
            queue.store(last)


def _end(status: int, *, canceled: bool) -> tuple[str, str]:
    code = f"0:{-status}" if status < 0 else f"{status}:0"
    if canceled:
        return "CANCELLED", code
    return ("FAILED" if status else "COMPLETED"), code


def _signal(mark: str, number: int) -> None:
    for pid in processes(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


# --- words


def _options(words: list[str]) -> dict[str, str]:
    """``--name=value`` and ``--name`` by name; the other words, with blanks between them, as ``words``."""
    found = {}
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            found[name] = value.strip()
    return {**found, "words": " ".join(word for word in words if not word.startswith("--"))}


def _formatted(text: str, values: dict[str, str]) -> str:
    """``%i|%T`` with the values for the letters; KeyError for a letter that nobody has asked for so far."""
    return re.sub("%([a-zA-Z])", lambda found: values[found[1]], text)


def _wanted(options: dict[str, str]) -> tuple[int, int, int]:
    """Cores, GPUs and megabytes of each node."""
    cpus = CPUS if "exclusive" in options else int(options.get("cpus-per-task", 1))
    return cpus, int(options.get("gres", "gpu:0").rpartition(":")[2]), int(options.get("mem", "0M").rstrip("M"))


def _reached(queue: Queue, options: dict[str, str]) -> bool:
    return options.get("clusters", "") == queue.dialect.cluster


def _short(nodes: list[str]) -> str:
    return nodes[0] if len(nodes) == 1 else f"f[{'-'.join(node[1:] for node in nodes)}]" if nodes else ""


def _long(short: str) -> list[str]:
    return [f"f{number}" for number in re.findall(r"\d+", short)]


def main(argv: list[str]) -> int:
    """Be one of the programs."""
    name, queue = argv[0], Queue(Path(argv[1]))
    programs: dict[str, Callable[[Queue, list[str]], int]] = {
        function.__name__: function for function in (sbatch, squeue, scancel, sacct, scontrol, sinfo, srun, lead)
    }
    if name != "srun":
        sys.stderr.write(queue.dialect.warning and f"{name}: {queue.dialect.warning}")
    return programs[name](queue, argv[2:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
