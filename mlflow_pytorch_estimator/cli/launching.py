"""``run`` and ``submit``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from mlflow_pytorch_estimator.cli import completing, exits, finding, output, words

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.attach import Choice
    from mlflow_pytorch_estimator.config import BackendConfig
    from mlflow_pytorch_estimator.console import Terminal
    from mlflow_pytorch_estimator.description import Source
    from mlflow_pytorch_estimator.handle import JobHandle
    from mlflow_pytorch_estimator.request import Request
    from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

_OPTIONS = (
    click.option(
        "-j",
        "--ranks",
        "shape",
        metavar="NODESxRANKS",
        help="Nodes, and ranks on each, such as 2x4; needs --launcher. By default one process.",
    ),
    click.option(
        "--launcher",
        type=click.Choice(["torchrun", "horovod", "mpirun"]),
        help="What starts several ranks: torchrun for torch.distributed.",
    ),
    click.option("--gpus", type=click.IntRange(0), help="GPUs of each node; by default all."),
    click.option("--cpus", type=click.IntRange(1), help="Cores of each node; by default all."),
    click.option("--memory", metavar="GB", type=click.FloatRange(0, min_open=True), help="Main memory of each node."),
    click.option(
        "--compute",
        metavar="NAME",
        shell_complete=completing.clusters,
        help="Cluster to run on, see `gpu-cluster compute`.",
    ),
    click.option(
        "--slurm",
        metavar="[KEY=VALUE]",
        multiple=True,
        help="Run on Slurm, with this option of sbatch, such as partition=gpu; several are possible.",
    ),
    click.option(
        "--after",
        metavar="RUN",
        multiple=True,
        shell_complete=completing.runs,
        help="Start when this run has completed; several are possible.",
    ),
    click.option(
        "--max-time",
        metavar="TIME",
        type=words.duration,
        help="The job fails when its ranks have run so long: 90, 30m, 2h.",
    ),
    click.option(
        "-c",
        "--config",
        metavar="JSON",
        help="Backend config for all else: JSON, or a .json file. Options win over it.",
    ),
    click.option(
        "--experiment",
        "--experiment-name",
        metavar="NAME",
        help="Experiment of the run; it is made if it is not there.",
    ),
    click.option("--name", "--run-name", metavar="NAME", help="Name of the run."),
    click.option("--detach", is_flag=True, help="Return at once; `gpu-cluster logs -f` follows."),
    click.option(
        "--dry-run", is_flag=True, help="Check all but the packages, print what would be submitted, and submit nothing."
    ),
)


def _job_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return output.json_option(command)


@click.command(short_help="Run an entry point of an MLflow project, and follow it.")
@click.argument("uri", default=".")
@click.option(
    "-e", "--entry-point", default="main", show_default=True, metavar="NAME", help="Entry point of the MLproject file."
)
@click.option(
    "-P", "--param", "parameters", metavar="NAME=VALUE", multiple=True, help="A parameter of it; several are possible."
)
@click.option("-v", "--version", metavar="REVISION", help="Commit, tag or branch of a git project.")
@click.option("--env-manager", type=click.Choice(["uv", "conda", "local"]), help="`local`: this interpreter, as it is.")
@_job_options
def run(
    *,
    uri: str,
    entry_point: str,
    parameters: tuple[str, ...],
    version: str | None,
    env_manager: str | None,
    **given: Any,
) -> None:
    """Run an entry point of an MLflow project, as `mlflow run URI -b gpu-cluster` does, and follow it to its end.

    \b
    gpu-cluster run . -P epochs=5
    gpu-cluster run . -j 2x4 --launcher torchrun --slurm partition=gpu --gpus 4 --detach
    gpu-cluster run https://github.com/mlflow/mlflow#examples/pytorch/MNIST

    URI is a folder, a git or zip address, by default the current folder.
    """
    from mlflow_pytorch_estimator.project_source import ProjectSource

    options = {"ENV_MANAGER": env_manager} if env_manager else {}
    values = words.pairs("-P", parameters)
    _launch(ProjectSource(uri, entry_point, values, version, options), _config(given, whole=False), given)


@click.command(
    short_help="Run a script with the packages that it needs.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("script", type=click.Path())
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--source",
    "--source-directory",
    metavar="FOLDER",
    help="Folder that the job gets a copy of; by default that of the script.",
)
@click.option("--pip", metavar="PACKAGE", multiple=True, help="A package of PyPI; several are possible.")
@click.option("--conda", metavar="PACKAGE", multiple=True, help="A package of conda; several are possible.")
@click.option("--requirements", metavar="FILE", help="A requirements.txt.")
@click.option("--conda-file", metavar="FILE", help="A conda.yaml.")
@click.option("--framework-version", metavar="VERSION", help="PyTorch, such as 2.13; by default the newest.")
@click.option(
    "--env-manager",
    type=click.Choice(["local"]),
    help="`local`: no environment is built, the script runs with the Python that runs this command.",
)
@click.option(
    "--env", "variables", metavar="NAME=VALUE", multiple=True, help="A variable for the script; several are possible."
)
@_job_options
def submit(  # noqa: PLR0913 - the options of a command
    *,
    script: str,
    arguments: tuple[str, ...],
    source: str | None,
    pip: tuple[str, ...],
    conda: tuple[str, ...],
    requirements: str | None,
    conda_file: str | None,
    framework_version: str | None,
    env_manager: str | None,
    variables: tuple[str, ...],
    **given: Any,
) -> None:
    """Run a script with the packages that it needs, and follow it to its end.

    \b
    gpu-cluster submit train.py --lr 0.1
    gpu-cluster submit --pip scikit-learn --detach --after last train.py
    gpu-cluster submit -j 1x2 --launcher torchrun train.py

    What stands behind SCRIPT is the script's. PyTorch and MLflow come with every environment that is built. What the
    script writes below outputs/ becomes artifacts of its MLflow run, as do its logs.
    """
    from mlflow_pytorch_estimator.cli import scripts

    _check_words(script, arguments)
    words.launched(given["shape"], given["launcher"], given["config"])
    packages = scripts.Packages(pip, conda, requirements, conda_file, framework_version, local=env_manager == "local")
    config = _config(given, whole=True)
    _launch(scripts.source(script, arguments, source, packages, words.pairs("--env", variables)), config, given)


def _check_words(script: str, arguments: tuple[str, ...]) -> None:
    """Refuse an option that there is not; tell of those that went to the script, which may want them."""
    if script.startswith("-"):
        raise click.NoSuchOption(script, possibilities=words.misspelled(script))
    options = words.options()
    ours = [word for word in arguments if word.partition("=")[0] in options and word.startswith("--")]
    if ours:
        click.echo(
            f"gpu-cluster: note: {', '.join(ours)} behind {script} goes to the script; what is meant for gpu-cluster "
            f"stands before {script}",
            err=True,
        )


def _launch(source: Source, config: BackendConfig, given: Mapping[str, Any]) -> None:
    from mlflow_pytorch_estimator import submission
    from mlflow_pytorch_estimator.console import terminal

    request = _request(source, config, given)
    if given["dry_run"] or config.dry_run:
        click.echo(str(submission.plan(request)))
        terminal().say("dry run: nothing was submitted")
        return
    with terminal().busy("submitting"):
        submitted = submission.submit(request)
    show(submitted, detach=config.detach, as_json=given["as_json"])


def show(submitted: GpuClusterSubmittedRun, *, detach: bool, as_json: bool) -> None:
    """Say which run it is, and follow it unless ``detach``; leaves with its exit status."""
    from mlflow_pytorch_estimator.backend import announce
    from mlflow_pytorch_estimator.console import SilentTerminal, terminal

    if not as_json:
        announce(submitted, detach=detach, attached=True)
    status = exits.COMPLETED
    if not detach:
        status = follow(submitted, SilentTerminal() if as_json else terminal())
    if as_json:
        from mlflow_pytorch_estimator.cli import facts

        output.print_json({**facts.of(submitted.run_id).summary(), "url": submitted.url})
    sys.exit(status)


def follow(submitted: JobHandle, terminal: Terminal, choice: Choice | None = None, *, cancels: bool = True) -> int:
    """Show a job until it has ended, say why if it has not completed, and return the exit status."""
    outcome = submitted.follow(terminal, choice, cancels=cancels)
    if outcome.reason and str(outcome.phase) != "Completed":
        terminal.say(submitted.verdict(outcome))
    return exits.of_phase(str(outcome.phase))


def _request(source: Source, config: BackendConfig, given: Mapping[str, Any]) -> Request:
    import mlflow
    from mlflow.tracking.fluent import _get_experiment_id

    from mlflow_pytorch_estimator.estimator.experiment import Experiment
    from mlflow_pytorch_estimator.estimator.workspace import Workspace
    from mlflow_pytorch_estimator.request import Request
    from mlflow_pytorch_estimator.tracking import Stores

    name = given["experiment"]
    experiment = Experiment(Workspace(), name).id if name else str(_get_experiment_id())
    stores = Stores(mlflow.get_tracking_uri(), mlflow.get_registry_uri())
    return Request(
        source=source,
        experiment_id=experiment,
        stores=stores,
        run_name=given["name"],
        config=config,
        environment_variables=getattr(source, "environment_variables", {}),
    )


def _config(given: Mapping[str, Any], *, whole: bool) -> BackendConfig:
    """``whole`` unless the project has a say in it."""
    from mlflow_pytorch_estimator.config import read_config
    from mlflow_pytorch_estimator.errors import ConfigError

    try:
        base = read_config(given["config"], whole=False) if given["config"] else None
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint="-c") from error
    said = {name: getattr(base, name) for name in base.given} if base else {}
    options = {
        **words.shape_of("-j", given["shape"]),
        "distributed_training": given["launcher"],
        "gpus_per_node": given["gpus"],
        "cpus_per_node": given["cpus"],
        "memory_gb_per_node": given["memory"],
        "compute": given["compute"],
        "after": [finding.run_id(run) for run in given["after"]] or None,
        "max_run_duration_seconds": given["max_time"],
        "detach": True if given["detach"] else None,
        **_slurm(given["slurm"], said.get("scheduler_options", {})),
    }
    return read_config({**said, **{name: value for name, value in options.items() if value is not None}}, whole=whole)


def _slurm(given: tuple[str, ...], options: Mapping[str, Any]) -> dict[str, Any]:
    if not given:
        return {}
    return {"scheduler": "slurm", "scheduler_options": {**options, **words.pairs("--slurm", given)}}
