"""Which C++ the headers of a torch are written in: the first that the compiler takes them with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.runner import CommandFailed
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_pytorch_estimator.horovod.inspection import Facts
    from mlflow_pytorch_estimator.horovod.programs import Programs

_STANDARDS = (14, 17, 20, 23)


def cxx_standard(compiler: str, facts: Facts, folder: Path, programs: Programs) -> int:
    """Return 14, 17, 20 or 23; EnvironmentBuildError when the compiler takes the headers with none."""
    source = folder / "standard.cc"
    source.write_text("#include <torch/extension.h>\n", encoding="utf-8")
    # Fatal errors: the wrong standards are refused within a second, by torch's own #error or by the first that breaks.
    command = [compiler, "-fsyntax-only", "-Wfatal-errors", "-w"]
    command += [part for include in (*facts.torch_includes, facts.include) for part in ("-isystem", include)]
    reasons = []
    for standard in _STANDARDS:
        try:
            programs.run(*command, f"-std=c++{standard}", str(source))
        except CommandFailed as error:
            reasons.append(f"C++{standard}: {_first_error(error.output)}")
        else:
            return standard
    raise EnvironmentBuildError(
        f"{compiler} takes the headers of torch {facts.torch} with no C++ standard; a newer compiler is needed "
        "(CXX names one)\n  " + "\n  ".join(reasons)
    )


def _first_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if "error:" in line]
    return lines[0] if lines else output.strip()[-200:]
