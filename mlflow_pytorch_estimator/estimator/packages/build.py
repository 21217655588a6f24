"""An environment prepared ahead of the jobs that will use it."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path

from mlflow_pytorch_estimator import jobdir
from mlflow_pytorch_estimator.environments import EnvironmentSpec, prepare

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EnvironmentBuild:
    """A build that has succeeded; one that fails raises."""

    python: str
    """The interpreter."""
    log: str
    status: str = "succeeded"

    @classmethod
    def run(
        cls, spec: EnvironmentSpec, *, base: tuple[str, ...] | None = None, upgrade: bool = False
    ) -> EnvironmentBuild:
        """Build where jobs look for it, or find it there; ``base`` and ``upgrade`` as in ``environments.prepare``."""
        log = io.StringIO()
        ready = prepare(
            spec,
            Path.cwd(),
            jobdir.environments(),
            log=log,
            cancelled=lambda: False,
            say=_logger.info,
            base=base,
            upgrade=upgrade,
        )
        return cls(str(ready.python), log.getvalue() or ready.freeze)

    def wait_for_completion(self, show_output: bool = True) -> EnvironmentBuild:
        """Return at once, the build has ended; prints what the installer said."""
        if show_output:
            print(self.log, end="")
        return self
