"""``runs --repair``: runs that crashes have left unfinished."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlflow_pytorch_estimator import tags
from mlflow_pytorch_estimator.cli import jobs
from mlflow_pytorch_estimator.status import Phase

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.cli.facts import Facts

_MOST = 10_000
_OPEN = "attributes.status = 'RUNNING'", "attributes.status = 'SCHEDULED'"
_REASON = "its job directory has gone, and with it what became of the job"


def repair(experiment: str | None) -> None:
    """End all unfinished runs that were submitted from here and whose job is not here any more; says which."""
    for question in _OPEN:
        for found in jobs.stored(experiment, _MOST, question):
            if found.directory is None and not found.ended:
                _end(found)


def _end(found: Facts) -> None:
    from mlflow.tracking import MlflowClient

    from mlflow_pytorch_estimator import tracking

    client = MlflowClient()
    home = client.get_run(found.run_id).data.tags.get(tags.HOME)
    if home != tags.here()[tags.HOME]:
        click.echo(f"{found.run_id} left alone: it was submitted from {home or 'an unknown place'}", err=True)
        return
    client.set_tag(found.run_id, tags.STATUS, Phase.FAILED.value)
    client.set_tag(found.run_id, tags.FAILURE, _REASON)
    tracking.end(client, found.run_id, Phase.FAILED.mlflow_status)
    click.echo(f"{found.run_id} ended Failed: {_REASON}", err=True)
