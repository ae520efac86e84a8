"""The text of one output of a cell, collected piece by piece in linear time, and cut where it is too long.

Runs in the process of `haversack run`. nbclient joins a stream's pieces after the cell and applies carriage returns
with a pattern that starts again at every character of a line, which takes minutes for a line of 400 kB. `StreamText`
gives the same text, and applies them as pieces arrive. So a progress bar that rewrites its line for hours keeps one
line here.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable

# What a line shows before its last carriage return is overwritten by what follows that. Anchored, so that each line is
# searched once.
_OVERWRITTEN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)
# Where a text is cut, this many characters on each side are masked together with what is kept, and then left out too:
# a secret that the cut splits is never kept in part. Longer than a private key. In characters.
_MARGIN = 10_000


class CutText:
    """A text that is kept whole up to `limit` characters; of a longer one only its beginning and its end are kept."""

    def __init__(self, limit: int) -> None:
        self._capacity = limit // 2 + _MARGIN  # characters, of the beginning and of the end
        self._beginning: list[str] = []
        self._end: deque[str] = deque()
        self._beginning_length = self._end_length = self._dropped = 0

    def append(self, piece: str) -> None:
        """Add `piece` to the end of the text."""
        room = self._capacity - self._beginning_length
        if room > 0:
            self._beginning.append(piece[:room])
            self._beginning_length += len(self._beginning[-1])
            piece = piece[room:]
        if piece:
            self._end.append(piece)
            self._end_length += len(piece)
        while self._end and self._end_length - len(self._end[0]) >= self._capacity:
            dropped = len(self._end.popleft())
            self._end_length -= dropped
            self._dropped += dropped

    def text(self, mask: Callable[[str], str]) -> tuple[str, str]:
        """Return the text, and the sentence in it that says what was left out and how to get it; "" for a whole text.

        `mask` returns a text with its secrets replaced. A text that is cut is masked; a whole one is returned as it is.
        """
        beginning, end = "".join(self._beginning), "".join(self._end)
        if not self._dropped and len(end) <= self._capacity:
            return beginning + end, ""
        total = len(beginning) + self._dropped + len(end)
        beginning = mask(beginning)[:-_MARGIN]
        end = mask(end[-self._capacity :])[_MARGIN:]
        left_out = (total - len(beginning) - len(end)) / 10**6
        sentence = (
            f"{left_out:.1f} MB of this output were left out; "
            f"to keep them, run the notebook with HAVERSACK_OUTPUT={math.ceil(total / 10**6)}."
        )
        return f"{beginning}\n[haversack: {sentence}]\n{end}", sentence


class StreamText(CutText):
    """What a cell wrote to its standard output or error. Carriage returns are applied, as nbclient does.

    A carriage return overwrites its line, unless it stands at the line's end.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._limit = limit
        # The last line, which has no end yet, so that a carriage return may still overwrite it.
        self._line: list[str] = []
        self._line_length = 0
        self._returned = False  # whether it ends with a carriage return

    def append(self, piece: str) -> None:
        """Add `piece`, as it was written."""
        if self._returned or "\r" in piece or "\n" in piece:
            lines, newline, piece = _OVERWRITTEN.sub("", "".join([*self._line, piece])).rpartition("\n")
            super().append(lines + newline)
            self._line, self._line_length = [], 0
            self._returned = piece.endswith("\r")
        self._line.append(piece)
        self._line_length += len(piece)
        if self._line_length > self._limit:
            # It will be cut anyway, and must not fill the memory. No carriage return overwrites this part any more.
            self._end_line()

    def text(self, mask: Callable[[str], str]) -> tuple[str, str]:
        """As `CutText.text`; nothing is appended afterwards."""
        self._end_line()
        return super().text(mask)

    def _end_line(self) -> None:
        super().append("".join(self._line))
        self._line, self._line_length, self._returned = [], 0, False
