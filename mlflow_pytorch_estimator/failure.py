"""Why a job failed, read from what the rank left: exit status or signal, traceback, last lines."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

_TAIL_BYTES = 256 * 1024
_LAST_LINES = 20
_MAX_TRACEBACK_LINES = 200
_HEADER = "Traceback (most recent call last):"
_GROUP_HEADER = f"+ Exception Group {_HEADER}"
_GROUP_LINE = re.compile(r"\s+[|+]")
_SYNTAX_ERROR = re.compile(r"(SyntaxError|IndentationError|TabError): ")
_NOT_STARTED = (125, 126, 127)
"""What docker and podman end with when they could not run the container, or its command."""
_WRONG_ARGUMENTS = 2
_ON_ITS_OWN = re.compile(rf"[\s|+-]*(?:Exception Group )?{re.escape(_HEADER)}\s*")
_BEHIND_SOMETHING = re.compile(rf"(.+?)(?:\[[a-z]+\d+\]: ?)?(\s*\+ Exception Group )?{re.escape(_HEADER)}\s*")
"""An unfinished line, as progress bars and prompts leave it, and a header."""
_PREFIX = re.compile(r"^\[[a-z]+\d+\]: ?")  # torch.distributed: `[rank0]: `, torchrun: `[default0]:`


def tail(path: Path, size: int = _TAIL_BYTES, since: int = 0) -> str:
    """The last bytes of a log as text, whatever is in it; none of those before ``since``."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(since, os.fstat(handle.fileno()).st_size - size))
            return handle.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def last_lines(text: str) -> list[str]:
    """The end of a log, as people read it."""
    return text.splitlines()[-_LAST_LINES:]


def last_traceback(text: str) -> str:
    """The last Python traceback in a text, without the lines after it; empty if there is none.

    A chain ("During handling of the above exception ...") counts as one.
    """
    lines = list(_lines(text))
    starts = [index for index, line in enumerate(lines) if line.strip() == _HEADER]
    groups = [index for index, line in enumerate(lines) if line.strip() == _GROUP_HEADER]
    if groups and groups[-1] > max(starts, default=-1):
        return _cut(takewhile(_GROUP_LINE.match, lines[groups[-1] :]))
    if not starts:
        return _syntax_error(lines)
    end = _end_of_traceback(lines, starts[-1])
    start = starts[-1]
    for earlier in reversed(starts[:-1]):
        between = lines[_end_of_traceback(lines, earlier) : start]
        if not any("exception" in line for line in between) or any(line[:1].isspace() for line in between):
            break
        start = earlier
    return _cut(lines[start:end])


def _lines(text: str) -> Iterator[str]:
    for raw in text.splitlines():
        line = _PREFIX.sub("", raw)
        behind = None if _ON_ITS_OWN.fullmatch(line) else _BEHIND_SOMETHING.fullmatch(line)
        if behind is None:
            yield line
        else:
            yield behind[1]
            yield f"{behind[2] or ''}{_HEADER}"


def _cut(lines: Iterable[str]) -> str:
    return "\n".join(list(lines)[-_MAX_TRACEBACK_LINES:])


def _syntax_error(lines: list[str]) -> str:
    """What Python prints for a script that it cannot parse: no header, since nothing has run."""
    ends = [index for index, line in enumerate(lines) if _SYNTAX_ERROR.match(line)]
    begin = ends[-1] if ends else 0
    while begin and not lines[begin].startswith('  File "') and lines[begin - 1].startswith("  "):
        begin -= 1
    return _cut(lines[begin : ends[-1] + 1]) if ends and lines[begin].startswith('  File "') else ""


def _headline(traceback: str) -> str:
    """The line that names the exception."""
    lines = traceback.splitlines() or [""]
    if lines[0].strip() == _GROUP_HEADER:
        return next((line.strip(" |") for line in lines if line.endswith(("sub-exception)", "sub-exceptions)"))), "")
    return lines[-1].strip()


def _end_of_traceback(lines: list[str], start: int) -> int:
    indent = len(lines[start]) - len(lines[start].lstrip())
    for index in range(start + 1, len(lines)):
        line = lines[index]
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            return index + 1  # the line with the exception itself
    return len(lines)


def describe_exit(exit_code: int) -> str:
    """``exited with status 3`` or ``was killed by SIGKILL``, also through a shell (status 128 + signal)."""
    if exit_code < 0:
        return f"was killed by {_signal_name(-exit_code)}"
    if exit_code > 128 and _signal_name(exit_code - 128).startswith("SIG"):
        return f"exited with status {exit_code} ({_signal_name(exit_code - 128)})"
    if exit_code == 127:
        return "exited with status 127 (command not found)"
    return f"exited with status {exit_code}"


def _complaint(text: str) -> str:
    """The line in which docker or podman says why a container did not start."""
    found = re.findall(r"^(?:Error|docker): (.+)", "\n".join(last_lines(text)), re.MULTILINE)
    return found[-1] if found else ""


def _of_argparse(text: str) -> str:
    """What a script says that was given wrong arguments: ``train.py: error: ...``."""
    lines = text.strip().splitlines()
    found = re.match(r"\S+: error: (.+)", _PREFIX.sub("", lines[-1])) if lines else None
    return found[1] if found else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def report(  # noqa: PLR0913 - all that there is to know
    rank: int | None,
    node: str,
    exit_code: int,
    text: str,
    *,
    who: str = "",
    runtime: str | None = None,
    out_of_memory: bool = False,
) -> dict[str, Any]:
    """The content of ``failure.json``.

    ``text`` is the end of its log, ``who`` another name than ``rank N`` for what failed, ``runtime`` what ran it in a
    container.
    """
    traceback = last_traceback(text)
    reason = f"{who or f'rank {rank}'} {describe_exit(exit_code)}"
    last = _headline(traceback)
    if out_of_memory:
        reason += " (out of memory: the kernel ended it)"
    elif re.match(r"[\w.]+(:|$)", last):
        reason += f" ({last[:500]})"
    elif exit_code == _WRONG_ARGUMENTS and (complaint := _of_argparse(text)):
        reason += f" ({complaint[:500]})"
    elif runtime and exit_code in _NOT_STARTED and (complaint := _complaint(text)):
        reason += f" ({runtime}: {complaint[:500]})"
    return {
        "rank": rank,
        "node": node,
        "exit_code": exit_code if exit_code >= 0 else None,
        "signal": _signal_name(-exit_code) if exit_code < 0 else None,
        "out_of_memory": out_of_memory,
        "reason": reason,
        "traceback": traceback,
        "last_lines": last_lines(text),
    }
