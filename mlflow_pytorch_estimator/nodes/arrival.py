"""Which ranks have gone to meet the others: those that have a connection to torch's store (``MASTER_PORT``)."""

from __future__ import annotations

import os

from mlflow_pytorch_estimator import keeper

_TABLES = ("tcp", "tcp6")


def arrived(roots: list[int]) -> list[int]:
    """Below which of these keepers a process is connected to the port that its environment calls ``MASTER_PORT``."""
    return [root for root, family in keeper.families(roots).items() if any(map(_is_connected, family))]


def _is_connected(pid: int) -> bool:
    port = _master_port(pid)
    return port is not None and bool(_sockets(pid) & _connections_to(pid, port))


def _master_port(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/environ", "rb") as handle:  # noqa: PTH123 - read for many processes
            found = [entry for entry in handle.read().split(b"\0") if entry.startswith(b"MASTER_PORT=")]
    except OSError:
        return None
    text = found[0].partition(b"=")[2] if found else b""
    return int(text) if text.isdigit() else None


def _sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - as above
            target = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        return found  # it ended while we looked
    return found


def _connections_to(pid: int, port: int) -> set[str]:
    """The inodes of all connections to a port in the process's network."""
    found = set()
    for table in _TABLES:
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as handle:  # noqa: PTH123 - as above
                rows = [line.split() for line in handle][1:]
        except OSError:
            continue
        found |= {row[9] for row in rows if int(row[2].rpartition(":")[2], 16) == port}
    return found
