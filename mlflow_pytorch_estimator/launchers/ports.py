"""A free port for a server that somebody else will start in a moment."""

from __future__ import annotations

import socket


def reserve(host: str) -> int:
    """A free port that the kernel gives to nobody who asks for any free one during the next minute.

    A connection that has been through it leaves it in TIME_WAIT: a server that names it, with SO_REUSEADDR as usual,
    can listen there, while nobody gets it by chance.
    """
    with socket.create_server((host, 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address[:2]):
            accepted, _ = server.accept()
            accepted.close()  # first: the side that closes first keeps the TIME_WAIT
        return int(address[1])
