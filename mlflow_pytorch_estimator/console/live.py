"""A terminal with a moving last line: what the job does now, for how long, and how far it has come."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mlflow_pytorch_estimator import page
from mlflow_pytorch_estimator import progress as job_progress
from mlflow_pytorch_estimator.console.plain import Terminal
from mlflow_pytorch_estimator.journal import duration
from mlflow_pytorch_estimator.progress import Progress
from mlflow_pytorch_estimator.status import Phase

_COLOURS = {Phase.COMPLETED: "green", Phase.FAILED: "red", Phase.CANCELED: "yellow"}
_MOST_LINES = 4
_BAR_WIDTH = 20
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f]")
_NEVER: Path = Path("/nonexistent")


class LiveTerminal(Terminal):
    """Each phase that has ended is a line with its time; below them a line that moves."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        utf8 = self._console.encoding.startswith("utf")
        self._marks = {Phase.COMPLETED: "✓", Phase.FAILED: "✗", Phase.CANCELED: "✗"} if utf8 else {}
        self._done = "✓" if utf8 else "+"
        self._spinner = Spinner("dots" if utf8 else "line", style="cyan")
        self._live: Live | None = None
        self._progress = _NEVER
        self._phase: Phase | None = None
        self._since = 0.0
        self._message = ""
        self._unfinished: list[Text] = []

    def say(self, message: str, phase: Phase | None = None) -> None:
        """One line of ours."""
        if phase is None:
            self._print(Text(message))
        else:
            self.enter(phase, message, time.time())

    def enter(self, phase: Phase, message: str, when: float) -> None:
        """The phase before gets its line, with its time; this one moves."""
        if phase is not self._phase:
            self._end_phase(when)
            self._phase, self._since, self._message = phase, when, ""
        if message and phase is Phase.RUNNING:  # what the job says comes between this line and that of its end
            self._print(_row("·", "dim", phase, message))
        self._message = message or self._message

    def close(self, phase: Phase, took: str, when: float) -> None:
        """How the job ended."""
        self._end_phase(when)
        self._phase = None
        self._print(_row(self._marks.get(phase, "*"), _COLOURS[phase], phase, f"after {took}", bold=True))

    def commands(self, run_id: str) -> None:
        """How to follow and cancel a job."""
        self._print(Text("\n".join(f"    {line}" for line in page.follow_commands(run_id).splitlines())))

    def error(self, text: str) -> None:
        """Text as it is."""
        self._above(lambda: Terminal.error(self, text))

    def output(self, data: bytes) -> None:
        """Bytes of the job, above the line that moves if both are on one screen."""
        if data and sys.stdout.isatty():
            self._above(lambda: Terminal.output(self, data))
        elif data:
            Terminal.output(self, data)

    def unfinished(self, lines: Mapping[str, bytes]) -> None:
        """The ends of the logs, below what is complete."""
        if not sys.stdout.isatty():
            return
        ends = [(name, last_state(line)) for name, line in lines.items()]
        several = len(ends) > 1
        self._unfinished = [
            Text(f"[{name}] {end}" if several else end, no_wrap=True, overflow="ellipsis") for name, end in ends if end
        ][:_MOST_LINES]

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Show that something is done that has no phase."""
        self._message, self._since = what, time.time()
        with self._moving():
            yield
        self._message = ""

    @contextmanager
    def watching(self, progress: Path) -> Iterator[None]:
        """While a job is followed."""
        self._progress = progress
        if self._phase is None:
            self._since, self._message = time.time(), "waiting for the job"
        with self._moving():
            yield

    @contextmanager
    def _moving(self) -> Iterator[None]:
        self._start()
        try:
            yield
        finally:
            self._stop()

    def _start(self) -> None:
        # A new one each time: it remembers how many lines it has drawn, and would draw over what came between.
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
        )
        self._live.start(refresh=True)

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _end_phase(self, when: float) -> None:
        if self._phase is None or self._phase.terminal:
            return
        took = duration(max(0.0, when - self._since))
        if self._phase is Phase.RUNNING:  # how it ended is said later
            self._print(_row("·", "dim", self._phase, took))
        else:
            self._print(_row(self._done, "green", self._phase, f"{took:<13}{self._message}"))

    def _print(self, line: RenderableType) -> None:
        self._console.print(line, soft_wrap=True)

    def _above(self, write: Callable[[], None]) -> None:
        """Write where the moving line stands, and let it go on below."""
        if self._live is None:
            write()
            return
        self._stop()
        try:
            write()
        finally:
            self._start()

    def _render(self) -> RenderableType:
        """What moves; called by the thread of ``Live``, too."""
        took = duration(max(0.0, time.time() - self._since))
        line = Table.grid(padding=(0, 1))
        name = Text(f"{self._phase.value:<11}" if self._phase else "", style="bold")
        message = Text(self._message, no_wrap=True, overflow="ellipsis")
        measured = job_progress.read(self._progress)
        if measured is not None and measured.done < measured.total:
            line.add_row(self._spinner, name, Text(f"{took:<9}", no_wrap=True), *_bar(measured))
        elif self._phase is None:
            line.add_row(self._spinner, message, Text(took, style="dim"))
        else:
            line.add_row(self._spinner, name, Text(f"{took:<9}", no_wrap=True), message)
        return Group(*self._unfinished, line)


def last_state(line: bytes) -> str:
    """What a terminal would show of a line with carriage returns in it, without its colours and cursor moves."""
    text = line.decode("utf-8", errors="replace")
    states = [_CONTROL.sub("", state).rstrip() for state in text.split("\r")]
    return next((state for state in reversed(states) if state), "")


def _row(mark: str, style: str, phase: Phase, message: str, *, bold: bool = False) -> Text:
    return Text.assemble((mark, style), " ", (f"{phase.value:<11} ", "bold" if bold else ""), message.rstrip())


def _bar(measured: Progress) -> tuple[RenderableType, ...]:
    total = max(measured.total, 1)
    return (
        Text(measured.what, no_wrap=True),
        ProgressBar(total=total, completed=min(measured.done, total), width=_BAR_WIDTH),
        Text(f"{decimal(measured.done)} of {decimal(measured.total)}", style="dim", no_wrap=True),
    )
