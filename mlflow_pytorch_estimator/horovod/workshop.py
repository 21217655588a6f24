"""The build's own environment: tools that the job's environment must not hold, in sight of the job's torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.horovod.toolchain import CMAKE_REQUIREMENT

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.horovod.inspection import Facts
    from mlflow_pytorch_estimator.horovod.programs import Programs
    from mlflow_pytorch_estimator.horovod.toolchain import Toolchain

_SETUPTOOLS = ("setuptools>=70.1,<81",)
# torch.utils.cpp_extension up to 2.2 imports packaging out of pkg_resources.
_OLD_SETUPTOOLS = ("setuptools<70", "wheel<0.46")


@dataclass(frozen=True)
class Workshop:
    """An interpreter that has the tools and sees torch, and a CMake."""

    python: Path
    cmake: str


def open_workshop(folder: Path, python: Path, facts: Facts, tools: Toolchain, programs: Programs) -> Workshop:
    """Make the environment in ``folder`` from the same interpreter as the job's environment."""
    uv = programs.uv(folder)
    uv.run("venv", "--no-project", "--python", str(python), str(folder))
    interpreter = folder / "bin" / "python"
    requirements = ["pip", "packaging", *_setuptools(facts), *([] if tools.cmake else [CMAKE_REQUIREMENT])]
    uv.run("pip", "install", "--python", str(interpreter), *requirements)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "job_environment.pth").write_text("".join(f"{path}\n" for path in facts.paths), encoding="utf-8")
    return Workshop(interpreter, tools.cmake or str(folder / "bin" / "cmake"))


def _setuptools(facts: Facts) -> tuple[str, ...]:
    extension = Path(facts.folder) / "utils" / "cpp_extension.py"
    text = extension.read_text(encoding="utf-8", errors="replace") if extension.is_file() else ""
    return _OLD_SETUPTOOLS if "pkg_resources" in text else _SETUPTOOLS
