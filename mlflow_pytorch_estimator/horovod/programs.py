"""The programs of one build: run with the user's variables, on behalf of one runner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.uv import Uv, uv_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlflow_pytorch_estimator.environments.runner import Runner


@dataclass(frozen=True)
class Programs:
    """Runs compilers and interpreters, and uv."""

    runner: Runner
    environ: Mapping[str, str]

    @property
    def plain(self) -> dict[str, str]:
        """Return the variables without those that lead an interpreter elsewhere."""
        dropped = {"VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
        return {
            name: value for name, value in self.environ.items() if not name.startswith("PYTHON") and name not in dropped
        }

    def run(self, *argv: str, limit: float | None = None) -> str:
        """Return what a program says; CommandFailed when it fails."""
        return self.runner.run(argv, self.plain, limit=limit)

    def uv(self, near: Path) -> Uv:
        """Return uv, for environments on the file system of a folder."""
        return Uv(uv_environment(self.environ, (), near), self.runner)

    def say(self, line: str) -> None:
        """Tell the user."""
        self.runner.say(line)

    def under(self, lock: int) -> Programs:
        """Return the same, holding another lock for as long as any of them runs."""
        return replace(self, runner=replace(self.runner, lock=lock))
