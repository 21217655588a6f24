"""Horovod's elastic driver for one job. Run as a file by the job's interpreter, because the agent's has no Horovod:

    python elastic_driver.py ADDRESS FOLDER MIN_RANKS MAX_RANKS SECONDS

Starts no process itself: it says on standard output what it wants, one JSON object on each line,

    {"port": N}                                          it listens
    {"start": KEY, "node": NAME, "variables": {...}}     a worker is to be started on a node
    {"stop": KEY}                                        a worker is to be ended

and finds the answers in FOLDER: ``hosts.json`` (node -> ranks that it can take) and ``KEY.ended`` (exit code, time).
Ends with 0 when the workers have succeeded.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.1
_COOLDOWN_SECONDS = (5, 60)  # until a node that has lost a rank may have ranks again


class Agent:
    """The agent that this driver belongs to."""

    def __init__(self, folder: Path, report: int) -> None:
        self._folder = folder
        self._report = report
        self._lock = threading.Lock()
        self._keys = count()

    def say(self, message: dict[str, Any]) -> None:
        """Tell it something, from any thread."""
        with self._lock:
            os.write(self._report, json.dumps(message).encode() + b"\n")

    def hosts(self) -> dict[str, int]:
        """The nodes that are there, and how many ranks each can take."""
        found: dict[str, int] = json.loads((self._folder / "hosts.json").read_text())
        return found

    def ordered(self, available: set[str], before: list[str]) -> list[str]:
        """The oldest nodes first, as Horovod does it; new ones in the job's order, not in that of a set."""
        known = [host for host in before if host in available]
        return known + [host for host in self.hosts() if host in available and host not in known]

    def work(self, node: str, variables: dict[str, str], events: list[threading.Event]) -> tuple[int, float]:
        """Have a worker run on a node until it ends, or one of the events wants it to."""
        key = str(next(self._keys))
        self.say({"start": key, "node": node, "variables": variables})
        ended, stopping = self._folder / f"{key}.ended", False
        while not ended.exists():
            if not stopping and any(event.is_set() for event in events):
                stopping = True
                self.say({"stop": key})
            time.sleep(_POLL_SECONDS)
        code, when = ended.read_text().split()
        return int(code), float(when)


def main(argv: list[str]) -> int:
    """Drive the workers to their end."""
    address, least, most, seconds = argv[0], int(argv[2]), int(argv[3]), int(float(argv[4]))
    agent = Agent(Path(argv[1]), os.dup(1))
    os.dup2(2, 1)  # whatever else is printed goes to the log
    # Our own horovod.py lies beside this file and would hide Horovod.
    sys.path[:] = [path for path in sys.path if Path(path) != Path(__file__).parent]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    from horovod.runner.elastic.discovery import HostDiscovery, HostManager
    from horovod.runner.elastic.driver import ElasticDriver
    from horovod.runner.elastic.rendezvous import create_rendezvous_handler
    from horovod.runner.gloo_run import create_slot_env_vars
    from horovod.runner.http.http_server import RendezvousHTTPServer

    class Hosts(HostDiscovery):
        """The nodes that the agent says are there."""

        def find_available_hosts_and_slots(self) -> dict[str, int]:
            return agent.hosts()

    class Server:
        """Horovod's rendezvous server on our address, on a port that the kernel chooses."""

        def start(self, handler: Any) -> int:
            self._http = RendezvousHTTPServer((address, 0), handler, 0)
            threading.Thread(target=self._http.serve_forever, daemon=True).start()
            return int(self._http.server_address[1])

        def init(self, plan: Any) -> None:
            self._http.init(plan)

        def stop(self) -> None:
            threading.Thread(target=self._http.shutdown, daemon=True).start()

    HostManager.order_available_hosts = staticmethod(agent.ordered)
    server = Server()
    driver = ElasticDriver(server, Hosts(), least, most, timeout=seconds, cooldown_range=_COOLDOWN_SECONDS)
    agent.say({"port": server.start(create_rendezvous_handler(driver))})
    driver.start(least, lambda slot, events: agent.work(slot.hostname, create_slot_env_vars(slot), events))
    results = driver.get_results()
    driver.stop()
    if results.error_message:
        print(results.error_message, file=sys.stderr)
        return 1
    codes = [code for code, _ in results.worker_results.values()]
    return int(not codes or any(codes))


if __name__ == "__main__":
    exit_status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(exit_status)  # threads of Horovod's may still wait for workers that are no more
