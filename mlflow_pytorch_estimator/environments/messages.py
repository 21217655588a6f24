"""uv's words, made readable: one block, without colours, boxes, stack traces and secrets."""

from __future__ import annotations

import re

from mlflow_pytorch_estimator.environments.redaction import redact

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
# uv draws its causes as a tree up to 0.8 or so ("  ╰─▶ Because"), and as "cause:" lines later.
_DECORATION = re.compile(r"^[\s\u00d7│├└╰─▶▸]*")
_START = re.compile(r"error:|\s*\u00d7")
_MOST_LINES = 15
_FULL_DISK = re.compile(r"[^\n]*(No space left on device|Disk quota exceeded)[^\n]*")


def clean(line: str) -> str:
    """Return a line of output without colours, carriage returns and secrets."""
    return redact(_ANSI.sub("", line)).rstrip()


def reason(output: str) -> str:
    """Return the last error block of uv's output, "" when there is none."""
    lines = output.splitlines()
    starts = [index for index, line in enumerate(lines) if _START.match(line)]
    if not starts:
        return "\n  ".join(line.strip() for line in lines[-3:] if line.strip())
    kept = [text for line in _without_traceback(lines[starts[-1] :]) if (text := _DECORATION.sub("", line))]
    kept[0] = kept[0].removeprefix("error: ")
    if len(kept) > _MOST_LINES:
        # The first lines name the package, the last ones the cause.
        kept = [*kept[:5], "...", *kept[5 - _MOST_LINES + 1 :]]
    return "\n  ".join(kept)


def full_disk(output: str) -> bool:
    """Tell whether the words are about a file system without room."""
    return _FULL_DISK.search(output) is not None


def _without_traceback(lines: list[str]) -> list[str]:
    kept: list[str] = []
    inside: int | None = None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip().startswith("Traceback (most recent call last)"):
            inside = indent
        elif inside is None or (indent <= inside and line.strip()):
            inside = None
            kept.append(line)
    return kept
