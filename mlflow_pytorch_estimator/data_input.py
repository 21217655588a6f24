"""Data that a job needs on its node: a folder or an artifact URI, of which the script gets a path."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from mlflow_pytorch_estimator.errors import ProjectError

# What MLflow can download. http(s) is not here: scripts are given addresses of services just as often.
_SCHEMES = (
    *("runs", "models", "mlflow-artifacts", "s3", "gs", "wasb", "wasbs", "abfs", "abfss", "adl", "dbfs", "hdfs"),
    *("viewfs", "r2", "b2", "oss", "ftp", "sftp", "uc-volume"),
)
_URI = re.compile(rf"({'|'.join(map(re.escape, _SCHEMES))}):/.*", re.DOTALL)
_FILE = re.compile(r"file:(//)?(?=/)")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class DataInput:
    """A folder or file of this machine, or an artifact URI (``runs:/``, ``models:/``, ``s3://``, ...).

    As a value in ``script_params`` or ``arguments`` it becomes a path on the node. In ``inputs`` the script finds the
    path in ``Run.get_context().input_datasets[name]`` and in the variable ``GPU_CLUSTER_INPUT_NAME``.
    ``mode="direct"`` passes the URI itself.
    """

    uri: str | os.PathLike[str]
    name: str | None = None
    mode: str = "download"

    def __post_init__(self) -> None:
        if self.mode not in {"download", "direct"}:
            raise ProjectError(f"mode of an input is {self.mode!r}; it must be 'download' or 'direct'")
        if self.name is not None and not (isinstance(self.name, str) and _NAME.fullmatch(self.name)):
            raise ProjectError(f"{self.name!r} cannot name an input: use letters, digits and _")
        if not isinstance(self.uri, (str, os.PathLike)) or not os.fspath(self.uri):
            raise ProjectError(f"an input is a path or an artifact URI, not {self.uri!r}")

    @property
    def remote(self) -> bool:
        """Whether it must be downloaded."""
        return self.mode == "download" and is_artifact_uri(os.fspath(self.uri))

    def origin(self) -> str:
        """The address, or the absolute path, as it is told to MLflow."""
        return os.fspath(self.uri) if self.remote or self.mode == "direct" else self.local_path()

    def local_path(self) -> str:
        """The absolute path of a local input; raises ProjectError when there is nothing."""
        text = os.fspath(self.uri)
        path = Path(_plain(text)).expanduser()
        if "\0" in text or not path.exists():
            if _ADDRESS.match(text):
                raise ProjectError(
                    f"the input {text!r} cannot be downloaded: give the address as text, or with mode='direct'"
                )
            whose = f" for the input {self.name}" if self.name else ""
            raise ProjectError(f"there is no file or folder {text!r}{whose}")
        return os.path.abspath(path)  # noqa: PTH100 - without `..`, but with the user's links


def is_artifact_uri(text: str) -> bool:
    """Whether a value names artifacts that MLflow can download."""
    return _URI.fullmatch(text) is not None


def _plain(text: str) -> str:
    """The path in a ``file:`` URI; any other text as it is."""
    return unquote(_FILE.sub("", text, count=1)) if _FILE.match(text) else text


@dataclass
class Downloads:
    """Collects what must be downloaded: placeholder -> URI. The same URI is fetched once."""

    uris: dict[str, str] = field(default_factory=dict)

    def path_of(self, item: DataInput) -> str:
        """A path, or a placeholder that the preparer replaces by one."""
        uri = os.fspath(item.uri)
        if not item.remote:
            return uri if item.mode == "direct" else item.local_path()
        for placeholder, known in self.uris.items():
            if known == uri:
                return placeholder
        # Random, so that no value of the user can look like it.
        placeholder = f"GPUCLUSTERINPUT{len(self.uris)}X{secrets.token_hex(4)}"
        self.uris[placeholder] = uri
        return placeholder
