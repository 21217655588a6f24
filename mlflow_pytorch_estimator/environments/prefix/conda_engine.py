"""Run mamba, micromamba, conda or py-rattler: a prefix from match specifications, or from the packages of a lock."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.runner import CommandFailed
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_pytorch_estimator.environments.prefix.conda_meta import CondaPackage
    from mlflow_pytorch_estimator.environments.runner import Runner

NAMES = ("mamba", "micromamba", "conda", "py-rattler")
"""What is looked for, in this order."""
HINT = "install one ('pip install mlflow-pytorch-estimator[conda]' brings py-rattler, which is enough)"
_VARIABLES = {"mamba": "MAMBA_EXE", "micromamba": "MAMBA_EXE", "conda": "CONDA_EXE"}
_LIBRARY = "rattler"
_SCRIPT = Path(__file__).with_name("rattler_create.py")
# Where the submitting process stands; CONDA_PKGS_DIRS and the like are the user's settings and stay.
_DROPPED = (
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "CONDA_SHLVL",
    "CONDA_PROMPT_MODIFIER",
    "MAMBA_NO_BANNER",
)
_REASON = re.compile(r"\w+Error:|(error|critical)\s+libmamba|Could not solve|error:")
_ADVERTISEMENT = "To search for alternate channels"
_MOST_LINES = 15


@dataclass(frozen=True)
class Engine:
    """A program that creates conda environments."""

    name: str
    """One of ``NAMES``."""
    program: str

    def create(
        self, prefix: Path, specs: Sequence[str], channels: Sequence[str], runner: Runner, environ: Mapping[str, str]
    ) -> None:
        """Solve and install; only ``channels`` are looked at. EnvironmentBuildError with the reason."""
        where = [word for channel in channels for word in ("--channel", channel)]
        self._run([*self._create(prefix), "--override-channels", *where, *specs], runner, environ)

    def create_explicit(
        self, prefix: Path, packages: Sequence[CondaPackage], runner: Runner, environ: Mapping[str, str]
    ) -> None:
        """Install exactly what ``conda_meta.packages`` found elsewhere, without solving."""
        with tempfile.TemporaryDirectory(prefix="gpu-cluster-conda-") as folder:
            file = Path(folder) / "explicit.txt"
            file.write_text("\n".join(["@EXPLICIT", *(package.line for package in packages), ""]), encoding="utf-8")
            self._run([*self._create(prefix), "--file", str(file)], runner, environ)

    def _create(self, prefix: Path) -> list[str]:
        # The user's conda may add packages of its own to each new environment.
        alone = ["--no-default-packages"] if self.name == "conda" else []
        return [self.program, "create", "--yes", "--quiet", "--prefix", str(prefix), *alone]

    def _run(self, argv: Sequence[str], runner: Runner, environ: Mapping[str, str]) -> None:
        runner.log.write(f"$ {self.name} {' '.join(argv[1:])}\n")
        try:
            runner.run(argv, engine_environment(environ))
        except CommandFailed as error:
            raise EnvironmentBuildError(f"{self.name}: {_reason(error.output) or error}") from None


class RattlerEngine(Engine):
    """The library py-rattler, in a process of its own."""

    def create(
        self, prefix: Path, specs: Sequence[str], channels: Sequence[str], runner: Runner, environ: Mapping[str, str]
    ) -> None:
        """Solve and install; only ``channels`` are looked at. EnvironmentBuildError with the reason."""
        where = [f"--channel={channel}" for channel in channels]
        self._run([*self._create(prefix), *where, "--", *specs], runner, environ)

    def create_explicit(
        self, prefix: Path, packages: Sequence[CondaPackage], runner: Runner, environ: Mapping[str, str]
    ) -> None:
        """Install exactly what ``conda_meta.packages`` found elsewhere, without solving."""
        # A file in memory: nothing is left of it when the builder is killed.
        with os.fdopen(os.memfd_create("lock"), "w", encoding="utf-8") as lock:
            json.dump([asdict(package) for package in packages], lock)
            lock.flush()
            file = f"/proc/{os.getpid()}/fd/{lock.fileno()}"
            self._run([*self._create(prefix), f"--lock={file}"], runner, environ)

    def _create(self, prefix: Path) -> list[str]:
        return [self.program, "-I", str(_SCRIPT), f"--prefix={prefix}"]


def find(environ: Mapping[str, str]) -> Engine | None:
    """Return the engine to use, the first of ``NAMES`` that is here; starts no process."""
    for name, variable in _VARIABLES.items():
        said = environ.get(variable, "")
        named = [said] if Path(said).name == name else []
        for candidate in (*named, name):
            program = shutil.which(candidate, path=environ.get("PATH"))
            if program and (name != "mamba" or candidate == said or _is_conda_prefix(program)):
                return Engine(name, program)
    return RattlerEngine("py-rattler", sys.executable) if importlib.util.find_spec(_LIBRARY) else None


def installed(environ: Mapping[str, str]) -> Engine:
    """Return the engine to use; EnvironmentBuildError when there is none."""
    engine = find(environ)
    if engine is None:
        raise EnvironmentBuildError(f"no conda is here to build the environment with ({', '.join(NAMES)}): {HINT}")
    return engine


def engine_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an engine runs with: the user's, without those of a Python around it."""
    kept = {name: value for name, value in environ.items() if name not in _DROPPED and not name.startswith("PYTHON")}
    return kept | {"NO_COLOR": "1", "CONDA_NUMBER_CHANNEL_NOTICES": "0"}


def _is_conda_prefix(program: str) -> bool:
    # A testing tool on PyPI has a command of the same name.
    return (Path(program).resolve().parent.parent / "conda-meta").is_dir()


def _reason(output: str) -> str:
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    starts = [index for index, line in enumerate(lines) if _REASON.match(line.strip())]
    kept = lines[starts[0] :] if starts else lines[-3:]
    kept = kept[: next((index for index, line in enumerate(kept) if line.startswith(_ADVERTISEMENT)), None)]
    if len(kept) > _MOST_LINES:
        kept = [*kept[:_MOST_LINES], "..."]
    return "\n  ".join(line.strip() for line in kept).removeprefix("error: ")
