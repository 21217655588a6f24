"""Slurm's command line: argument lists, a time limit for each command, patience with a controller that is away."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow_pytorch_estimator import processes
from mlflow_pytorch_estimator.errors import SchedulerError

_LIMIT_SECONDS = 30.0
_PAUSES = (0.5, 1.0, 2.0, 4.0)
_AWAY = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Connection refused|Communication connection failure|"
    r"Zero Bytes were transmitted|Transport endpoint is not connected|slurm_persist_conn_open|"
    r"Connection timed out|Resource temporarily unavailable"
)
# What an enclosing Slurm job or the user's shell says about other jobs and other formats.
_FOREIGN = re.compile(
    r"SBATCH_|SALLOC_|SRUN_|SLURM_(?!CONF$|CLUSTERS$|JWT$)|SQUEUE_|SINFO_|SACCT_|SCONTROL_|SLURMD_|SCANCEL_"
)


@dataclass(frozen=True)
class Answer:
    """What a command has said."""

    code: int
    output: str
    errors: str

    @property
    def away(self) -> bool:
        """Whether the controller, or the accounting, could not be reached."""
        return self.code != 0 and bool(_AWAY.search(self.errors))

    @property
    def reason(self) -> str:
        """Its complaint, one line, without the program's name."""
        lines = [re.sub(r"^\w+: (error: |fatal: )?", "", line.strip()) for line in self.errors.splitlines()]
        return "; ".join(line for line in lines if line) or f"exit status {self.code}"


def has(program: str) -> bool:
    """Whether the program is on this machine."""
    return shutil.which(program) is not None


def environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment in which Slurm's commands do what their arguments say."""
    given = processes.environment() if environ is None else environ
    return {name: value for name, value in given.items() if not _FOREIGN.match(name)}


def run(
    *argv: str,
    environ: Mapping[str, str] | None = None,
    patient: bool = False,
    text: str | None = None,
    seconds: float | None = None,
    held: Sequence[int] = (),
) -> Answer:
    """Run a command, ``text`` on its standard input; a patient caller waits half a minute for an absent controller.

    It holds the locks whose descriptors are ``held`` even if this process is killed.

    Raises SchedulerError when there is no such program, or it does not answer at all.
    """
    for pause in (*_PAUSES, None) if patient else (None,):
        answer = _once(argv, environment(environ), text, seconds or _LIMIT_SECONDS, held)
        if not answer.away or pause is None:
            return answer
        time.sleep(pause)
    raise AssertionError("the last pause is None")


def _once(
    argv: Sequence[str], environ: Mapping[str, str], text: str | None, seconds: float, held: Sequence[int]
) -> Answer:
    try:
        done = subprocess.run(
            argv,
            input=text if text is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            env=dict(environ),
            timeout=seconds,
            pass_fds=tuple(held),
            check=False,
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        raise SchedulerError(
            f"{argv[0]} is not on PATH: submit where Slurm's commands are, or load the site's module for them"
        ) from None
    except subprocess.TimeoutExpired:
        return Answer(-1, "", f"Socket timed out: {argv[0]} has not answered within {seconds:g} s")
    return Answer(done.returncode, done.stdout, done.stderr)


def ask(*argv: str) -> str:
    """The output of a query; raises SchedulerError with Slurm's reason."""
    answer = run(*argv, patient=True)
    if answer.code != 0:
        raise SchedulerError(f"{argv[0]}: {answer.reason}")
    return answer.output
