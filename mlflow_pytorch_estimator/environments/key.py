"""The name of an environment in the cache: a hash of everything that decides what gets installed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import interpreters
from mlflow_pytorch_estimator.environments.localpath import content_hash, local_part
from mlflow_pytorch_estimator.environments.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORMAT = 1
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


def environment_key(
    packages: tuple[tuple[str, ...], tuple[str, ...]],
    interpreter: interpreters.Interpreter,
    project_dir: Path,
    environ: Mapping[str, str],
) -> str:
    """Return 16 hex digits; ``packages`` are requirements and constraints, ``environ`` is uv's."""
    material = {
        "format": _FORMAT,
        "packages": packages,
        "contents": [content_hash(project_dir / path) for path in _local_paths(packages)],
        "interpreter": interpreter.identity,
        "host": interpreters.host(),
        "uv": {name: redact(environ[name]) for name in _DECIDING if name in environ},
        "config": [_file_hash(path) for path in _uv_config(environ)],
    }
    return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()[:16]


def _local_paths(packages: tuple[tuple[str, ...], tuple[str, ...]]) -> list[str]:
    parts = [local_part(line) for lines in packages for line in lines]
    return [local.path for local in parts if local]


def _uv_config(environ: Mapping[str, str]) -> list[Path]:
    home = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/")) / ".config")
    named = environ.get("UV_CONFIG_FILE")
    return [Path(named)] if named else [home / "uv/uv.toml", Path("/etc/uv/uv.toml")]


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
