"""The sections of an ``Environment``: only what has an effect can be set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.packages.conda_dependencies import CondaDependencies


class Section:
    """Attributes of known names and kinds; an unknown one raises instead of doing nothing."""

    kinds: ClassVar[dict[str, type | tuple[type, ...]]] = {}
    title: ClassVar[str] = "environment"

    def __setattr__(self, name: str, value: object) -> None:
        kind = self.kinds.get(name)
        if kind is None:
            known = ", ".join(self.kinds)
            raise UserErrorException(f"{self.title}.{name} is not supported here and would do nothing (known: {known})")
        if not isinstance(value, kind):
            wanted = " or ".join(item.__name__ for item in (kind if isinstance(kind, tuple) else (kind,)))
            raise UserErrorException(f"{self.title}.{name} is {value!r}; it must be a {wanted}")
        object.__setattr__(self, name, value)


class PythonSection(Section):
    """Which interpreter and packages."""

    title = "environment.python"
    kinds: ClassVar[dict[str, type | tuple[type, ...]]] = {
        "user_managed_dependencies": bool,
        "interpreter_path": str,
        "conda_dependencies": CondaDependencies,
    }

    def __init__(self) -> None:
        self.user_managed_dependencies: bool = False
        self.interpreter_path: str = "python"
        self.conda_dependencies: CondaDependencies = CondaDependencies()


class DockerSection(Section):
    """The image that jobs run in; it brings interpreter and packages."""

    title = "environment.docker"
    kinds: ClassVar[dict[str, type | tuple[type, ...]]] = {
        "enabled": bool,
        "base_image": (str, type(None)),
        "base_dockerfile": (str, type(None)),
        "shm_size": (str, type(None)),
        "arguments": (list, tuple),
    }

    def __init__(self) -> None:
        self.enabled: bool = False
        self.base_image: str | None = None
        self.base_dockerfile: str | None = None
        self.shm_size: str | None = None
        self.arguments: list[str] = []


class DockerConfiguration(Section):
    """How a ``ScriptRunConfig`` runs the image of its environment."""

    title = "docker_runtime_config"
    kinds: ClassVar[dict[str, type | tuple[type, ...]]] = {
        "use_docker": bool,
        "shared_volumes": bool,
        "arguments": (list, tuple),
        "shm_size": (str, type(None)),
    }

    def __init__(
        self,
        use_docker: bool = False,
        shared_volumes: bool = True,
        arguments: Sequence[str] | None = None,
        shm_size: str | None = None,
    ) -> None:
        self.use_docker: bool = use_docker
        self.shared_volumes: bool = shared_volumes
        self.arguments: Sequence[str] = list(arguments or ())
        self.shm_size: str | None = shm_size
        if not shared_volumes:
            raise UserErrorException("shared_volumes=False is not supported: the job works in a folder of this machine")
