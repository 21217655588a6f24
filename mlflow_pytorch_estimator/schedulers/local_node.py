"""What the embedded scheduler starts for a job: it waits for its turn and becomes the agent.

python -m mlflow_pytorch_estimator.schedulers.local_node JOBDIR TICKET LOCK_FD TICKET_FD
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mlflow_pytorch_estimator import agent, disk, jobdir, locks
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers import pool
from mlflow_pytorch_estimator.schedulers.base import ALLOCATION_VARIABLE, JOB_DIRECTORY_VARIABLE, Allocation, Others
from mlflow_pytorch_estimator.schedulers.local import queue_root
from mlflow_pytorch_estimator.schedulers.machine import Capacity, capacity
from mlflow_pytorch_estimator.schedulers.queue import Queue, Waiting
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.status import Phase

_POLL_SECONDS = 0.2
_LOW_PRIORITY_NICENESS = 10


def allocations(job: JobSpec, granted: Capacity, numbers: Sequence[int]) -> list[Allocation]:
    """What each simulated node of a job has; ``numbers`` are those of its cluster's nodes, if it runs on one."""
    nodes, host = job.resources.node_count, socket.gethostname()
    if nodes == 1:
        return [Allocation(host, granted.cpus, granted.gpus)]
    names = [f"{job.compute}-{number}" for number in numbers] or [f"{host}-{number}" for number in range(nodes)]
    cpus, gpus = pool.share_out(granted.cpus, nodes), pool.share_out(granted.gpus, nodes)
    # Torch's rendezvous numbers the nodes in the order of their addresses, as strings.
    addresses = ["127.0.0.1", *(f"127.0.{100 + number // 100}.{100 + number % 100}" for number in range(1, nodes))]
    return [Allocation(*node) for node in zip(names, cpus, gpus, addresses, strict=True)]


def _others(places: Sequence[Allocation]) -> Others | None:
    prefixes = tuple(("env", f"{ALLOCATION_VARIABLE}={place.to_json()}") for place in places)
    return Others(tuple(place.node for place in places), prefixes) if places else None


def wait_for_turn(directory: JobDir, queue: Queue, ticket: Path, here: Capacity) -> Capacity | None:
    """Block until the queue grants something; None when the job was canceled meanwhile."""
    told = ""
    while not directory.cancel_requested:
        if disk.has_room(directory.path):  # else it would fail at once
            answer = queue.poll(ticket, here)
            if not isinstance(answer, Waiting):
                return answer
            said = answer.describe()
        else:
            said = disk.words(jobdir.home())
        if said != told:
            told = said
            directory.enter(Phase.QUEUED, told)
        time.sleep(_POLL_SECONDS)
    return None


def main(argv: list[str]) -> int:
    """Wait, run the job, deliver."""
    directory, ticket = JobDir(Path(argv[0])), Path(argv[1])
    held = [locks.adopt(directory.lock, int(argv[2])), locks.adopt(ticket, int(argv[3]))]
    job_agent = agent.Agent(directory, held)
    queue = Queue(queue_root(os.environ))
    # Copied while it waits: nobody else could use that time.
    granted = wait_for_turn(directory, queue, ticket, capacity(os.environ)) if job_agent.stage() else None
    if granted is None:
        job_agent.conclude_canceled()
    else:
        places = allocations(directory.job, granted, queue.nodes(ticket))
        os.environ[ALLOCATION_VARIABLE] = places[0].to_json()
        os.environ[JOB_DIRECTORY_VARIABLE] = str(directory.path)
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # it has been turned into the capacity
        if directory.job.resources.low_priority:
            os.nice(_LOW_PRIORITY_NICENESS)
        job_agent.run(places[0], _others(places[1:]))
    queue.leave(ticket)  # before delivery: nobody should wait for a GPU while files are uploaded
    job_agent.deliver()
    return 0


if __name__ == "__main__":
    exit_status = main(sys.argv[1:])
    sys.stderr.flush()
    # Not sys.exit: the reporter may still be importing MLflow, which nobody waits for once all is delivered.
    os._exit(exit_status)
