"""What is open in a mount: files, folders, and files that were deleted meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from haversack.drive.api import File
from haversack.drive.filling import Filling, Kept
from haversack.drive.journal import Draft


@dataclass
class Orphan:
    """A file that was deleted while it was open: as it was, or as it is written on, for those who have it open."""

    file: File
    draft: Draft | None
    holders: int


@dataclass(slots=True)
class Open:
    """An open file: of the drive as it was, until something is written into it or it is being written already.

    `seen` is the state of the mount in which `file` and `draft` were looked up last.
    """

    path: str
    file: File
    draft: Draft | None
    writes: bool
    appends: bool
    seen: int
    orphan: Orphan | None = None
    # What holds the bytes that the kernel is reading from disk by itself.
    holders: set[Kept | Filling] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Listing:
    """An open folder. The kernel fetches it in parts, and asks again for the entry that had no room in the last one."""

    def __init__(self, begin: Callable[[], Iterator[tuple[str, int]]]) -> None:
        self._begin = begin
        self._entries = begin()
        self._position = 0
        self._last: tuple[str, int] = ("", 0)

    def after(self, position: int) -> Iterator[tuple[str, int, int]]:
        """Name, mode and position of each entry behind `position`."""
        if position == self._position - 1:
            yield (*self._last, self._position)
        elif position != self._position:
            self._entries, self._position = self._begin(), 0
            while self._position < position and self._next():
                pass
        while self._next():
            yield (*self._last, self._position)

    def _next(self) -> bool:
        entry = next(self._entries, None)
        if entry is None:
            return False
        self._last, self._position = entry, self._position + 1
        return True
