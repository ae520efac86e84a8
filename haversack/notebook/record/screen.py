"""A job's progress on standard error: a live view in a terminal, otherwise one plain line per finished cell.

Runs in the process of `haversack run`. Standard output is reserved for the command's result.
"""

from __future__ import annotations

import re
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

_WIDTH = 72
_DETAIL_WIDTH = 200
_TRACEBACK_LINES = 10
# Control sequences (ECMA-48) and operating system commands (xterm).
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")


class Screen:
    """The progress display on standard error, a context manager. Callers pass masked text only.

    In a terminal, the live view shows the current activity (a cell, or another step such as starting the kernel), its
    duration and the last line of its output. Permanent lines stay above it; elsewhere they are all that is shown.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._title = ""
        self._last = ""
        self._since = time.monotonic()

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._view, console=self._console, transient=True, refresh_per_second=4)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)
            self._live = None

    @property
    def is_live(self) -> bool:
        """Whether there is a live view, for `show_activity` and `show_output`."""
        return self._live is not None

    def print_line(self, text: str) -> None:
        """Print a permanent line, without control characters."""
        self._console.print(Text(plain(text)), soft_wrap=True)

    def print_details(self, text: str) -> None:
        """Print the non-empty lines of `text`, indented, below the last permanent line, without control characters."""
        for line in _ESCAPE.sub("", text).expandtabs().splitlines():
            if shown := plain(line):
                indent = " " * (len(line) - len(line.lstrip()))
                self._console.print(Text(_shorten(f"  {indent}{shown}", _DETAIL_WIDTH), style="dim"), soft_wrap=True)

    def print_traceback(self, text: str) -> None:
        """Print the last ten lines of a traceback, as `print_details` does."""
        lines = [line for line in _ESCAPE.sub("", text).splitlines() if plain(line)]
        self.print_details("\n".join(lines[-_TRACEBACK_LINES:]))

    def show_activity(self, title: str) -> None:
        """Show `title` as the current activity, in the live view only."""
        self._title, self._last, self._since = plain(title), "", time.monotonic()

    def start_cell(self, number: int, total: int, source: str) -> None:
        """Show cell `number` of `total`, counted from 1, as the current activity, by its source's first line."""
        self.show_activity(f"[{number}/{total}] {_first_line(source)}")

    def show_output(self, text: str) -> None:
        """Show the last non-empty line of `text` below the current activity, in the live view only."""
        # A progress bar rewrites its line with carriage returns. Only the last line is made plain: a bar that is
        # updated a thousand times has hundreds of lines in each call.
        lines = map(plain, reversed(text.replace("\r", "\n").splitlines()))
        self._last = next(filter(None, lines), self._last)

    def finish_cell(self, mark: str = "✓") -> None:
        """Print a permanent line with the cell and its duration, and end the current activity.

        `mark` begins the line: "✓" for a cell that was executed, "✗" for one that failed or had a shell command that
        did, "–" for one that was skipped.
        """
        self.print_line(f"{mark} {self._title}  {_duration(time.monotonic() - self._since)}")
        self._title = ""

    def _view(self) -> Text:
        if not self._title:
            return Text("")
        elapsed = _duration(time.monotonic() - self._since)
        text = Text(f"▸ {self._title}  {elapsed}", no_wrap=True, overflow="ellipsis")
        if self._last:
            text.append(f"\n  {self._last}", style="dim")
        return text


def plain(text: str) -> str:
    """Return `text` on one line, without colours, escape sequences, control characters and repeated spaces."""
    return " ".join("".join(char if char.isprintable() else " " for char in _ESCAPE.sub("", text)).split())


def _first_line(source: str) -> str:
    return _shorten(next((line.strip() for line in source.splitlines() if line.strip()), ""), _WIDTH)


def _shorten(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
