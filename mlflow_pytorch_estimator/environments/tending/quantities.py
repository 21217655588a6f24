"""Sizes and durations as people write and read them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])(?:i?B)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([mhdw])")
_UNITS = "KMGT"
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_size(text: str) -> int:
    """Return bytes; units are powers of 1024. ValueError says how to write it."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a size; write 50G or 500M")
    return int(float(found[1]) * 1024 ** (_UNITS.index(found[2].upper()) + 1))


def parse_duration(text: str) -> float:
    """Return seconds. ValueError says how to write it."""
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a duration; write 30d, 12h, 2w or 45m")
    return float(found[1]) * _SECONDS[found[2]]


def show_size(size: int) -> str:
    """Return about three digits, as ``du -h`` does."""
    power = 0
    while size >= 1000 * 1024**power and power < len(_UNITS):
        power += 1
    amount = size / 1024**power
    unit = _UNITS[power - 1] if power else "B"
    return f"{amount:.1f}{unit}" if power and amount < 9.95 else f"{amount:.0f}{unit}"


def show_age(seconds: float) -> str:
    """Return how long ago something was."""
    for unit, name in (("d", "d"), ("h", "h"), ("m", "min")):
        if seconds >= _SECONDS[unit]:
            return f"{int(seconds // _SECONDS[unit])} {name} ago"
    return "just now"
