"""Whether the ranks of a job reach their tracking store by themselves, or through the job directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from mlflow_pytorch_estimator import jobdir
from mlflow_pytorch_estimator.errors import ConfigError
from mlflow_pytorch_estimator.secretvalues import without_password

_LOCAL = "local"


@dataclass(frozen=True)
class Way:
    """How MLflow calls of the ranks reach the store, and what the user should know about that."""

    relay: bool = False
    notices: tuple[str, ...] = ()


def choose(
    scheduler: str, tracking_uri: str | None, artifacts: Callable[[], str], *, asked: bool | None, shared: bool = True
) -> Way:
    """The way for a job of ``scheduler``; ConfigError for one that cannot be.

    ``artifacts()`` is where the runs of the experiment put their files, ``asked`` the setting ``relay``,
    ``shared`` whether nodes see the job directory.
    """
    if scheduler == _LOCAL:
        if asked:
            raise ConfigError(
                "relay is for jobs on the nodes of a cluster; the scheduler local needs none: leave it out"
            )
        return Way()
    if not shared:
        if asked:
            raise ConfigError("relay goes through the job directory, which needs shared_filesystem: leave it out")
        return Way()
    near = only_from_here(tracking_uri or "")
    relay = near if asked is None else asked
    uri = without_password(tracking_uri or "")
    if near and not relay:
        return Way(relay, (f"nodes may not reach the tracking store {uri}, and relay is false: their calls may fail",))
    notices = []
    if near:
        notices.append(f"nodes do not reach the tracking store {uri}: the ranks' calls go through the job directory")
    if relay and not _shared(place := artifacts()):
        where = f"{without_password(place)}, which is on another file system than {jobdir.home()}"
        notices.append(f"artifacts that the ranks log themselves go to {where}: nodes must see it, or use outputs/")
    return Way(relay, tuple(notices))


def only_from_here(uri: str) -> bool:
    """Whether a store is one of this machine: SQLite, files, or a server that listens to itself."""
    parts = urlsplit(uri)
    if parts.scheme in {"http", "https"}:
        return _is_loopback(parts.hostname or "")
    return parts.scheme in {"", "file", "sqlite"} and uri != "databricks"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _shared(artifacts: str) -> bool:
    """Whether a place for artifacts is reached by nodes that reach the job directory, as far as this machine knows."""
    parts = urlsplit(artifacts)
    if parts.scheme not in {"", "file"}:
        return True
    return _device(Path(parts.path)) == _device(jobdir.home())


def _device(path: Path) -> int:
    """The file system of a path that may not exist yet."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path.stat().st_dev
