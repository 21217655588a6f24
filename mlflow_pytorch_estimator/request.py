"""What was asked for, and what of a description this machine has to complete."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

from mlflow_pytorch_estimator import jobenv, placement, tracking
from mlflow_pytorch_estimator.config import BackendConfig
from mlflow_pytorch_estimator.containers import mounts, runtime
from mlflow_pytorch_estimator.description import Description, Source
from mlflow_pytorch_estimator.environments import BUILT
from mlflow_pytorch_estimator.errors import EnvironmentSpecError
from mlflow_pytorch_estimator.spec import Distribution
from mlflow_pytorch_estimator.tracking import Stores


@dataclass(frozen=True)
class Request:
    """What is to run, where, and in which experiment of which store."""

    source: Source
    experiment_id: str
    stores: Stores
    run_name: str | None = None
    config: BackendConfig = field(default_factory=BackendConfig)
    distribution: Distribution | None = None
    """How the ranks start, if ``config`` is not to say it."""
    wants_gpu: bool = False
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    """For the ranks; only their names are stored. They win over those of the project."""
    tags: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    @property
    def launch(self) -> Distribution:
        """How the ranks start."""
        return self.config.distribution if self.distribution is None else self.distribution

    def settled(self, description: Description) -> Request:
        """The request with what its source says where the user has left it open; raises ConfigError."""
        if description.settings is None:
            return self
        source = f"entry point {description.entry_point!r} of the MLproject file, gpu_cluster"
        return replace(self, config=self.config.over(description.settings, source))


def complete(description: Description, request: Request, place: placement.Placement) -> Description:
    """The description with what runs its container here, and with what its ranks need to find each other.

    ConfigError, EnvironmentSpecError for what cannot be had.
    """
    return _with_horovod(_with_container(description, request, place), request, place)


def _with_container(description: Description, request: Request, place: placement.Placement) -> Description:
    """The description with what runs its container on this machine, and with the stores in it."""
    if description.container is None:
        return description
    ranks = request.launch.world_size(place.resources.node_count)
    chosen = runtime.choose(description.container, place.scheduler, ranks)
    if request.config.upgrade_environment:
        chosen = replace(chosen, image_id=None)  # its name may mean a newer one
    location = tracking.artifact_location(request.stores, request.experiment_id)
    uris = (tracking.absolute(request.stores.tracking_uri), tracking.absolute(request.stores.registry_uri))
    return replace(description, container=mounts.with_stores(chosen, location, *uris))


def _with_horovod(description: Description, request: Request, place: placement.Placement) -> Description:
    """The description with Horovod in its environment, if that is how its ranks find each other."""
    environment, distribution = description.environment, request.launch
    if not distribution.uses_horovod:
        return description
    if environment.manager in BUILT:
        return replace(description, environment=replace(environment, horovod=True))
    several = distribution.world_size(place.resources.node_count) > 1
    if several and environment.manager == "local" and find_spec("horovod") is None:
        raise EnvironmentSpecError(
            f"the interpreter that submits has no Horovod ({sys.executable}): leave out --env-manager local or "
            "user_managed, so that the job gets an environment with it, or run "
            f"`gpu-cluster horovod build --python {sys.executable} --install`"
        )
    return description


def rank_variables(description: Description, request: Request) -> dict[str, str]:
    """What the ranks get besides the environment of the client: the last word is the user's."""
    project = dict(description.environment.variables)
    for name in project:
        if jobenv.is_reserved(name):
            raise EnvironmentSpecError(
                f"{description.environment.source}: the variable {name} is set by the backend itself; leave it out"
            )
    return {**project, **description.environment_variables, **request.environment_variables}
