"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Finding:
    """One line: ``fail`` means that no job can run or tell of itself, ``warn`` that some cannot, or not well."""

    state: str
    name: str
    text: str
    remedy: str = ""
