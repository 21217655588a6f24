"""The description of a job's environment: what is stored in ``job.json``."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlflow_pytorch_estimator.environments.description.localpath import local_part

BUILT = frozenset({"uv", "conda"})
"""The managers that build something; the others take what is there."""


@dataclass(frozen=True)
class EnvironmentSpec:
    """Interpreter and packages that a project asks for; what is stored of it holds no secrets."""

    manager: str
    """``"uv"`` or ``"conda"`` (build and cache), ``"local"`` (the submitting interpreter), or ``"container"`` (what the
    image has)."""
    python: str | None
    """PEP 440 specifier such as ``>=3.10`` or ``==3.11.*``; None: any."""
    requirements: tuple[str, ...]
    """Lines of a requirements file; local paths are ``./inside/the/project`` or absolute."""
    constraints: tuple[str, ...]
    source: str
    """Where it was read (``conda.yaml``, ``requirements.txt``, ``local``, ``none``), for messages only."""
    conda: tuple[str, ...] = ()
    """Match specifications that conda installs, python and pip among them; empty unless it is the manager."""
    channels: tuple[str, ...] = ()
    """Where conda looks, most important first."""
    horovod: bool = False
    """Whether Horovod is built for the torch of this environment; no requirement names it then."""
    variables: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)
    """Environment variables that a ``conda.yaml`` sets, for whoever submits: they may be secret, so they are neither
    stored nor shown, and no part of what is built."""

    @property
    def has_local_paths(self) -> bool:
        """Whether a requirement lies in the project or elsewhere on this machine."""
        return any(local_part(line) for line in (*self.requirements, *self.constraints))

    def to_json(self) -> dict[str, object]:
        """Return the description in JSON types."""
        return {
            "manager": self.manager,
            "python": self.python,
            "requirements": list(self.requirements),
            "constraints": list(self.constraints),
            "source": self.source,
            "conda": list(self.conda),
            "channels": list(self.channels),
            "horovod": self.horovod,
        }

    @classmethod
    def from_json(cls, data: dict[str, object]) -> EnvironmentSpec:
        """Rebuild what ``to_json`` returned; TypeError or KeyError when it is something else."""
        python = data["python"]
        if python is not None and not isinstance(python, str):
            raise TypeError(f"python must be a string or null, not {python!r}")
        return cls(
            manager=_text(data["manager"]),
            python=python,
            requirements=_lines(data["requirements"]),
            constraints=_lines(data["constraints"]),
            source=_text(data["source"]),
            conda=_lines(data.get("conda", ())),
            channels=_lines(data.get("channels", ())),
            horovod=data.get("horovod") is True,
        )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string, not {value!r}")
    return value


def _lines(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"expected a list of strings, not {value!r}")
    return tuple(_text(line) for line in value)
