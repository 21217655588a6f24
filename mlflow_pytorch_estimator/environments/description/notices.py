"""What the user should know about how a description was read, said once in a process."""

from __future__ import annotations

import functools
import logging

_logger = logging.getLogger(__name__)


@functools.lru_cache(maxsize=1024)
def warn_once(text: str) -> None:
    """Log a warning; descriptions are read at construction and at submission, and one warning is enough."""
    _logger.warning("%s", text)
