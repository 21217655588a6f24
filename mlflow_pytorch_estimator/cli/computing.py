"""``compute``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mlflow_pytorch_estimator.cli import completing, output

if TYPE_CHECKING:
    from mlflow_pytorch_estimator import Workspace
    from mlflow_pytorch_estimator.estimator.compute.cluster import GpuCluster

_TITLES = ("NAME", "SCHEDULER", "NODES", "SIZE", "STATE")


@click.group(short_help="Clusters that jobs can name.")
def compute() -> None:
    """Clusters that jobs can name: `gpu-cluster run --compute NAME`.

    \b
    gpu-cluster compute create lab --vm-size NC6 --max-nodes 4
    gpu-cluster compute attach gpus --slurm partition=gpu
    """


@compute.command("list")
@output.json_option
def list_targets(*, as_json: bool) -> None:
    """List them.

    \b
    gpu-cluster compute list
    """
    from mlflow_pytorch_estimator import ComputeTarget

    found = ComputeTarget.list(_workspace())
    if as_json:
        output.print_json([target.serialize() for target in found])
        return
    rows = [_row(target) for target in found]
    click.echo("\n".join(output.table(_TITLES, rows, None)) if rows else "no clusters; `gpu-cluster compute create`")


@compute.command()
@click.argument("name")
@click.option("--vm-size", metavar="SIZE", default="", help="Size of the nodes by name, such as NC6.")
@click.option("--cpus", type=int, help="Cores of each node.")
@click.option("--memory", metavar="GB", type=float, help="Main memory of each node.")
@click.option("--gpus", type=int, help="GPUs of each node.")
@click.option("--min-nodes", type=int, default=0, show_default=True)
@click.option("--max-nodes", type=int)
@click.option("--idle-seconds", type=int, help="How long a node without a job is kept.")
@click.option("--low-priority", is_flag=True, help="Its jobs let all others go first.")
@click.option("--slurm", metavar="[KEY=VALUE]", multiple=True, help="Nodes of Slurm, with this option of sbatch.")
@output.json_option
def create(  # noqa: PLR0913 - the options of a command
    *,
    name: str,
    vm_size: str,
    cpus: int | None,
    memory: float | None,
    gpus: int | None,
    min_nodes: int,
    max_nodes: int | None,
    idle_seconds: int | None,
    low_priority: bool,
    slurm: tuple[str, ...],
    as_json: bool,
) -> None:
    """Define a cluster; nothing is started by that.

    \b
    gpu-cluster compute create lab --vm-size NC6 --max-nodes 4
    """
    from mlflow_pytorch_estimator import AmlCompute, ComputeTarget
    from mlflow_pytorch_estimator.cli.words import pairs

    configuration = AmlCompute.provisioning_configuration(
        vm_size,
        "lowpriority" if low_priority else "dedicated",
        min_nodes,
        max_nodes,
        idle_seconds,
        cpus_per_node=cpus,
        memory_gb_per_node=memory,
        gpus_per_node=gpus,
        scheduler="slurm" if slurm else None,
        scheduler_options=pairs("--slurm", slurm),
    )
    _show(ComputeTarget.create(_workspace(), name, configuration), as_json=as_json)


@compute.command()
@click.argument("name")
@click.option("--slurm", metavar="[KEY=VALUE]", multiple=True, help="Option of sbatch, such as partition=gpu.")
@output.json_option
def attach(*, name: str, slurm: tuple[str, ...], as_json: bool) -> None:
    """Give a name to a partition of Slurm, by default the site's default one.

    \b
    gpu-cluster compute attach gpus --slurm partition=gpu
    """
    from mlflow_pytorch_estimator import ComputeTarget, SlurmCluster
    from mlflow_pytorch_estimator.cli.words import pairs

    configuration = SlurmCluster.attach_configuration(scheduler_options=pairs("--slurm", slurm))
    _show(ComputeTarget.attach(_workspace(), name, configuration), as_json=as_json)


@compute.command()
@click.argument("name", shell_complete=completing.clusters)
@output.json_option
def show(*, name: str, as_json: bool) -> None:
    """Print one, with the state of its nodes.

    \b
    gpu-cluster compute show lab
    """
    _show(_target(name), as_json=as_json)


@compute.command()
@click.argument("name", shell_complete=completing.clusters)
@output.json_option
def nodes(*, name: str, as_json: bool) -> None:
    """List the nodes that are up, and the runs on them.

    \b
    gpu-cluster compute nodes lab
    """
    found = _target(name).list_nodes()
    if as_json:
        output.print_json(found)
        return
    rows = [
        (node["nodeId"], node["nodeState"], str(len(node["cpus"])), str(len(node["gpus"])), node["runId"] or "")
        for node in found
    ]
    click.echo(
        "\n".join(output.table(("NODE", "STATE", "CPUS", "GPUS", "RUN"), rows, None)) if rows else "no nodes are up"
    )


@compute.command()
@click.argument("name", shell_complete=completing.clusters)
@click.option("--min-nodes", type=int)
@click.option("--max-nodes", type=int)
@click.option("--idle-seconds", type=int, help="How long a node without a job is kept.")
@output.json_option
def update(*, name: str, min_nodes: int | None, max_nodes: int | None, idle_seconds: int | None, as_json: bool) -> None:
    """Change the scale of one; holds for jobs that wait already.

    \b
    gpu-cluster compute update lab --max-nodes 8
    """
    if min_nodes is max_nodes is idle_seconds is None:
        raise click.UsageError("nothing to change: give --min-nodes, --max-nodes or --idle-seconds")
    found = _target(name)
    found.update(min_nodes, max_nodes, idle_seconds)
    _show(found, as_json=as_json)


@compute.command()
@click.argument("name", shell_complete=completing.clusters)
def delete(*, name: str) -> None:
    """Forget one; refused while it has unfinished runs.

    \b
    gpu-cluster compute delete lab
    """
    found = _target(name)
    found.detach() if found.serialize()["properties"]["isAttachedCompute"] else found.delete()
    click.echo(f"{name} deleted")


def _target(name: str) -> GpuCluster:
    from mlflow_pytorch_estimator import ComputeTarget

    return ComputeTarget(_workspace(), name)


def _workspace() -> Workspace:
    """That of a config.json, else this machine, as for all other commands."""
    from mlflow_pytorch_estimator import Workspace
    from mlflow_pytorch_estimator.estimator import workspace_config

    return Workspace.from_config() if workspace_config.locate(None) else Workspace()


def _show(target: GpuCluster, *, as_json: bool) -> None:
    found: dict[str, Any] = target.serialize()
    if as_json:
        output.print_json(found)
        return
    click.echo("\n".join(output.table(_TITLES, [_row(target)], None)))
    for line in (*target.provisioning_errors, *target.notices):
        click.echo(f"note: {line}")


def _row(target: GpuCluster) -> tuple[str, ...]:
    from mlflow_pytorch_estimator.schedulers.base import count

    properties = target.serialize()["properties"]
    detail = properties["properties"]
    scale = target.scale_settings
    memory = [f"{detail['memoryGbPerNode']:g} GB"] if detail["memoryGbPerNode"] else []
    cores = [count(detail[key], unit) for key, unit in (("cpusPerNode", "CPU"), ("gpusPerNode", "GPU")) if detail[key]]
    size = detail["vmSize"] or ", ".join(cores + memory)
    up = target.get_status().current_node_count
    return (
        target.name,
        detail["scheduler"],
        f"{up} of {scale.minimum_node_count}-{scale.maximum_node_count}",
        size,
        properties["provisioningState"],
    )
