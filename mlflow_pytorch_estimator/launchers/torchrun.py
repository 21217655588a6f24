"""Ranks that ``torch.distributed.run`` starts: one launcher on each node, c10d rendezvous on the first.

Each rank stands under a keeper of its own (see ``keeper``), which writes its log and notes its end; the launcher's own
words go to another log.
"""

from __future__ import annotations

from mlflow_pytorch_estimator.launchers.base import (
    Keeping,
    Layout,
    Meeting,
    RankCommand,
    entry_point,
    threads,
    visible_gpus,
)
from mlflow_pytorch_estimator.spec import JobSpec

BACKEND_VARIABLE = "GPU_CLUSTER_DISTRIBUTED_BACKEND"
"""``gloo`` or ``nccl``, as the description of the job says."""


def launch(job: JobSpec, layout: Layout, number: int, meeting: Meeting, keeping: Keeping) -> tuple[RankCommand, ...]:
    """The launcher of a node."""
    node, ranks, distribution = layout.nodes[number], layout.ranks_per_node, job.distribution
    least = "" if distribution.min_nodes is None else f"{distribution.min_nodes}:"
    conf = f"is_host={int(number == 0)},join_timeout={job.start_seconds:.0f}"
    argv = (
        *(job.interpreter.python or "python", "-m", "torch.distributed.run"),
        *("--nnodes", f"{least}{len(layout.nodes)}", "--nproc_per_node", str(ranks)),
        *("--rdzv_backend", "c10d", "--rdzv_id", meeting.name, "--rdzv_conf", conf),
        *("--rdzv_endpoint", f"{meeting.address.host}:{meeting.address.port}", "--local_addr", node.address),
        *("--max_restarts", str(distribution.max_restarts), "--monitor_interval", "0.1", "--no_python"),
        *keeping.prefix(),
        *entry_point(job),
    )
    backend = {BACKEND_VARIABLE: distribution.backend} if distribution.backend else {}
    defaults = {**threads(node, ranks), "NCCL_SOCKET_IFNAME": node.interface, "GLOO_SOCKET_IFNAME": node.interface}
    if distribution.max_restarts or distribution.min_nodes is not None:
        # Torch 2.15 keeps one store for all rounds; ranks that start again may find addresses of the round before.
        defaults["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if not node.gpus:
        # accelerate takes ranks without a GPU for independent processes unless its own launcher has said this.
        defaults["ACCELERATE_USE_CPU"] = "true"
    environ = {**visible_gpus(node), **backend}
    return (RankCommand(number * ranks, 0, argv, environ, defaults, launcher="torchrun"),)
