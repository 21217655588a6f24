"""A script and its packages, as they are said on a command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from mlflow_pytorch_estimator.environments import EnvironmentSpec
from mlflow_pytorch_estimator.environments.description.described import (
    PackageRequest,
    SourceNames,
    describe,
    framework_requirements,
)
from mlflow_pytorch_estimator.estimator.exceptions import TrainingException
from mlflow_pytorch_estimator.script_source import ScriptSource

_SHELLS = {".sh", ".bash", ".zsh"}
_NAMES = SourceNames("--pip", "--conda", "--requirements", "--conda-file", "--framework-version")


@dataclass(frozen=True)
class Packages:
    """What the environment of a script is to have."""

    pip: tuple[str, ...]
    conda: tuple[str, ...]
    requirements: str | None
    conda_file: str | None
    framework_version: str | None
    local: bool
    """The interpreter that submits, as it is."""

    def __call__(self, root: Path) -> EnvironmentSpec:
        """The environment; files are looked for from ``root``."""
        if self.local:
            return EnvironmentSpec("local", None, (), (), "local")
        version = self.framework_version
        return describe(
            root,
            PackageRequest(
                pip=self.pip,
                conda=self.conda,
                requirements_file=_path(self.requirements),
                conda_file=_path(self.conda_file),
                framework=() if self.conda_file and version is None else framework_requirements(version),
                names=_NAMES,
            ),
        )

    def check(self) -> None:
        """Raise UsageError when ``local`` stands beside packages."""
        others = (self.pip, self.conda, self.requirements, self.conda_file, self.framework_version)
        if self.local and any(others):
            raise click.UsageError("--env-manager local takes the interpreter as it is: leave out the packages")


def source(
    script: str, arguments: tuple[str, ...], folder: str | None, packages: Packages, variables: Mapping[str, str]
) -> ScriptSource:
    """The script as the source of a job; raises UsageError, TrainingException or EnvironmentSpecError."""
    from mlflow_pytorch_estimator.estimator import training

    packages.check()
    path = Path(script)
    if not (Path(folder) / path if folder else path).exists():
        where = f" in --source {folder}" if folder else ""
        raise click.UsageError(f"there is no script {script!r}{where}")
    if path.is_dir():
        raise click.UsageError(f"{script!r} is a folder: name the script to run; projects are for `gpu-cluster run`")
    try:
        top = training.folder(folder, "--source") if folder else path.absolute().parent
        entry = training.entry(top, path.name if folder is None else script, "SCRIPT", "--source")
    except TrainingException as error:
        raise click.UsageError(str(error)) from error
    _check_python(top / entry)
    words = tuple(training.text_word(f"argument {number}", word) for number, word in enumerate(arguments, 1))
    packages(top)  # a mistake shows here, not at submission
    return ScriptSource(
        top,
        ("python", entry, *words),
        packages,
        entry,
        parameters=training.parameters_of(words),
        environment_variables=training.variables(variables),
    )


def _check_python(script: Path) -> None:
    with script.open("rb") as handle:
        first = handle.readline(200)
    shell = script.suffix in _SHELLS or (first.startswith(b"#!") and b"python" not in first)
    if shell:
        raise click.UsageError(
            f"{script.name} is no Python script; commands of other kinds are entry points of an MLproject: "
            "`gpu-cluster run`"
        )


def _path(name: str | None) -> Path | None:
    return Path(name).absolute() if name else None  # a shell completes from where it is, not from the sources
