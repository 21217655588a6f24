"""What an interpreter has for a build: its torch, its headers, NCCL beside torch. torch is not imported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.runner import CommandFailed
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.horovod.programs import Programs

_SCRIPT = """
import importlib.metadata, importlib.util, json, os, platform, re, runpy, sys, sysconfig
found = importlib.util.find_spec("torch")
folder = os.path.dirname(found.origin) if found and found.origin else ""
torch = runpy.run_path(os.path.join(folder, "version.py")) if folder else {}
nccl = [path for path in (os.path.join(entry, "nvidia/nccl") for entry in sys.path) if os.path.isdir(path)]
named = {
    re.sub(r"[-_.]+", "-", item.metadata["Name"]).lower(): item.version
    for item in importlib.metadata.distributions() if item.metadata["Name"]
}
print(json.dumps({
    "python": platform.python_version(),
    "torch": torch.get("__version__", ""),
    "accelerator": torch.get("cuda") or torch.get("hip") or "",
    "folder": folder,
    "nccl": nccl[0] if nccl else "",
    "include": sysconfig.get_path("include"),
    "paths": [entry for entry in sys.path if os.path.basename(entry) in ("site-packages", "dist-packages")],
    "packages": named,
}))
"""


@dataclass(frozen=True)
class Facts:
    """An interpreter and its packages, as they are."""

    python: str
    """Full version."""
    torch: str
    """With its local part, such as 2.15.0+cu132; empty where there is none."""
    accelerator: str
    """The CUDA or ROCm of torch; empty for a torch without."""
    folder: str
    """Where torch lies."""
    nccl: str
    """Where the NCCL beside torch lies; empty where there is none."""
    include: str
    """Where Python.h would be."""
    paths: tuple[str, ...]
    """Folders of packages."""
    packages: tuple[tuple[str, str], ...]
    """Canonical name and version of each."""

    @property
    def locked(self) -> dict[str, str]:
        """Return package -> version, as a lock has it; torch with its local part, which says its CUDA."""
        return dict(self.packages) | ({"torch": self.torch} if self.torch else {})

    @property
    def torch_includes(self) -> tuple[str, ...]:
        """Return the folders of torch's headers."""
        return f"{self.folder}/include", f"{self.folder}/include/torch/csrc/api/include"


def inspect(python: Path, programs: Programs) -> Facts:
    """Ask an interpreter; EnvironmentBuildError when it cannot be run."""
    try:
        output = programs.run(str(python.absolute()), "-c", _SCRIPT, limit=60.0)
        data = json.loads(next(line for line in reversed(output.splitlines()) if line.startswith("{")))
    except CommandFailed as error:
        raise EnvironmentBuildError(f"{python} cannot be asked for its packages: {error.output.strip()}") from None
    except (OSError, StopIteration, ValueError) as error:
        raise EnvironmentBuildError(f"{python} is no Python interpreter that can be run: {error}") from None
    return Facts(**{**data, "paths": tuple(data["paths"]), "packages": tuple(sorted(data["packages"].items()))})


def has_headers(facts: Facts) -> bool:
    """Tell whether extensions can be compiled for this interpreter."""
    return (Path(facts.include) / "Python.h").is_file()
