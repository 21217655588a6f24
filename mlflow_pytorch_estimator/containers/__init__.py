"""Ranks in a container: the image brings interpreter and packages, a runtime of this machine starts it.

``describing`` reads what the user asks for, ``mounts`` adds what the job needs of this machine, ``runtime`` finds
docker or podman and the image. On the node, ``starting`` turns a rank's command into one of the runtime, by ``argv``
and ``inside``.
"""
