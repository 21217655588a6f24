"""Where MLflow's entry points lead. Every ``import mlflow`` of a rank loads them, so this imports next to nothing.

An entry point for each URI scheme would be the usual way. It is not enough: with two plug-ins for one scheme the later
on ``sys.path`` wins, which is never ours, and the schemes of other plug-ins are not known when a job is delivered. So
loading one of these entry points wraps the one method by which its registry answers for any scheme.
"""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable
from typing import Any

from mlflow_pytorch_estimator.rank_policy import policy, scratch

Builder = Callable[..., Any]
_MARK = "_gpu_cluster_ranks"

# Registered before anything that MLflow does at exit, hence run after it: ending a run must not meet a removed folder.
atexit.register(scratch.remove)


def __getattr__(name: str) -> Builder:
    # MLflow loads entry points but calls none before their scheme is used. Asking for one is what installs it.
    try:
        install = _INSTALLERS[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    install()
    return _no_scheme


def _install_tracking() -> None:
    from mlflow.tracking._tracking_service import utils

    _wrap(utils._tracking_store_registry, "get_store_builder", functools.partial(_builder, _guard_tracking))


def _install_registry() -> None:
    from mlflow.tracking._model_registry import utils

    _wrap(utils._model_registry_store_registry, "get_store_builder", functools.partial(_builder, _guard_registry))


def _install_artifacts() -> None:
    from mlflow.store.artifact import artifact_repository_registry as module

    _wrap(module._artifact_repository_registry, "get_artifact_repository", _repository)


_INSTALLERS: dict[str, Callable[[], None]] = {
    "tracking_store": _install_tracking,
    "model_registry_store": _install_registry,
    "artifact_repository": _install_artifacts,
}


def _wrap(registry: Any, method: str, around: Callable[..., Any]) -> None:
    usual = getattr(registry, method)
    if not hasattr(usual, _MARK):  # a server in this process loads the entry points again
        wrapped = functools.partial(around, usual)
        setattr(wrapped, _MARK, True)
        setattr(registry, method, wrapped)


def _builder(
    guard: Callable[[Any, policy.RankPolicy], None], find: Callable[[str], Builder], store_uri: str
) -> Builder:
    build = find(store_uri)

    @functools.wraps(build)  # MLflow looks at the parameters of a builder
    def builder(*arguments: Any, **named: Any) -> Any:
        store = build(*arguments, **named)
        found = policy.current()
        if found is not None:
            guard(store, found)
        return store

    return builder


def _guard_tracking(store: Any, found: policy.RankPolicy) -> None:
    from mlflow_pytorch_estimator.rank_policy.tracking import guard

    guard(store, found)


def _guard_registry(store: Any, found: policy.RankPolicy) -> None:
    from mlflow_pytorch_estimator.rank_policy.registry import guard

    guard(store, found)


def _repository(usual: Builder, artifact_uri: str, *arguments: Any, **named: Any) -> Any:
    stored = scratch.stored_elsewhere(artifact_uri)
    if stored is None:
        return usual(artifact_uri, *arguments, **named)
    from mlflow_pytorch_estimator.rank_policy.artifacts import DroppingRepository

    return DroppingRepository(artifact_uri, stored, *arguments, **named)


def _no_scheme(*_arguments: Any, **_named: Any) -> Any:
    raise ValueError("gpu-cluster-ranks is no scheme of a URI; the name only makes MLflow load the policy for ranks")
