"""The wheel of a plan: from the cache, or built there once for all that ask."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments import cache
from mlflow_pytorch_estimator.environments.messages import full_disk
from mlflow_pytorch_estimator.errors import EnvironmentBuildError
from mlflow_pytorch_estimator.horovod import wheels as kept
from mlflow_pytorch_estimator.horovod.compile import Compilation, compile_wheel
from mlflow_pytorch_estimator.horovod.inspection import Facts, inspect
from mlflow_pytorch_estimator.horovod.install import loads
from mlflow_pytorch_estimator.horovod.programs import Programs
from mlflow_pytorch_estimator.horovod.release import OFFICIAL, WITHOUT_CUDA, Release
from mlflow_pytorch_estimator.horovod.source import fetch, unpack
from mlflow_pytorch_estimator.horovod.standard import cxx_standard
from mlflow_pytorch_estimator.horovod.toolchain import Toolchain, toolchain
from mlflow_pytorch_estimator.horovod.trials import attainable
from mlflow_pytorch_estimator.horovod.workshop import open_workshop

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_pytorch_estimator.environments.runner import Runner
    from mlflow_pytorch_estimator.horovod.planning import Plan

_SOURCES = "sources"


@dataclass(frozen=True)
class Obtained:
    """A wheel, and the plan that was carried out for it."""

    wheel: Path
    plan: Plan
    """Its notices say what was left out."""


def obtain(  # noqa: PLR0913 - each has one meaning
    plan: Plan,
    python: Path,
    wheels: Path,
    runner: Runner,
    environ: Mapping[str, str],
    *,
    release: Release = OFFICIAL,
) -> Obtained:
    """Return the wheel for the torch that the interpreter ``python`` has, from the cache folder or built into it.

    EnvironmentBuildError with the reason, BuildCancelled. What does not work on this machine although it looked as
    if it would (a broken CUDA toolkit) is left out, with a warning, unless the options name it.
    """
    wheels = wheels.absolute()
    try:
        wheel = kept.find(wheels / plan.key)
        if wheel is None:
            made = _Builder(python.absolute(), wheels, Programs(runner, environ), release).build(plan)
        else:
            made = Obtained(wheel, plan)
    except OSError as error:
        words = f"{error.filename or wheels}: {error.strerror}"
        raise EnvironmentBuildError(_explained(words, wheels)) from error
    except EnvironmentBuildError as error:
        if full_disk(str(error)):
            raise EnvironmentBuildError(_explained(str(error), wheels)) from None
        raise
    cache.used(made.wheel.parent)
    return made


@dataclass(frozen=True)
class _Builder:
    python: Path
    wheels: Path
    programs: Programs
    release: Release

    def build(self, plan: Plan) -> Obtained:
        facts = inspect(self.python, self.programs)
        if facts.torch.partition("+")[0] != plan.target.torch or not facts.python.startswith(f"{plan.target.python}."):
            raise EnvironmentBuildError(
                f"{self.python} has Python {facts.python} with torch {facts.torch or '(none)'}, "
                f"not what was planned: {plan.describe()}"
            )
        tools = toolchain(facts, self.programs)
        with tempfile.TemporaryDirectory(prefix="horovod-trial-") as folder:
            possible = attainable(plan, tools.compiler, facts, Path(folder), self.programs)
        for notice in possible.notices[len(plan.notices) :]:
            self.programs.say(f"warning: {notice}")
        # Before the lock: others may keep this cache, and only they write there.
        wheel = kept.find(self.wheels / possible.key) or self._locked(possible, facts, tools)
        return Obtained(wheel, possible)

    def _locked(self, plan: Plan, facts: Facts, tools: Toolchain) -> Path:
        entry, runner = self.wheels / plan.key, self.programs.runner
        with cache.locked(entry, runner.cancelled, self._wait) as lock:
            wheel = kept.find(entry, runner.say)  # whoever held the lock before us may have built it
            return wheel or replace(self, programs=self.programs.under(lock))._build(plan, facts, tools)

    def _wait(self, _line: str) -> None:
        self.programs.say("waiting for another job that builds the same Horovod")

    def _build(self, plan: Plan, facts: Facts, tools: Toolchain) -> Path:
        started = time.monotonic()
        self.programs.say(f"building {plan.describe()}")
        entry = self.wheels / plan.key
        place = kept.workplace(entry)
        try:
            work = self._prepare(plan, facts, tools, place)
            wheel = compile_wheel(work, self.programs)
            loads(wheel, self.python, place, self.programs)
            seconds = time.monotonic() - started
            stored = kept.store(wheel, entry, {**_record(work), "seconds": round(seconds, 1)})
        finally:
            shutil.rmtree(place, ignore_errors=True)
        self.programs.say(f"Horovod {self.release.version} built in {_minutes(seconds)}")
        return stored

    def _prepare(self, plan: Plan, facts: Facts, tools: Toolchain, place: Path) -> Compilation:
        workshop = open_workshop(place / "tools", self.python, facts, tools, self.programs)
        file = fetch(self.release, self.wheels / _SOURCES, place, workshop.python, self.programs)
        standard = cxx_standard(tools.compiler, facts, place, self.programs)
        self.programs.say(f"Horovod: the headers of torch {facts.torch} want C++{standard}")
        changes = WITHOUT_CUDA if facts.accelerator and plan.nccl is None else ()
        source = unpack(file, place / "source", changes)
        return Compilation(plan, facts, workshop, tools.compiler, standard, source, changes, place)


def _record(work: Compilation) -> dict[str, object]:
    return {
        "description": work.plan.describe(),
        "target": asdict(work.plan.target),
        "standard": f"C++{work.standard}",
        "compiler": work.compiler,
        "changes": [asdict(change) for change in work.changes],
    }


def _explained(words: str, wheels: Path) -> str:
    if not full_disk(words):
        return words
    last = "\n  ".join(line.strip() for line in words.splitlines()[-3:])  # uv breaks long paths into many lines
    return (
        f"no space left on device while building Horovod: free some in {wheels}, or in the temporary folder\n  {last}"
    )


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60} s" if seconds >= 60 else f"{seconds:.0f} s"
