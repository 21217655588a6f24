"""What a user asks of a container -> ``Container``; whatever cannot be right is refused before anything exists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator.containers.argv import option_names
from mlflow_pytorch_estimator.environments import EnvironmentSpec
from mlflow_pytorch_estimator.errors import ConfigError, ProjectError
from mlflow_pytorch_estimator.jobenv import is_reserved
from mlflow_pytorch_estimator.secretvalues import Concealer
from mlflow_pytorch_estimator.spec import Container

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")
_SIZE = re.compile(r"([1-9][0-9]*)([bkmg]?)b?|([1-9][0-9]*)([kmg])ib", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEYS = ("image", "volumes", "environment")
_REFUSED = {
    "name": "the backend names its containers, to find them again",
    "detach": "the job ends with its container",
    "tty": "a job has no terminal",
    "restart": "a container is removed when its rank has ended",
    "env": "its value would be on the command line: use environment_variables, or the environment of docker_env",
}


@dataclass(frozen=True)
class ProjectContainer:
    """An MLproject's ``docker_env``."""

    container: Container
    variables: dict[str, str]
    """For the ranks: copied from here, or as the file says."""


def describe(image: object, shm_size: object = None, *, names: tuple[str, str] = ("image", "shm_size")) -> Container:
    """Check what was given; ``names`` are what the user calls the two."""
    if not isinstance(image, str) or not _IMAGE.fullmatch(image):
        raise ConfigError(f"{names[0]} is {image!r}; it must be the name of an image, such as 'pytorch/pytorch:latest'")
    return Container(image, None if shm_size is None else _size(shm_size, names[1]))


def environment(container: Container) -> EnvironmentSpec:
    """Nothing is built for a job in a container."""
    return EnvironmentSpec("container", None, (), (), container.image)


def read_docker_env(section: object, environ: Mapping[str, str]) -> ProjectContainer:
    """Read the ``docker_env`` of an MLproject; a variable that is to be copied must be in ``environ``."""
    if not isinstance(section, Mapping):
        raise ProjectError(f"docker_env is {section!r}; it must be a mapping with the key 'image'")
    unknown = [str(key) for key in section if key not in _KEYS]
    if unknown:
        raise ProjectError(f"docker_env has no key {unknown[0]!r} (known: {', '.join(_KEYS)})")
    container = describe(section.get("image"), names=("image of docker_env", ""))
    volumes = _list(section.get("volumes"), "volumes")
    for volume in volumes:
        _check_volume(volume)
    pairs = (_variable(item, environ) for item in _list(section.get("environment"), "environment"))
    return ProjectContainer(replace(container, volumes=tuple(volumes)), dict(pairs))


def add_arguments(container: Container, given: Mapping[str, Any] | Sequence[str] | None) -> Container:
    """Add options of ``docker run``: MLflow's ``--docker-args`` as a mapping, or the words themselves."""
    words = tuple(_words(given)) if isinstance(given, Mapping) else tuple(given or ())
    wrong = [word for word in words if not isinstance(word, str) or "\0" in word]
    if wrong:
        raise ConfigError(f"container argument {wrong[0]!r} must be text")
    if words and not words[0].startswith("-"):
        raise ConfigError(f"container argument {words[0]!r} is no option: write '--option' and its value as two words")
    for name in option_names(words):
        if name in _REFUSED:
            raise ConfigError(f"container argument {name!r} cannot be used: {_REFUSED[name]}")
    conceal = Concealer.from_environ().conceal
    if any(conceal(word) != word for word in words):
        raise ConfigError("a container argument holds a secret of the environment: pass it as an environment variable")
    return replace(container, arguments=(*container.arguments, *words))


def _size(value: object, name: str) -> str:
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ConfigError(f"{name} is {value!r}; it must be a size such as '512m', '2g' or '2GiB'")
    return f"{found[1] or found[3]}{(found[2] or found[4] or 'b').lower()}"


def _list(value: object, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ProjectError(f"{name} of docker_env must be a list, not {value!r}")
    return value


def _check_volume(volume: object) -> None:
    source, _, target = volume.partition(":") if isinstance(volume, str) else ("", "", "")
    if not source or not target:
        raise ProjectError(f"volumes of docker_env: {volume!r} must be 'SOURCE:TARGET'")
    if source.startswith("/") and not Path(source).exists():
        raise ProjectError(f"volumes of docker_env: there is no {source!r} on this machine; create it, or leave it out")


def _variable(item: object, environ: Mapping[str, str]) -> tuple[str, str]:
    name, *rest = item if isinstance(item, list) and item else [item]
    if not isinstance(name, str) or not _VARIABLE.fullmatch(name) or isinstance(item, list) != (len(rest) == 1):
        raise ProjectError(
            f"environment of docker_env: {item!r} must be a variable's name, or a list of name and value"
        )
    if is_reserved(name):
        raise ProjectError(f"environment of docker_env: {name} is set by the backend itself")
    if rest:
        return name, str(rest[0])
    if name not in environ:
        raise ProjectError(
            f"environment of docker_env: {name} is not set here; set it, or give a list of name and value"
        )
    return name, environ[name]


def _words(given: Mapping[str, Any]) -> Iterable[str]:
    for name, value in given.items():
        if value is not False:
            yield f"-{name}" if len(str(name)) == 1 else f"--{name}"
        if not isinstance(value, bool):
            yield str(value)
