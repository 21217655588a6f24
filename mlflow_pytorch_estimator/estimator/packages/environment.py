"""``Environment``: interpreter, packages and variables of a job, in the successor's spelling."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from mlflow_pytorch_estimator.containers import describing
from mlflow_pytorch_estimator.environments import EnvironmentSpec, PackageRequest, SourceNames, describe
from mlflow_pytorch_estimator.environments.description.requirements import standalone_lines
from mlflow_pytorch_estimator.errors import ConfigError, EnvironmentSpecError
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.packages import existing_conda
from mlflow_pytorch_estimator.estimator.packages import files as environment_files
from mlflow_pytorch_estimator.estimator.packages.build import EnvironmentBuild
from mlflow_pytorch_estimator.estimator.packages.conda_dependencies import DEFAULT_FILE, CondaDependencies
from mlflow_pytorch_estimator.estimator.packages.sections import DockerSection, PythonSection, Section
from mlflow_pytorch_estimator.spec import Container

_Path = str | os.PathLike[str]
_NO_DOCKERFILE = "images are not built here: build it with `docker build` or `podman build`, and give from_docker_image"
_NO_REGISTRY = (
    "environments are not registered anywhere: keep them beside the code with save_to_directory(path) and "
    "load_from_directory(path), or in a conda.yaml with from_conda_specification(name, path)"
)


class Environment(Section):
    """A named description; nothing is built before a job, or ``build``, needs it.

    UserErrorException for an attribute that would have no effect here.
    """

    kinds: ClassVar[dict[str, type | tuple[type, ...]]] = {
        "name": str,
        "version": (str, type(None)),
        "environment_variables": Mapping,
        "python": PythonSection,
        "docker": DockerSection,
    }

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name.strip():
            raise UserErrorException(f"name is {name!r}; an environment needs one")
        self.name: str = name
        self.version: str | None = None
        self.environment_variables: dict[str, str] = {}
        self.python: PythonSection = PythonSection()
        self.docker: DockerSection = DockerSection()

    def __setattr__(self, name: str, value: object) -> None:
        own = dict(value) if name == "environment_variables" and isinstance(value, Mapping) else value
        super().__setattr__(name, own)

    def __repr__(self) -> str:
        return f"Environment({self.name!r})"

    def describe(self, root: Path) -> EnvironmentSpec:
        """Return what a job with the source directory ``root`` gets; EnvironmentSpecError for what cannot be had."""
        variables = tuple(self.python.conda_dependencies.variables.items())
        return replace(self._described(root), variables=variables)

    def _described(self, root: Path) -> EnvironmentSpec:
        packages = self.python.conda_dependencies
        pip = (*packages.pip_options, *packages.pip_packages)
        container = self.container()
        if container is not None:
            self._check_image(container.image, (*packages.conda_packages, *pip))
            return describing.environment(container)
        if self.python.user_managed_dependencies:
            self._check_user_managed((*packages.conda_packages, *pip))
            return EnvironmentSpec("local", None, (), (), "local")
        if self.python.interpreter_path != "python":
            raise EnvironmentSpecError(
                f"environment {self.name!r}: interpreter_path {self.python.interpreter_path!r} needs "
                "user_managed_dependencies=True; for packages, ask for a version with set_python_version"
            )
        names = SourceNames(
            pip=f"the pip packages of environment {self.name!r}",
            conda=f"the conda packages of environment {self.name!r}",
        )
        request = PackageRequest(pip, packages.conda_packages, packages.conda_channels, names=names)
        return describe(root, request)

    def container(self) -> Container | None:
        """Return the image that jobs run in, if there is one; EnvironmentSpecError for what cannot be had."""
        docker = self.docker
        if docker.base_dockerfile is not None:
            raise EnvironmentSpecError(f"environment {self.name!r}: docker.base_dockerfile: {_NO_DOCKERFILE}")
        if docker.base_image is None:
            alone = next((name for name in ("enabled", "shm_size", "arguments") if getattr(docker, name)), None)
            if alone:
                raise EnvironmentSpecError(f"environment {self.name!r}: docker.{alone} needs docker.base_image")
            return None
        try:
            found = describing.describe(docker.base_image, docker.shm_size, names=("base_image", "shm_size"))
            return describing.add_arguments(found, docker.arguments)
        except ConfigError as error:
            raise EnvironmentSpecError(f"environment {self.name!r}: docker: {error}") from None

    def clone(self, new_name: str) -> Environment:
        """Return an independent copy."""
        cloned = Environment(new_name)
        cloned.environment_variables = self.environment_variables
        cloned.python, cloned.docker = copy.deepcopy((self.python, self.docker))
        return cloned

    def build(self, workspace: object = None, *, upgrade: bool = False) -> EnvironmentBuild:
        """Prepare it now for all jobs to come on this machine; EnvironmentBuildError holds the installer's reason.

        Relative paths in it start at the working directory. ``upgrade`` takes the newest packages that it admits, not
        the versions of last time; jobs to come get them as well.
        """
        return EnvironmentBuild.run(self.describe(Path.cwd()), upgrade=upgrade)

    def build_local(self, workspace: object = None) -> EnvironmentBuild:
        """Do as ``build``: there is no other place."""
        return self.build(workspace)

    def save_to_directory(self, path: _Path, overwrite: bool = False) -> None:
        """Write it to a folder, variables included: what looks like a secret among them is warned about."""
        settings: dict[str, Any] = {
            "name": self.name,
            "version": self.version,
            "environment_variables": {name: str(value) for name, value in self.environment_variables.items()},
            "python": {
                "user_managed_dependencies": self.python.user_managed_dependencies,
                "interpreter_path": self.python.interpreter_path,
            },
            "docker": dict(vars(self.docker)),
        }
        dependencies = self.python.conda_dependencies.serialize_to_string()
        environment_files.write(Path(path), settings, dependencies, overwrite=overwrite)

    @staticmethod
    def load_from_directory(path: _Path) -> Environment:
        """Read what ``save_to_directory`` wrote."""
        settings = environment_files.read_settings(Path(path))
        loaded = Environment(settings["name"])
        loaded.version = settings["version"]
        loaded.environment_variables = settings["environment_variables"]
        for section, name in ((loaded.python, "python"), (loaded.docker, "docker")):
            for key, value in settings[name].items():
                setattr(section, key, value)
        loaded.python.conda_dependencies = CondaDependencies(Path(path) / DEFAULT_FILE)
        return loaded

    @staticmethod
    def from_conda_specification(name: str, file_path: _Path) -> Environment:
        """Read a ``conda.yaml``."""
        return _with_dependencies(name, CondaDependencies(file_path))

    @staticmethod
    def from_pip_requirements(name: str, file_path: _Path, pip_version: str | None = None) -> Environment:
        """Read a requirements file; relative paths in it start at its folder."""
        dependencies = CondaDependencies.create(conda_packages=[f"pip={pip_version}"] if pip_version else None)
        dependencies.set_pip_requirements(standalone_lines(Path(file_path)))
        return _with_dependencies(name, dependencies)

    @staticmethod
    def from_existing_conda_environment(name: str, conda_environment_name: str) -> Environment:
        """Read the packages of a conda environment on this machine; needs the ``conda`` command."""
        return _with_dependencies(name, existing_conda.export(conda_environment_name))

    @staticmethod
    def from_docker_image(name: str, image: str) -> Environment:
        """Name an image that has what jobs need; log in to its registry with ``docker login`` or ``podman login``."""
        created = Environment(name)
        created.python.user_managed_dependencies = True
        created.docker.base_image = image
        return created

    @staticmethod
    def from_dockerfile(name: str, dockerfile: object, *arguments: object, **options: object) -> NoReturn:
        """Refuse: images are not built here."""
        raise UserErrorException(f"dockerfile: {_NO_DOCKERFILE}")

    def register(self, workspace: object) -> NoReturn:
        """Refuse: MLflow has no place for environments."""
        raise UserErrorException(_NO_REGISTRY)

    @staticmethod
    def get(workspace: object, name: str, version: str | None = None) -> NoReturn:
        """Refuse: MLflow has no place for environments."""
        raise UserErrorException(f"there is no environment {name!r}: {_NO_REGISTRY}")

    @staticmethod
    def list(workspace: object) -> NoReturn:
        """Refuse: MLflow has no place for environments."""
        raise UserErrorException(_NO_REGISTRY)

    def _check_image(self, image: str, packages: tuple[str, ...]) -> None:
        if packages:
            raise EnvironmentSpecError(
                f"environment {self.name!r}: the image {image} brings its own packages: "
                f"leave out {', '.join(packages)}, or build an image that has them"
            )

    def _check_user_managed(self, packages: tuple[str, ...]) -> None:
        if packages:
            raise EnvironmentSpecError(
                f"environment {self.name!r}: user_managed_dependencies=True takes the interpreter as it is: "
                f"leave out {', '.join(packages)}, or install them there"
            )
        path = self.python.interpreter_path
        if path == "python" or _is_this_interpreter(path):
            return
        if not Path(path).is_file():
            raise EnvironmentSpecError(f"environment {self.name!r}: there is no interpreter_path {path!r}")
        raise EnvironmentSpecError(
            f"environment {self.name!r}: user-managed jobs run with the interpreter that submits them "
            f"({sys.executable}): submit with {path}, or leave interpreter_path out"
        )


def _with_dependencies(name: str, dependencies: CondaDependencies) -> Environment:
    created = Environment(name)
    created.environment_variables = dependencies.take_variables()
    created.python.conda_dependencies = dependencies
    return created


def _is_this_interpreter(path: str) -> bool:
    """Compare folders and files: two virtual environments may link to one and the same file."""
    given, ours = Path(os.path.abspath(path)), Path(os.path.abspath(sys.executable))  # noqa: PTH100 - links stay links
    return given.parent.resolve() == ours.parent.resolve() and given.resolve() == ours.resolve()
