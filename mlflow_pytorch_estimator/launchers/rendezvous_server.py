"""Horovod's rendezvous for one job. Run as a file by the job's interpreter, because the agent's has no Horovod:

    python rendezvous_server.py ADDRESS '{"node": RANKS}'

Says on standard output at which port it listens and which ranks have come, and serves until it is killed.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path


class Finished(defaultdict[str, list[str]]):
    """Which ranks have met, for each scope.

    When all of one scope have, Horovod's handler clears them all. A rank of another scope is then forgotten, that scope
    keeps its addresses, and ranks that meet again (a second ``hvd.init()``, ``hvd.elastic.run``) find dead ones.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__(list)
        self._sizes = sizes

    def clear(self) -> None:
        """Forget the scopes that are complete."""
        for scope in [scope for scope, ranks in self.items() if len(ranks) >= self._sizes[scope]]:
            del self[scope]


def main(argv: list[str]) -> None:
    """Serve the ranks of these nodes."""
    address, slots = argv[0], json.loads(argv[1])
    report = os.dup(1)
    os.dup2(2, 1)  # whatever else is printed goes to the log
    # Our own horovod.py lies beside this file and would hide Horovod.
    sys.path[:] = [path for path in sys.path if Path(path) != Path(__file__).parent]
    from horovod.runner.common.util.hosts import HostInfo, get_host_assignments
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    class Handler(RendezvousHandler):
        """Horovod's own, which tells of each rank that has put down its address."""

        def _put_value(self, scope: str, key: str, value: bytes) -> None:
            super()._put_value(scope, key, value)
            if scope == "global" and key.isdigit() and key not in come:
                come.add(key)
                os.write(report, f"rank {key}\n".encode())

    come: set[str] = set()
    plan = get_host_assignments([HostInfo(node, ranks) for node, ranks in slots.items()], sum(slots.values()))
    # Not Horovod's RendezvousServer: it tries random ports and listens on every interface, without a password.
    server = RendezvousHTTPServer((address, 0), Handler, 0)
    server.init(plan)
    server.finished_list = Finished(server.scope_size)
    os.write(report, f"rendezvous at port {server.server_address[1]}\n".encode())
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
