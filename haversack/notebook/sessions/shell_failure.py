"""A shell command of a cell that failed, and which of them is the likely cause of a later cell's error.

Runs in the process of `haversack run`. A failed `!` line does not end its cell, so what shows is often the error of a
later cell that misses a file or a package. The kernel reports failed commands (`colab.exit_status`). Whether one caused
an error is a guess: it must name something that the failing cell or its error names too, or the error must be of the
kind that something missing raises.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_MAX_NAME_LENGTH = 100  # characters
# Errors that a missing or incomplete file, folder or package raises.
_MISSING = re.compile(
    r"^(?:FileNotFoundError|NotADirectoryError|ModuleNotFoundError|ImportError|BadZipFile|ReadError|EmptyDataError"
    r"|UnidentifiedImageError)\b"
)
_WORD = re.compile(r"[\w.+-]*\w")
# Words of commands that say nothing about what a command was to bring.
_COMMON = frozenset(
    re.findall(
        r"\S+",
        "apt apt_get bash bin clone com content curl data download git github.com http https import install kaggle "
        "mkdir org pip pip3 python python3 quiet root sudo tmp unzip upgrade usr wget www",
    )
)


@dataclass(frozen=True)
class ShellFailure:
    """A shell command that failed.

    Attributes:
        cell: number of the cell that ran it, as in `JobRecord.cell`.
        command: the command, masked; one of a `!` line begins with "!".
        status: its exit status or, if a signal ended it, the signal's number, negative.
    """

    cell: int
    command: str
    status: int

    @property
    def name(self) -> str:
        """The command's first line, of at most 100 characters."""
        line = next((line.strip() for line in self.command.splitlines() if line.strip()), self.command)
        return line if len(line) <= _MAX_NAME_LENGTH else line[: _MAX_NAME_LENGTH - 1] + "…"

    @property
    def end(self) -> str:
        """How it ended, such as "exit status 4"."""
        return f"exit status {self.status}" if self.status > 0 else f"signal {-self.status}"

    def advice(self, cell: int) -> str:
        """Return the sentence for an error in `cell` that this failure may have caused."""
        if cell == self.cell:
            return f"Look first at its command `{self.name}`, which failed with {self.end}."
        return f"Look first at cell {self.cell}: its command `{self.name}` failed with {self.end}."


def named_cause(failures: Sequence[ShellFailure], source: str, error: str) -> ShellFailure | None:
    """Return the first of `failures` that names something that `source` or `error` names; None if none does.

    `source` is the failing cell's source, `error` the "Name: message" of its exception.
    """
    used = _words(f"{source}\n{error}")
    return next((failure for failure in failures if _words(failure.command) & used), None)


def possible_cause(failures: Sequence[ShellFailure], error: str) -> ShellFailure | None:
    """Return the first of `failures` if `error` ("Name: message") says that something is missing, else None."""
    return failures[0] if failures and _MISSING.search(error) else None


def _words(text: str) -> set[str]:
    """Return the names in `text` that tell files, folders and packages apart, in lower case."""
    words = {word.lstrip(".-").removesuffix(".git").lower().replace("-", "_") for word in _WORD.findall(text)}
    return {word for word in words if len(word) >= 3 and not word.isdigit()} - _COMMON
