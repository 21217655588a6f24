"""Names in the cache: hashes of everything that decides what gets installed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.accelerator import cuda_of_driver
from mlflow_pytorch_estimator.environments.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORMAT = 2
# uv's variables that decide which packages it takes; the others decide how fast.
_DECIDING = (
    "UV_CONFIG_FILE",
    "UV_CONSTRAINT",
    "UV_DEFAULT_INDEX",
    "UV_EXCLUDE_NEWER",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_INDEX",
    "UV_INDEX_STRATEGY",
    "UV_INDEX_URL",
    "UV_NO_BINARY",
    "UV_NO_BUILD",
    "UV_NO_CONFIG",
    "UV_NO_INDEX",
    "UV_OVERRIDE",
    "UV_PRERELEASE",
    "UV_RESOLUTION",
    "UV_TORCH_BACKEND",
)
_CONDA_DECIDING = ("CONDA_CHANNEL_ALIAS", "CONDA_CHANNEL_PRIORITY", "CONDA_SUBDIR")
_OVERRIDE = "CONDA_OVERRIDE_"
_OVERRIDE_CUDA = f"{_OVERRIDE}CUDA"


def deciding(environ: Mapping[str, str]) -> dict[str, object]:
    """Return uv's settings that decide what gets installed, without passwords."""
    return {
        "uv": {name: redact(environ[name]) for name in _DECIDING if name in environ},
        "config": [_file_hash(path) for path in _uv_config(environ)],
        # Only then does uv look at the machine, and takes the torch that its driver can run.
        "driver": cuda_of_driver() if environ.get("UV_TORCH_BACKEND") == "auto" else "",
    }


def conda_deciding(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what decides conda's choice besides the request: settings, and the driver that builds must run on."""
    names = [name for name in environ if name in _CONDA_DECIDING or name.startswith(_OVERRIDE)]
    cuda = {} if _OVERRIDE_CUDA in environ else {_OVERRIDE_CUDA: cuda_of_driver()}
    return {name: redact(environ[name]) for name in names} | cuda


def digest(material: Mapping[str, object]) -> str:
    """Return 16 hex digits over values of JSON types."""
    text = json.dumps({"format": _FORMAT, **material}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _uv_config(environ: Mapping[str, str]) -> list[Path]:
    home = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/")) / ".config")
    named = environ.get("UV_CONFIG_FILE")
    return [Path(named)] if named else [home / "uv/uv.toml", Path("/etc/uv/uv.toml")]


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
