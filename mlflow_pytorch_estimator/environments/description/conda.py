"""``conda.yaml`` files: what pip can give of them, and what needs conda itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mlflow_pytorch_estimator.environments.description import horovod_lines
from mlflow_pytorch_estimator.environments.description.conda_names import is_cuda, pypi_name
from mlflow_pytorch_estimator.environments.description.notices import warn_once
from mlflow_pytorch_estimator.environments.description.python_versions import version_clause
from mlflow_pytorch_estimator.environments.prefix import conda_engine
from mlflow_pytorch_estimator.environments.redaction import refuse_secret
from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# name, prefix: what conda would call the environment.
_KEYS = ("name", "channels", "dependencies", "prefix", "variables")
_MATCH = re.compile(r"(?:(?P<channel>[\w./:-]+)::)?(?P<name>[A-Za-z0-9_.-]+?)(?P<rest>(?:[\s=<>!~].*)?)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(r"/t/(?!\$\{)[^/\s]+/")
_DEFAULT_CHANNELS = ("conda-forge",)
_LOGIN = "log in to it with 'conda token set', 'mamba auth login' or, for py-rattler, 'pixi auth login'"


@dataclass(frozen=True)
class CondaParts:
    """What a ``conda.yaml`` asks for, shared out."""

    python: str | None
    pip: tuple[str, ...]
    """Requirement lines."""
    conda: tuple[str, ...] = ()
    """What conda installs, without python; empty when nothing needs conda."""
    channels: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    compared: tuple[str, ...] = ()
    """``conda`` in pip's words, as far as there are any: what pip's lines must not contradict."""


class _Item(NamedTuple):
    text: str
    channel: str | None
    name: str
    specifier: str | None
    """PEP 440; None for a match specification that is more than versions."""

    @property
    def line(self) -> str | None:
        """The requirement that means the same, None when there is none."""
        name = self.name if self.name in ("pip", horovod_lines.NAME) else pypi_name(self.channel, self.name)
        return None if name is None or self.specifier is None else f"{name}{self.specifier}"

    @property
    def is_python(self) -> bool:
        return self.name == "python" and self.specifier is not None


def convert(data: Mapping[str, object], name: str, *, installed: Callable[[], bool]) -> CondaParts:
    """Share a ``conda.yaml`` out between pip and conda; all goes to pip unless something needs conda.

    ``installed`` is asked only in that case; when it says no, one error names all that only conda could give.
    """
    listed = dependencies(data, name)
    items = [_match(text) for text in listed if isinstance(text, str)]
    lines = tuple(line for group in listed if isinstance(group, dict) for line in group["pip"])
    python = ",".join(dict.fromkeys(item.specifier for item in items if item.is_python and item.specifier)) or None
    others = [item for item in items if not item.is_python]
    needing = [item for item in others if item.line is None]
    own_variables = variables(data.get("variables"), name)
    if not needing:
        taken = tuple(item.line for item in others if item.line and item.line != "pip")
        _say_what_was_taken(others, name)
        return CondaParts(python, (*taken, *lines), variables=own_variables)
    if not installed():
        raise _refusal(needing, name)
    horovod = tuple(item.line for item in others if item.name == horovod_lines.NAME and item.line)
    kept = [item for item in others if item.name != horovod_lines.NAME]
    for item in kept:
        _refuse_secret(item.text, name)
        if item.text.strip().startswith("-"):
            raise EnvironmentSpecError(f"{name}: {item.text.strip()!r} is no package")
    return CondaParts(
        python,
        (*horovod, *lines),
        tuple(item.text.strip() for item in kept),
        _channels(data.get("channels"), name),
        own_variables,
        tuple(item.line for item in kept if item.line),
    )


def dependencies(data: Mapping[str, object], name: str) -> list[str | dict[str, list[str]]]:
    """Return the ``dependencies`` of a ``conda.yaml``, checked: match specifications and ``{"pip": lines}``."""
    unknown = [key for key in data if key not in _KEYS]
    if unknown:
        raise EnvironmentSpecError(
            f"{name}: {', '.join(map(str, unknown))} is not supported here (known: {', '.join(_KEYS)})"
        )
    items = data.get("dependencies")
    if not isinstance(items, list):
        raise EnvironmentSpecError(f"{name}: 'dependencies' must be a list")
    for item in items:
        if isinstance(item, dict) and list(item) == ["pip"]:
            if not isinstance(item["pip"], list) or not all(isinstance(line, str) for line in item["pip"]):
                raise EnvironmentSpecError(f"{name}: 'pip:' must be a list of strings")
        elif not isinstance(item, str):
            raise EnvironmentSpecError(f"{name}: {item!r} is neither a package nor a 'pip:' list")
    return items


def variables(value: object, name: str) -> tuple[tuple[str, str], ...]:
    """Return the ``variables`` of a ``conda.yaml``, checked."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise EnvironmentSpecError(f"{name}: 'variables' must be a mapping of names to texts")
    for variable, content in value.items():
        if not isinstance(variable, str) or not _VARIABLE.fullmatch(variable):
            raise EnvironmentSpecError(f"{name}: {variable!r} cannot name an environment variable")
        if isinstance(content, bool) or not isinstance(content, str | int) or "\0" in str(content):
            raise EnvironmentSpecError(f"{name}: the variable {variable} must be a text: write its value in quotes")
    return tuple((variable, str(content)) for variable, content in value.items())


