"""What is open in a mount: files, folders, and files that were deleted meanwhile."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from haversack.drive.cache.partial import CompleteFile, PartialFile
from haversack.drive.remote.api import File
from haversack.drive.writeback.journal import Draft


@dataclass
class Orphan:
    """A file that was deleted while it was open: as it was, or as it is written on, for those who have it open."""

    file: File
    draft: Draft | None
    holders: int


@dataclass(slots=True)
class OpenFile:
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
    holders: set[CompleteFile | PartialFile] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


class OpenFolder:
    """An open folder. The kernel fetches it in parts, and asks again for the entry that had no room in the last one.

    `begin` gives its names and files from the first on, and `seen`, the state of the mount in which they are so.
    """

    def __init__(self, path: str, begin: Callable[[], tuple[int, Iterator[tuple[str, File]]]]) -> None:
        self.path = path
        self._begin = begin
        self.seen, self._entries = begin()
        self._position = 0
        self._last: tuple[str, File] | None = None

    def after(self, position: int) -> Iterator[tuple[str, File, int]]:
        """Name, file and position of each entry behind `position`."""
        if position == self._position - 1 and self._last is not None:
            yield (*self._last, self._position)
        elif position != self._position:
            self.seen, self._entries = self._begin()
            self._position = 0
            for _ in itertools.islice(self._coming(), position):
                continue
        yield from self._coming()

    def _coming(self) -> Iterator[tuple[str, File, int]]:
        for entry in self._entries:
            self._last = entry
            self._position += 1
            yield (*entry, self._position)
