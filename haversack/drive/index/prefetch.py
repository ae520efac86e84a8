"""A walk through the drive's folders (`find`, `os.walk`, `rglob`), and which folders are worth listing ahead of it.

It is recognised by a folder that is read soon after the folder it lies in. The folders next to and below it are then
listed ahead, further the longer the walk goes on, and no more once it has stopped. What is listed how, and what is kept
of it, is not decided here (`listing`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Container, Sequence

from haversack.drive.index.index import DriveIndex
from haversack.drive.remote.calls import PARENTS_PER_QUERY

# One more folder is asked about along.
_AT_ONCE = PARENTS_PER_QUERY - 1
# Who goes through a folder's folders is likely to go on: a few queries at once, and soon as many as there may be.
_FIRST_WINDOW = 4 * PARENTS_PER_QUERY
# A walk that has not read a folder for this many seconds has stopped.
_STOPPED_AFTER = 10.0
_REMEMBERED = 1000


class WalkDetector:
    """The walk that goes on in `index`, if one does. Safe to use from any thread."""

    def __init__(self, index: DriveIndex) -> None:
        self._index = index
        self._lock = threading.Lock()
        # Folders to list, the next one last; those listed ahead and not read yet, and how many these may be.
        self._left: list[str] = []
        self._ahead: set[str] = set()
        self._window = 0
        self._read: dict[str, float] = {}
        self._stepped = 0.0

    def is_on(self) -> bool:
        return bool(self._window) and time.monotonic() - self._stepped < _STOPPED_AFTER

    def is_ahead(self, folder: str) -> bool:
        """Whether that folder was listed ahead and is not read yet."""
        return folder in self._ahead

    def step(self, folder: str) -> None:
        """A folder is read: perhaps a step of a walk."""
        with self._lock:
            now = time.monotonic()
            if now - self._stepped > _STOPPED_AFTER:
                self._left.clear()
                self._ahead.clear()
                self._window = 0
            self._stepped = now
            self._read.pop(folder, None)
            self._read[folder] = now
            if len(self._read) > _REMEMBERED:
                del self._read[next(iter(self._read))]
            if folder in self._ahead:
                self._ahead.discard(folder)
                return
            file = self._index.get(folder)
            above = file.parent if file is not None else ""
            if now - self._read.get(above, -_STOPPED_AFTER) < _STOPPED_AFTER:
                # Also in the middle: a query may have been in vain, because somebody changed something meanwhile.
                if not self._left:
                    self._left = [one for one in self._index.unlisted([above]) if one != folder]
                self._window = max(self._window * 2, _FIRST_WINDOW)

    def wants(self, *, alone: bool) -> bool:
        """Whether `next` may have something to give."""
        return self.is_on() and len(self._ahead) < self._window and len(self._left) >= (1 if alone else _AT_ONCE)

    def next(self, running: Container[str], *, alone: bool) -> list[str]:
        """The folders to list ahead in one query, without those that are `running`.

        None when that is far enough ahead, and half a query only when it is `alone`: another may soon fill it.
        """
        with self._lock:
            if not self.wants(alone=alone):
                return []
            some: dict[str, None] = {}
            while self._left and len(some) < _AT_ONCE:
                last = len(some) - _AT_ONCE
                taken, self._left = self._left[last:], self._left[:last]
                new = self._index.not_listed(taken[::-1])
                some |= dict.fromkeys(one for one in new if one not in running and one not in self._ahead)
            if not alone and len(some) < _AT_ONCE:
                self._left += reversed(some)
                return []
            self._ahead.update(some)
            return list(some)

    def listed(self, folders: Sequence[str]) -> None:
        """All that lies in these folders is known now."""
        if self._window:
            with self._lock:
                self._left += self._index.unlisted(folders)

    def not_listed(self, folders: Sequence[str]) -> None:
        """These folders could not be listed."""
        with self._lock:
            self._ahead.difference_update(folders)
