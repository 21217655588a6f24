"""Registered versions found by name, version, run, tags, properties and framework."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException

from mlflow_pytorch_estimator.estimator.artifacts.names import some
from mlflow_pytorch_estimator.estimator.artifacts.tree import talking
from mlflow_pytorch_estimator.estimator.exceptions import ModelNotFoundException, UserErrorException
from mlflow_pytorch_estimator.estimator.models import tags as model_tags


@dataclass(frozen=True)
class Criteria:
    """What a version must match; None means any."""

    name: str | None = None
    version: int | None = None
    run_id: str | None = None
    tags: Iterable[object] | Mapping[str, str] | str | None = None
    properties: Iterable[object] | Mapping[str, str] | str | None = None
    framework: str | None = None

    def fits(self, found: Any) -> bool:
        """Whether a version matches."""
        return (
            self.name in {None, found.name}
            and self.version in {None, int(found.version)}
            and self.run_id in {None, found.run_id}
            and self.framework in {None, found.tags.get(model_tags.FRAMEWORK)}
            and model_tags.fits(model_tags.users_own(found.tags), self.tags, "tags")
            and model_tags.fits(model_tags.properties_of(found.tags), self.properties, "properties")
        )

    def __str__(self) -> str:
        given = {key: value for key, value in vars(self).items() if value is not None}
        return ", ".join(f"{key}={value!r}" for key, value in given.items()) or "anything"


def name_and_version(name: object, model_id: object, version: object) -> tuple[str | None, int | None]:
    """Name and version out of the arguments of ``Model``, where ``id`` is ``name:version``."""
    if model_id is not None:
        head, colon, tail = str(model_id).rpartition(":")
        if not colon or not head or not (tail.isascii() and tail.isdigit()):
            raise UserErrorException(f"id is {model_id!r}; it must be NAME:VERSION, such as 'birds:3'")
        if name not in {None, head} or version not in {None, int(tail)}:
            raise UserErrorException(
                f"id {model_id!r} contradicts name={name!r}, version={version!r}: give one of them"
            )
        return head, int(tail)
    if name is not None and (not isinstance(name, str) or not name):
        raise UserErrorException(f"name is {name!r}; it must be the name of a model")
    return name, _checked_version(version)


def _checked_version(version: object) -> int | None:
    if version is None or (isinstance(version, int) and not isinstance(version, bool) and version > 0):
        return version
    if isinstance(version, str) and version.isascii() and version.isdigit() and int(version) > 0:
        return int(version)
    raise UserErrorException(f"version is {version!r}; it must be a number from 1 up")


def matching(client: Any, criteria: Criteria) -> list[Any]:
    """All versions that match, newest first."""
    found = [version for version in _every(client, criteria) if criteria.fits(version)]
    return sorted(found, key=lambda version: (-version.creation_timestamp, version.name, -int(version.version)))


def newest(client: Any, criteria: Criteria) -> Any:
    """The newest version that matches; raises ModelNotFoundException, which says what there is."""
    found = matching(client, criteria)
    if found:
        # By number within one name: clocks of several clients may disagree.
        return max(found, key=lambda version: int(version.version)) if criteria.name else found[0]
    raise ModelNotFoundException(f"no model matches {criteria}; {_what_exists(client, criteria.name)}")


def newest_of_each(found: Iterable[Any]) -> list[Any]:
    """The newest version of each name."""
    best: dict[str, Any] = {}
    for version in found:
        if version.name not in best or int(version.version) > int(best[version.name].version):
            best[version.name] = version
    return list(best.values())


def exact(client: Any, name: str, version: int) -> Any:
    """That version as it is now."""
    try:
        return client.get_model_version(name, str(version))
    except MlflowException as error:
        raise ModelNotFoundException(f"model {name}:{version} is gone; {_what_exists(client, name)}") from error


def _every(client: Any, criteria: Criteria) -> Iterator[Any]:
    wanted = []
    if criteria.name is not None:
        wanted.append(f"name={_quoted(criteria.name)}")
    if criteria.run_id is not None:
        wanted.append(f"run_id={_quoted(criteria.run_id)}")
    with talking("search the model registry"):
        token = None
        while True:
            page = client.search_model_versions(" and ".join(wanted) or None, page_token=token)
            yield from page
            token = page.token
            if not token:
                return


def _quoted(text: object) -> str:
    if not isinstance(text, str) or ("'" in text and '"' in text) or not text.isprintable():
        raise UserErrorException(f"{text!r} is no name of a model and no id of a run")
    return f'"{text}"' if "'" in text else f"'{text}'"


def _what_exists(client: Any, name: str | None) -> str:
    versions = [str(version.version) for version in matching(client, Criteria(name))] if name else []
    if versions:
        return f"versions of {name!r}: {', '.join(versions[:20])}"
    names = sorted({version.name for version in matching(client, Criteria())})
    return f"models: {some(names)}" if names else "the registry is empty"
