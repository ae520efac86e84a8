"""A job's progress on standard error: a live view in a terminal, one plain line per cell elsewhere.

Standard output is left for the result.
"""

from __future__ import annotations

import re
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

_WIDTH = 72
# ECMA-48 control sequences, and the operating system commands of xterm.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")


class Screen:
    """What people see while a job runs. Every text that comes in is masked already."""

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

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(Text(plain(text)), soft_wrap=True)

    def doing(self, what: str) -> None:
        """Something between the cells takes time; it is only shown while it does."""
        self._title, self._last, self._since = plain(what), "", time.monotonic()

    def start(self, number: int, total: int, source: str) -> None:
        """Cell `number` of `total`, counted from 1, starts."""
        self.doing(f"[{number}/{total}] {_first_line(source)}")

    def output(self, text: str) -> None:
        """The cell wrote `text`; its last line is shown."""
        # A progress bar rewrites its line with carriage returns.
        lines = [line for line in map(plain, text.replace("\r", "\n").splitlines()) if line]
        if lines:
            self._last = lines[-1]

    def finish(self, mark: str = "✓") -> None:
        """The cell is done."""
        self.say(f"{mark} {self._title}  {_duration(time.monotonic() - self._since)}")
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
    """`text` on one line, without colours and whatever else would steer the terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in _ESCAPE.sub("", text)).split())


def _first_line(source: str) -> str:
    line: Any = next((line.strip() for line in source.splitlines() if line.strip()), "")
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
