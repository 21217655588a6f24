"""Log lines for people who have not set up logging."""

from __future__ import annotations

import logging


class _Fallback(logging.StreamHandler):  # type: ignore[type-arg]  # standard error, whatever it is at the time
    """Prints to standard error as long as the program has no handlers of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            super().emit(record)


def install() -> None:
    """Show what this package says, from INFO on; a program that configures logging decides for itself."""
    logger = logging.getLogger(__name__.partition(".")[0])
    if any(isinstance(handler, _Fallback) for handler in logger.handlers):
        return
    handler = _Fallback()
    handler.setFormatter(logging.Formatter("gpu-cluster: %(message)s"))
    logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
