"""The command lines of docker and podman, as pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlflow_pytorch_estimator.containers.inside import enter
from mlflow_pytorch_estimator.spec import Container

_LONG = {
    "c": "cpu-shares",
    "d": "detach",
    "e": "env",
    "h": "hostname",
    "i": "interactive",
    "l": "label",
    "m": "memory",
} | {
    "p": "publish",
    "t": "tty",
    "u": "user",
    "v": "volume",
    "w": "workdir",
    "net": "network",
}


_MEMORY = {"ipc", "shm-size"}


@dataclass(frozen=True)
class Place:
    """Where a rank runs and as whom."""

    workdir: str
    uid: int
    gid: int
    cpus: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()
    mounts: tuple[str, ...] = ()
    """``SOURCE:TARGET[:OPTIONS]``, before those of the user."""


def option_names(words: Iterable[str]) -> list[str]:
    """The long names of the options among the words."""
    found = [word.lstrip("-").partition("=")[0] for word in words if word.startswith("-")]
    return [_LONG.get(name, name) for name in found]


def wrap(
    container: Container, argv: Sequence[str], environ_names: Sequence[str], name: str, place: Place
) -> tuple[str, ...]:
    """The command that runs ``argv`` in a container called ``name``; variables are passed by name, never by value."""
    options: dict[str, str] = {
        "name": name,
        "pull": "never",  # it was pulled before the job was queued
        "network": "host",  # for a server on this machine, and for ranks that look for each other
        **({"shm-size": container.shm_size} if container.shm_size else {"ipc": "host"}),
        "security-opt": "label=disable",  # SELinux would hide the user's own folders
        "stop-timeout": "0",  # the backend has waited already
        "workdir": place.workdir,
        **_user(container, place),
        **_of_runtime(container, place),
    }
    given = set(option_names(container.arguments))
    replaced = given - {"security-opt"} | (_MEMORY if given & _MEMORY else set())
    return (
        container.program or "docker",
        "run",
        "--rm",
        *(f"--{key}={value}" for key, value in options.items() if key not in replaced),
        *_home(place),
        *_gpus(container, place, given),
        *(word for mount in (*place.mounts, *container.volumes) for word in ("--volume", mount)),
        *(word for variable in environ_names for word in ("--env", variable)),
        *container.arguments,
        container.image_id or container.image,
        *enter(argv),
    )


def removal(container: Container, names: Sequence[str]) -> tuple[str, ...]:
    """The command that ends and removes containers, whether they are there or not."""
    ignore = ("--ignore",) if container.runtime == "podman" else ()
    return (container.program or "docker", "rm", "--force", *ignore, *names)


def _user(container: Container, place: Place) -> dict[str, str]:
    """So that what the job writes belongs to who submitted it."""
    if container.runtime == "podman" and container.rootless:
        return {"userns": "keep-id", "user": f"{place.uid}:{place.gid}"}
    return {"user": "0:0"} if container.rootless else {"user": f"{place.uid}:{place.gid}"}


def _of_runtime(container: Container, place: Place) -> dict[str, str]:
    if container.runtime == "podman":
        return {"log-driver": "passthrough"}  # straight into the rank's log, which needs no second copy
    cpus = (
        {"cpuset-cpus": ",".join(map(str, place.cpus))} if place.cpus else {}
    )  # podman's inherit the agent's affinity
    return {"log-driver": "none", **cpus}


def _home(place: Place) -> tuple[str, ...]:
    # A user whom the image does not know has the home `/`, where caches cannot be written.
    return () if place.uid == 0 else ("--env=HOME=/tmp",)


def _gpus(container: Container, place: Place, given: set[str]) -> tuple[str, ...]:
    if not place.gpus or "gpus" in given:
        return ()
    if container.runtime == "podman":
        return tuple(f"--device=nvidia.com/gpu={number}" for number in place.gpus)
    return (f'--gpus="device={",".join(map(str, place.gpus))}"',)  # docker's own quotes: it splits at commas
