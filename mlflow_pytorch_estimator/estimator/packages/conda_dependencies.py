"""``CondaDependencies``: a list of packages that can be read, changed and written as a ``conda.yaml``."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlflow_pytorch_estimator.environments.base import requirement_name
from mlflow_pytorch_estimator.environments.description import conda, read
from mlflow_pytorch_estimator.environments.description.python_versions import python_specifier
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException

DEFAULT_FILE = "conda_dependencies.yml"
_Path = str | os.PathLike[str]


class CondaDependencies:
    """Packages of an environment, over a copy of its own.

    What of them conda installs, if there is one, is decided when the environment is used. EnvironmentSpecError for a
    file that is no ``conda.yaml``.
    """

    def __init__(
        self,
        conda_dependencies_file_path: _Path | None = None,
        _underlying_structure: Mapping[str, Any] | None = None,
    ) -> None:
        if conda_dependencies_file_path is not None and _underlying_structure is not None:
            raise UserErrorException("give either conda_dependencies_file_path or _underlying_structure")
        name = "the conda dependencies"
        found: Mapping[str, Any] = {"name": "project_environment", "dependencies": []}
        if conda_dependencies_file_path is not None:
            name = os.fspath(conda_dependencies_file_path)
            found = read.load_yaml(Path(name), name)
        elif _underlying_structure is not None:
            found = _underlying_structure
        self._data: dict[str, Any] = copy.deepcopy(dict(found))
        conda.dependencies(self._data, name)
        conda.variables(self._data.get("variables"), name)
        _texts(f"{name}: channels", self._data.get("channels"))

    @staticmethod
    def create(
        pip_indexurl: str | None = None,
        pip_packages: Iterable[str] | None = None,
        conda_packages: Iterable[str] | None = None,
        python_version: str | None = None,
        pin_sdk_version: bool = True,
    ) -> CondaDependencies:
        """Return new dependencies; ``pin_sdk_version`` has nothing to pin, because no SDK is added."""
        created = CondaDependencies()
        if python_version is not None:
            created.set_python_version(python_version)
        for package in _texts("conda_packages", conda_packages):
            created.add_conda_package(package)
        if pip_indexurl is not None:
            created.set_pip_index_url(pip_indexurl)
        for package in _texts("pip_packages", pip_packages):
            created.add_pip_package(package)
        return created

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CondaDependencies) and self._data == other._data

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        return f"CondaDependencies({self._data['dependencies']!r})"

    @property
    def conda_packages(self) -> tuple[str, ...]:
        """Conda's match specifications, python among them."""
        return tuple(item for item in self._data["dependencies"] if isinstance(item, str))

    @property
    def pip_packages(self) -> tuple[str, ...]:
        """Requirement lines, without pip's options."""
        return tuple(line for line in self._pip_lines() if not line.lstrip().startswith("-"))

    @property
    def pip_options(self) -> tuple[str, ...]:
        """Lines such as ``--index-url https://...``."""
        return tuple(line for line in self._pip_lines() if line.lstrip().startswith("-"))

    @property
    def conda_channels(self) -> tuple[str, ...]:
        """Where conda looks for what PyPI does not have."""
        return tuple(self._data.get("channels") or ())

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that a ``conda.yaml`` sets."""
        return dict(conda.variables(self._data.get("variables"), "the conda dependencies"))

    def take_variables(self) -> dict[str, str]:
        """Remove the environment variables and return them."""
        found = self.variables
        self._data.pop("variables", None)
        return found

    def add_conda_package(self, conda_package: str) -> None:
        """Add a package, or replace what was said about it."""
        name = conda.package_name(_text("conda_package", conda_package))
        kept = self._data["dependencies"]
        places = [i for i, item in enumerate(kept) if isinstance(item, str) and conda.package_name(item) == name]
        at = places[0] if places else len(self.conda_packages)
        kept[at : at + len(places[:1])] = [conda_package]

    def remove_conda_package(self, conda_package: str) -> None:
        """Remove a package, whatever its version; no matter if it is not there."""
        name = conda.package_name(_text("conda_package", conda_package))
        self._data["dependencies"] = [
            item for item in self._data["dependencies"] if isinstance(item, dict) or conda.package_name(item) != name
        ]

    def add_pip_package(self, pip_package: str) -> None:
        """Add a requirement, or replace the one on the same package."""
        name = _pip_name(_text("pip_package", pip_package))
        lines = self._pip_lines()
        place = next((i for i, line in enumerate(lines) if name and _pip_name(line) == name), None)
        if place is None:
            self._set_pip_lines([*lines, pip_package])
        else:
            self._set_pip_lines([*lines[:place], pip_package, *lines[place + 1 :]])

    def remove_pip_package(self, pip_package: str) -> None:
        """Remove a package, whatever its version; no matter if it is not there."""
        name = _pip_name(_text("pip_package", pip_package))
        self._set_pip_lines([line for line in self._pip_lines() if not name or _pip_name(line) != name])

    def set_pip_requirements(self, pip_requirements: Iterable[str]) -> None:
        """Replace all pip packages and options."""
        self._set_pip_lines(_texts("pip_requirements", pip_requirements))

    def set_pip_option(self, pip_option: str) -> None:
        """Add an option line such as ``--extra-index-url https://...``; once, however often it is set."""
        option = _text("pip_option", pip_option).strip()
        if not option.startswith("-"):
            raise UserErrorException(f"pip_option is {pip_option!r}; it must start with '-'")
        self._set_pip_lines([option, *(line for line in self._pip_lines() if line != option)])

    def set_pip_index_url(self, index_url: str) -> None:
        """Set the package index, in place of any before."""
        url = _text("index_url", index_url).strip().removeprefix("--index-url").strip(" =")
        self._set_pip_lines([line for line in self._pip_lines() if not line.startswith(("--index-url", "-i"))])
        self.set_pip_option(f"--index-url {url}")

    def add_channel(self, channel: str) -> None:
        """Add a channel, after those there are."""
        if _text("channel", channel) not in self.conda_channels:
            self._data["channels"] = [*self.conda_channels, channel]

    def remove_channel(self, channel: str) -> None:
        """Remove a channel; no matter if it is not there."""
        self._data["channels"] = [item for item in self.conda_channels if item != channel]

    def set_python_version(self, version: str) -> None:
        """Ask for a Python: ``"3.11"`` is any 3.11; ``">=3.10,<3.13"``."""
        python_specifier(_text("python_version", version), "python_version")
        self.add_conda_package(f"python={version}" if version[0].isdigit() else f"python{version}")

    def serialize_to_string(self) -> str:
        """Return the YAML text."""
        import yaml

        return str(yaml.safe_dump(self._data, sort_keys=False, allow_unicode=True))

    def save(self, path: _Path | None = None) -> str:
        """Write the YAML file, ``conda_dependencies.yml`` in the working directory by default; returns its path."""
        file = Path(DEFAULT_FILE if path is None else path)
        try:
            file.write_text(self.serialize_to_string(), encoding="utf-8")
        except OSError as error:
            raise UserErrorException(f"cannot write {str(file)!r}: {error.strerror}") from error
        return str(file)

    def save_to_file(self, base_directory: _Path, conda_file_path: _Path | None = None) -> str:
        """Write the YAML file below a folder; returns its path in there."""
        name = os.fspath(DEFAULT_FILE if conda_file_path is None else conda_file_path)
        self.save(Path(base_directory) / name)
        return name

    def _pip_lines(self) -> tuple[str, ...]:
        return tuple(line for item in self._data["dependencies"] if isinstance(item, dict) for line in item["pip"])

    def _set_pip_lines(self, lines: Iterable[str]) -> None:
        kept: list[Any] = [*self.conda_packages]
        lines = [*lines]
        self._data["dependencies"] = [*kept, {"pip": lines}] if lines else kept


def _pip_name(line: str) -> str:
    """Return the normalised name, whether or not the line's marker holds here."""
    return requirement_name(line.partition(";")[0].strip())


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserErrorException(f"{name} is {value!r}; it must be a text")
    return value


def _texts(name: str, values: object) -> tuple[str, ...]:
    if values is None:
        return ()
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise UserErrorException(f"{name} is {values!r}; it must be a list of texts")
    return tuple(_text(f"an item of {name}", value) for value in values)
