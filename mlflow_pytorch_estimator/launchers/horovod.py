"""Ranks that find each other through Horovod: its own environment contract, without ssh and ``horovodrun``.

Every rank sees all GPUs of its node. Horovod's scripts choose theirs with ``torch.cuda.set_device(hvd.local_rank())``,
which fails on every rank but the first where each sees only one; so does NCCL's direct way from GPU to GPU.
"""

from __future__ import annotations

from mlflow_pytorch_estimator.launchers.base import (
    Address,
    Layout,
    RankCommand,
    entry_point,
    threads,
    visible_gpus,
)
from mlflow_pytorch_estimator.spec import JobSpec
from mlflow_pytorch_estimator.topology import Place


def launch(job: JobSpec, layout: Layout, node_rank: int, rendezvous: Address) -> tuple[RankCommand, ...]:
    """The entry point's command once for each rank of a node."""
    node = layout.nodes[node_rank]
    return tuple(
        RankCommand(
            place.rank,
            place.local_rank,
            entry_point(job),
            environ={**visible_gpus(node), **place.environment(), **contract(place, layout, rendezvous)},
            defaults={
                **threads(node, layout.ranks_per_node),
                "NCCL_SOCKET_IFNAME": node.interface,
                "HOROVOD_GLOO_TIMEOUT_SECONDS": f"{job.start_seconds:.0f}",
            },
        )
        for place in layout.places(node_rank)
    )


def contract(place: Place, layout: Layout, rendezvous: Address) -> dict[str, str]:
    """What ``horovodrun`` tells a rank; ``CROSS`` counts the ranks with the same number on the other nodes."""
    node = layout.nodes[place.node_rank]
    return {
        "HOROVOD_HOSTNAME": node.node,
        "HOROVOD_RANK": str(place.rank),
        "HOROVOD_SIZE": str(place.world_size),
        "HOROVOD_LOCAL_RANK": str(place.local_rank),
        "HOROVOD_LOCAL_SIZE": str(layout.ranks_per_node),
        "HOROVOD_CROSS_RANK": str(place.node_rank),
        "HOROVOD_CROSS_SIZE": str(len(layout.nodes)),
        **meeting(node.interface, rendezvous),
    }


def meeting(interface: str, rendezvous: Address) -> dict[str, str]:
    """The part that is the same for all ranks of a node."""
    return {
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": rendezvous.host,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(rendezvous.port),
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_IFACE": interface,
    }
