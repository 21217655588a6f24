"""docker and podman on this machine: which one, whether it has the image, and what it must not leave behind."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator import keeper
from mlflow_pytorch_estimator.containers.argv import removal
from mlflow_pytorch_estimator.errors import ConfigError, EnvironmentBuildError
from mlflow_pytorch_estimator.spec import Container

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.environments.runner import Runner

_LIMIT_SECONDS = 60.0
_LAYER = re.compile(r"Copying blob (?:sha256:)?([0-9a-f]+)|([0-9a-f]+): Pulling fs layer")


@dataclass(frozen=True)
class _Answer:
    status: int
    text: str
    """What it printed, or in a failure what it complained of."""

    @property
    def last_line(self) -> str:
        return (self.text.strip().splitlines() or [f"status {self.status}"])[-1].removeprefix("Error: ")


def choose(container: Container, scheduler: str, ranks: int = 1) -> Container:
    """The container with the runtime of this machine that has its image, or else the first; ConfigError for none.

    docker comes first where both work: that is where MLflow's own ``docker_env`` looks for images.
    """
    if scheduler != "local":
        raise ConfigError(
            f"image {container.image}: only the local scheduler runs containers, not {scheduler!r}; "
            "leave the image out and name the packages"
        )
    if ranks > 1:
        raise ConfigError(f"image {container.image}: this version runs one rank in a container, not {ranks}; use 1")
    problems: list[str] = []
    usable = list(_usable(container, problems))
    if not usable:
        known = "; ".join(problems) or "neither docker nor podman is installed"
        raise ConfigError(
            f"image {container.image}: no container runtime works on this machine ({known}): "
            "install podman, start docker's engine, or name packages instead of an image"
        )
    for candidate in usable:
        image_id = _image_id(candidate)
        if image_id is not None:
            return replace(candidate, image_id=image_id)
    return usable[0]


def ensure_image(
    container: Container, runner: Runner, environ: Mapping[str, str], *, upgrade: bool = False
) -> Container:
    """The container with its image on this machine, pulled if need be; EnvironmentBuildError says why it is not.

    ``upgrade`` pulls it in any case: its name may mean something newer by now.
    """
    found = None if upgrade else container.image_id or _image_id(container)
    if found is None:
        _pull(container, runner, environ)
        found = _image_id(container)
    if found is None:
        raise EnvironmentBuildError(f"{container.runtime} has pulled {container.image}, but does not have it")
    return replace(container, image_id=found)


def _pull(container: Container, runner: Runner, environ: Mapping[str, str]) -> None:
    from mlflow_pytorch_estimator.environments.runner import CommandFailed

    started = time.monotonic()
    layers: set[str] = set()

    def count(line: str) -> None:
        found = _LAYER.match(line)
        if found and (found[1] or found[2]) not in layers:
            layers.add(found[1] or found[2])
            runner.say(f"pulling layer {len(layers)} of {container.image}")

    runner.say(f"pulling {container.image} with {container.runtime}")
    try:
        runner.run([container.program or "docker", "pull", container.image], environ, noted=count)
    except CommandFailed as error:
        reason = _Answer(error.status, error.output).last_line
        raise EnvironmentBuildError(
            f"cannot pull the image {container.image} with {container.runtime}: {reason}; check the name, "
            f"log in with `{container.runtime} login`, or build the image on this machine"
        ) from error
    runner.say(f"image {container.image} ready in {time.monotonic() - started:.1f} s")


def remove(container: Container | None, names: Sequence[str]) -> None:
    """End and remove what is left of these containers; the engine may have gone itself."""
    if container is not None and container.program is not None:
        keeper.tidy_up(list(removal(container, names)))


def freeze(container: Container) -> str:
    """What the job runs with, for ``environment.txt``."""
    return f"image {container.image}\nid {container.image_id}\nruntime {container.runtime}\n"


def _usable(container: Container, problems: list[str]) -> Iterator[Container]:
    """The container with each runtime that answers; ``problems`` gets what the others say."""
    for name, question in (
        ("docker", "{{.SecurityOptions}}"),
        ("podman", "{{.Host.Security.Rootless}}"),
    ):
        program = shutil.which(name)
        if program is None or (name == "docker" and _is_podman(program)):
            continue  # what calls itself docker may be podman, which comes next
        try:
            answer = _ask((program, "info", "--format", question))
        except (OSError, subprocess.TimeoutExpired) as error:
            problems.append(f"{name}: {error}")
            continue
        if answer.status:
            problems.append(f"{name}: {answer.last_line}")
        else:
            rootless = "rootless" in answer.text if name == "docker" else answer.text.strip() == "true"
            yield replace(container, runtime=name, program=program, rootless=rootless)


def _is_podman(program: str) -> bool:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return "podman" in _ask((program, "--version")).text.lower()
    return False


def _image_id(container: Container) -> str | None:
    argv = (container.program or "docker", "image", "inspect", "--format", "{{.Id}}", container.image)
    try:
        answer = _ask(argv)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.text.strip() or None if answer.status == 0 else None


def _ask(argv: Sequence[str]) -> _Answer:
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=_LIMIT_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    return _Answer(done.returncode, done.stdout if done.returncode == 0 else done.stderr or done.stdout)
