"""The end of a log, as a person reads it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.estimator.runs import details
from mlflow_pytorch_estimator.failure import tail
from mlflow_pytorch_estimator.jobdir import JobDir

if TYPE_CHECKING:
    from mlflow_pytorch_estimator.estimator.runs.run import Run

LINES = 200
_BYTES = 64 * 1024
_LONGEST_LINE = 1000
_LARGEST_DOWNLOAD = 4 * 1024 * 1024
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Logs:
    """The logs of one run: files of its job directory if that is here, else among what the store has."""

    def __init__(self, run: Run, directory: JobDir | None) -> None:
        self._run = run
        self._directory = directory
        self._sizes: dict[str, int] = {}
        self._kept: dict[str, tuple[int, str]] = {}

    def stored(self) -> tuple[str, ...]:
        """The names in the store; raises MlflowException."""
        found = self._run._client.list_artifacts(self._run.id, "logs")
        self._sizes = {item.path: item.file_size or 0 for item in found if not item.is_dir}
        return tuple(sorted(self._sizes))

    def end(self, name: str, lines: int = LINES) -> str:
        """The last lines of a log; raises MlflowException and GpuClusterError for those of the store."""
        if self._directory is not None:
            path = details.local_logs(self._directory).get(name)
            return last_lines(tail(path, _BYTES), lines) if path else ""
        size = self._sizes.get(name, 0)
        if size > _LARGEST_DOWNLOAD:
            return f"{size / 1e6:.0f} MB: run.download_file({name!r}) saves it"
        if self._kept.get(name, (-1, ""))[0] != size:
            self._kept[name] = size, self._run.files.read_text(name)[-_BYTES:]
        return last_lines(self._kept[name][1], lines)


def last_lines(text: str, most: int) -> str:
    """The last lines as a terminal would show them: without colours, and of a progress bar its last state."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return "\n".join(_shown(line) for line in lines[-most:])


def _shown(line: str) -> str:
    state = line.rstrip("\r").rpartition("\r")[2]
    return _CONTROLS.sub("", _ESCAPES.sub("", state))[:_LONGEST_LINE]