def package_name(item: str) -> str:
    """Return the package that a match specification is about."""
    return _match(item).name


def names_versions(item: str) -> bool:
    """Tell whether a match specification says more than a name."""
    return _match(item).specifier != ""


def _match(text: str) -> _Item:
    match = _MATCH.fullmatch(text.strip())
    if not match:
        return _Item(text, None, text, None)
    name = match["name"].lower()
    versions = re.sub(r"\s*([,<>=!~]+)\s*", r"\1", match["rest"].strip())
    versions = versions.split(" ", maxsplit=1)[0]  # what follows a blank is conda's build string
    exact = name not in {"python", "pip"}
    clauses = [version_clause(part, exact=exact) for part in versions.split(",")] if versions else []
    known = [clause for clause in clauses if clause is not None]
    return _Item(text, match["channel"], name, ",".join(known) if len(known) == len(clauses) else None)


def _say_what_was_taken(items: list[_Item], name: str) -> None:
    said = []
    for item in items:
        if item.line and item.name not in ("pip", horovod_lines.NAME):
            ours = pypi_name(item.channel, item.name)
            renamed = ours is not None and ours != item.name.replace("_", "-")
            said.append(f"{item.line} (conda's {item.name})" if renamed else item.line)
    if said:
        warn_once(f"{name}: taken from PyPI, which has them as well as conda: {', '.join(said)}")


def _channels(value: object, name: str) -> tuple[str, ...]:
    if value is None:
        return _DEFAULT_CHANNELS
    if not isinstance(value, list) or not all(isinstance(channel, str) and channel.strip() for channel in value):
        raise EnvironmentSpecError(f"{name}: 'channels' must be a list of strings")
    for channel in value:
        _refuse_secret(channel, name)
        if channel.startswith(("./", "../", "-")):
            raise EnvironmentSpecError(f"{name}: channel {channel!r} must be a name, a URL or an absolute path")
        if "${" in channel:
            raise EnvironmentSpecError(f"{name}: channel {channel!r} cannot hold a variable: {_LOGIN}")
    # Only the listed ones are looked at in any case.
    return tuple(dict.fromkeys(channel for channel in value if channel != "nodefaults")) or _DEFAULT_CHANNELS


def _refuse_secret(text: str, name: str) -> None:
    refuse_secret(text, name)
    if "://" in text and _TOKEN.search(text):
        raise EnvironmentSpecError(f"{name}: a channel's address holds a token (/t/...): leave it out and {_LOGIN}")


def _refusal(refused: list[_Item], name: str) -> EnvironmentSpecError:
    hint = ""
    cuda = [item.text for item in refused if is_cuda(item.name)]
    if cuda:
        hint = f" (leave out {', '.join(cuda)}: PyPI's torch brings its own CUDA libraries)"
    elif any(item.name == "pytorch" for item in refused):
        hint = " (conda's pytorch is PyPI's torch)"
    return EnvironmentSpecError(
        f"{name}: only conda has {', '.join(item.text for item in refused)}, and no conda may be used or none is here "
        f"({', '.join(conda_engine.NAMES)}): {conda_engine.HINT}, name what PyPI has as pip packages{hint}, or use the "
        "interpreter that has them as it is (--env-manager local, user_managed=True)"
    )
