"""What the terminal and the log show: a bar that moves on a terminal, one plain line per epoch."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from birds.training import Epoch

BAR = 24


class Progress:
    """Draws the bar of the running epoch if standard error is a terminal; if ``quiet``, it prints nothing at all."""

    def __init__(self, epochs: int, batches: int, *, quiet: bool = False) -> None:
        self.epochs = epochs
        self.batches = batches
        self.quiet = quiet
        self.live = sys.stderr.isatty() and not quiet
        self._drawn_at = 0.0

    def batch(self, epoch: int, batch: int) -> None:
        """Move the bar, ten times a second at most."""
        now = time.monotonic()
        if not self.live or (now - self._drawn_at < 0.1 and batch < self.batches):
            return
        self._drawn_at = now
        done = BAR * batch // self.batches
        text = f"\repoch {epoch}/{self.epochs} [{'=' * done}{' ' * (BAR - done)}] {batch}/{self.batches}"
        print(text, end="", file=sys.stderr, flush=True)

    def epoch(self, epoch: Epoch, *, best: bool) -> None:
        """Print the line of an epoch that has ended."""
        if self.quiet:
            return
        if self.live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        width, mark = len(str(self.epochs)), "  best" if best else ""
        print(
            f"epoch {epoch.number:{width}}/{self.epochs}"
            f"  train loss {epoch.train.loss:.3f} accuracy {epoch.train.accuracy:6.1%}"
            f"  val loss {epoch.val.loss:.3f} accuracy {epoch.val.accuracy:6.1%}"
            f"  lr {epoch.learning_rate:.2g}  {epoch.images_per_second:.0f} images/s{mark}",
            flush=True,
        )
