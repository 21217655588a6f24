"""Run uv: its environment, its progress, its reasons."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.messages import reason
from mlflow_pytorch_estimator.environments.runner import CommandFailed
from mlflow_pytorch_estimator.errors import EnvironmentBuildError
from mlflow_pytorch_estimator.progress import Downloads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_pytorch_estimator.environments.runner import Runner

_INDEXES = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")
# Where the submitting process stands, how it would want a project of its own built, and its terminal's width, at which
# uv breaks the lines of its reasons.
_DROPPED = (
    "COLUMNS",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "UV_PYTHON",
    "UV_SYSTEM_PYTHON",
    "UV_TARGET",
    "UV_PREFIX",
    "__PYVENV_LAUNCHER__",
)
_DROPPED_GROUPS = ("PYTHON", "UV_PROJECT", "UV_VENV", "UV_WORKING_DIR")
_PROGRESS = re.compile(r"\s*(Prepared|Installed|Building|Updating) \S")


@dataclass(frozen=True)
class Uv:
    """Runs uv commands on behalf of one build."""

    environ: Mapping[str, str]
    runner: Runner

    def run(self, *arguments: str, limit: float | None = None) -> str:
        """Return the output of ``uv *arguments``; EnvironmentBuildError with its reason when it fails."""
        from uv import find_uv_bin

        self.runner.log.write(f"$ uv {' '.join(arguments)}\n")
        downloads = Downloads(self.runner.measured)

        def noted(line: str) -> None:
            downloads.note(line)
            if _PROGRESS.match(line):
                self.runner.say(line.strip())

        try:
            return self.runner.run([find_uv_bin(), *arguments], self.environ, limit=limit, noted=noted)
        except CommandFailed as error:
            words = str(error) if error.status < 0 else reason(error.output)
            raise EnvironmentBuildError(words or str(error)) from None


def uv_environment(environ: Mapping[str, str], requirements: tuple[str, ...], cache_dir: Path) -> dict[str, str]:
    """Return the variables that uv runs with: the user's, pip's indexes in uv's words, ours on top."""
    result = {
        name: value
        for name, value in environ.items()
        if name.startswith("UV_PYTHON_") or not (name in _DROPPED or name.startswith(_DROPPED_GROUPS))
    }
    options = {line.partition(" ")[0] for line in requirements if line.startswith("--")}
    extra = "--extra-index-url" in options
    if not any(result.get(name) for name in _INDEXES):
        # As variables, never as arguments: they may hold a password.
        if result.get("PIP_INDEX_URL") and "--index-url" not in options:
            result["UV_DEFAULT_INDEX"] = result["PIP_INDEX_URL"]
        pip_extra = [url for url in result.get("PIP_EXTRA_INDEX_URL", "").split() if url.startswith("http")]
        if pip_extra:
            result["UV_INDEX"] = " ".join(pip_extra)
            extra = True
    if extra:
        # Such lists were written for pip, which takes the best version of all indexes, not the first index.
        result.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    if "--pre" in options:
        result["UV_PRERELEASE"] = "allow"  # uv does not read it from a requirements file
    if _device(_uv_cache(result)) != _device(cache_dir):
        result.setdefault("UV_LINK_MODE", "copy")  # hard links cannot: without this, uv warns
    result.pop("UV_NO_PROGRESS", None)  # what it downloads is shown
    return result | {"NO_COLOR": "1"}


def _uv_cache(environ: Mapping[str, str]) -> Path:
    home = Path(environ.get("HOME") or Path.home())
    return Path(environ.get("UV_CACHE_DIR") or Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "uv")


def _device(path: Path) -> int:
    """Return the device of the folder, or of where it will be made."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists()).stat().st_dev
