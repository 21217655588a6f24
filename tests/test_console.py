"""The moving terminal, as a terminal shows it: a real pseudo-terminal, read by an emulator."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyte
import pytest

from mlflow_pytorch_estimator import console, progress
from mlflow_pytorch_estimator.console.live import LiveTerminal, last_state
from mlflow_pytorch_estimator.progress import Downloads, Progress, ProgressFile
from mlflow_pytorch_estimator.status import Phase


class Screen:
    """What a person sees after some work, and at its moments that call ``look``."""

    def __init__(self, patch: pytest.MonkeyPatch, columns: int = 80, rows: int = 30) -> None:
        self._patch = patch
        self._size = struct.pack("HHHH", rows, columns, 0, 0)
        self._screen = pyte.Screen(columns, rows)
        self.looks: list[list[str]] = []

    @property
    def cursor_hidden(self) -> bool:
        return bool(self._screen.cursor.hidden)

    def of(self, work: Callable[[Callable[[], None]], None], *, environ: dict[str, str] | None = None) -> list[str]:
        """Run ``work`` with a terminal as its output; returns the lines of the screen at the end."""
        self._screen.reset()
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, self._size)
        reader = threading.Thread(target=self._show, args=(ours,))
        reader.start()
        with self._patch.context() as patch, os.fdopen(theirs, "w", buffering=1) as stream:
            for name, value in {"TERM": "xterm-256color", **(environ or {})}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            work(lambda: _bell(theirs))
        reader.join(10)
        os.close(ours)
        return _lines(self._screen)

    def _show(self, terminal: int) -> None:
        stream = pyte.ByteStream(self._screen)
        while data := _read(terminal):
            *before, last = data.split(b"\x07")  # a bell: look now
            for piece in before:
                stream.feed(piece)
                self.looks.append(_lines(self._screen))
            stream.feed(last)


def _bell(terminal: int) -> None:
    os.write(terminal, b"\x07")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""


def _lines(screen: pyte.Screen) -> list[str]:
    return [line.rstrip() for line in screen.display if line.strip()]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Screen(monkeypatch)


def test_phases_become_lines_and_output_stands_between_them(screen: Screen, tmp_path: Path) -> None:
    def work(look: Callable[[], None]) -> None:
        terminal = LiveTerminal()
        with terminal.watching(tmp_path / "progress.json"):
            terminal.enter(Phase.PREPARING, "environment abc ready in 2.0 s", 100.0)
            terminal.enter(Phase.QUEUED, "", 102.5)
            terminal.enter(Phase.RUNNING, "on host, 2 CPUs", 103.0)
            for number in range(3):
                terminal.unfinished({"rank 0": b"\r 10%%\r 5%d%%" % number})
                terminal.output(b"line %d\n" % number)
            look()
            terminal.unfinished({"rank 0": b""})
            terminal.enter(Phase.FINALIZING, "", 163.0)
        terminal.close(Phase.FAILED, "1 min 3 s", 164.5)  # looked at long afterwards
        terminal.say("goodbye")

    assert screen.of(work)[:6] == [
        "✓ Preparing   2.5 s        environment abc ready in 2.0 s",
        "✓ Queued      0.5 s",
        "· Running     on host, 2 CPUs",
        "line 0",
        "line 1",
        "line 2",
    ]
    assert screen.of(work)[6] == "· Running     1 min 0 s"
    assert screen.of(work)[7] == "✓ Finalizing  1.5 s"
    assert screen.of(work)[8:] == ["✗ Failed      after 1 min 3 s", "goodbye"]
    during = screen.looks[0]
    assert during[3:7] == ["line 0", "line 1", "line 2", " 52%"]
    assert "Running" in during[7]
    assert during[7].endswith("on host, 2 CPUs")
    assert not screen.cursor_hidden


def test_a_download_is_a_bar(screen: Screen, tmp_path: Path) -> None:
    file = tmp_path / "progress.json"
    ProgressFile(file)(Progress("downloading", 750_000_000, 3_000_000_000))

    def work(look: Callable[[], None]) -> None:
        terminal = LiveTerminal()
        with terminal.watching(file):
            terminal.enter(Phase.PREPARING, "building", time.time())
            terminal.output(b"x\n")  # draws anew
            look()

    screen.of(work)
    bar = screen.looks[0][-1]
    assert "downloading" in bar
    assert bar.endswith("750.0 MB of 3.0 GB")
    assert bar.count("━") + bar.count("╸") + bar.count("╺") == 20


def test_an_interrupt_gives_the_cursor_back(screen: Screen, tmp_path: Path) -> None:
    def work(look: Callable[[], None]) -> None:
        terminal = LiveTerminal()
        try:
            with terminal.watching(tmp_path / "progress.json"):
                terminal.enter(Phase.RUNNING, "here", 0.0)
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            terminal.say("let go")

    assert screen.of(work) == ["· Running     here", "let go"]
    assert not screen.cursor_hidden


def test_words_of_others_do_not_tear_the_moving_line(screen: Screen, tmp_path: Path) -> None:
    def work(look: Callable[[], None]) -> None:
        with LiveTerminal().busy("submitting"):
            print("a warning", file=sys.stderr)

    assert screen.of(work) == ["a warning"]


def test_long_lines_of_scripts_do_not_fill_the_screen(screen: Screen, tmp_path: Path) -> None:
    def work(look: Callable[[], None]) -> None:
        terminal = LiveTerminal()
        with terminal.watching(tmp_path / "progress.json"):
            terminal.enter(Phase.RUNNING, "here", 0.0)
            terminal.unfinished({f"rank {number}": b"x" * 500 for number in range(9)})
            terminal.output(b"y\n")
            look()

    screen.of(work)
    moving = screen.looks[0][2:]
    assert len(moving) == 5  # four ranks and the line of the phase
    assert all(len(line) <= 80 for line in moving)
    assert moving[0].startswith("[rank 0] xxx")


@pytest.mark.parametrize(
    ("environ", "kind"), [({}, "LiveTerminal"), ({"TERM": "dumb"}, "Terminal"), ({"NO_COLOR": "1"}, "LiveTerminal")]
)
def test_which_terminal(screen: Screen, environ: dict[str, str], kind: str) -> None:
    def work(look: Callable[[], None]) -> None:
        print(type(console.terminal()).__name__, console.coloured())

    assert screen.of(work, environ=environ) == [f"{kind} {not environ}"]


def test_no_terminal_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert type(console.terminal()) is console.Terminal
    assert not console.coloured()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"", ""),
        (b"plain", "plain"),
        (b"\r 1%\r 2%", " 2%"),
        (b"\r 1%\r", " 1%"),
        (b"\x1b[31mred\x1b[0m \x1b[2Kx", "red x"),
        (b"\x1b]0;title\x07x\x1b]8;;http://a\x1b\\y", "xy"),
        ("täglich ☃".encode(), "täglich ☃"),
        (b"a\xffb\x00\x08c", "a�bc"),
    ],
)
def test_the_state_of_a_line(line: bytes, shown: str) -> None:
    assert last_state(line) == shown


@pytest.fixture
def told() -> list[Progress]:
    return []


def test_downloads_are_added_up(told: list[Progress]) -> None:
    downloads = Downloads(told.append)
    for line in [
        "Resolved 33 packages in 416ms",
        "Downloading torch (514.2MiB)",
        "Downloading numpy (2.0KiB)",
        " Downloaded numpy",
        " Downloaded never-mentioned",
        "Prepared 33 packages in 32.08s",
    ]:
        downloads.note(line)
    mega = round(514.2 * 2**20)
    assert [(item.done, item.total) for item in told] == [
        (0, mega),
        (0, mega + 2048),
        (2048, mega + 2048),
        (2048, mega + 2048),
    ]


def test_progress_is_kept_for_others(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    assert progress.read(path) is None
    file = ProgressFile(path)
    file(Progress("a", 1, 10))
    file(Progress("a", 2, 10))  # too soon
    assert progress.read(path) == Progress("a", 1, 10)
    file(Progress("a", 10, 10))  # the last always
    assert progress.read(path) == Progress("a", 10, 10)
    path.write_text('["strange"]')
    assert progress.read(path) is None
    file.clear()
    file.clear()
    assert not path.exists()
    ProgressFile(tmp_path / "gone" / "progress.json")(Progress("a", 1, 1))  # nothing is measured, nothing breaks
