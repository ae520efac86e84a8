"""The whole tree, compared with the disk beside the calls: what answers about everything may lag behind, not wait.

A small tree is compared before the answer. A large one goes on being compared after a moment's patience, and the answer
tells what is known; a later one tells more. What takes long is done no more than a tenth of the time.
"""

from __future__ import annotations

import threading
import time

from haversack.hub.disk import Disk

_PATIENCE = 0.25
_SHORT = 0.05
_REST = 9


class Rescan:
    """Walks over `disk`, at most one at a time."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._lock = threading.Lock()
        self._walk: threading.Thread | None = None
        self._took = 0.0
        self._rested_at = 0.0

    def look(self) -> None:
        """Have everything compared, and wait for it unless that takes long."""
        until = time.monotonic() + _PATIENCE
        # One that is under way may have passed what was changed just now.
        self._join(until)
        self.begin()
        if self._took < _PATIENCE:
            self._join(until)

    def begin(self, *, contents: bool = True) -> None:
        """Have everything compared without waiting; nothing happens where that was done a moment ago."""
        with self._lock:
            walking = self._walk is not None and self._walk.is_alive()
            if not walking and time.monotonic() >= self._rested_at and not self._disk.closing.is_set():
                walk = threading.Thread(target=self._compare, args=(contents,), name="watch", daemon=True)
                walk.start()
                self._walk = walk  # only now: other calls wait for it without the lock

    def close(self) -> None:
        self._disk.closing.set()
        if self._walk is not None:
            self._walk.join()

    def _join(self, until: float) -> None:
        if self._walk is not None:
            self._walk.join(max(0.0, until - time.monotonic()))

    def _compare(self, contents: bool) -> None:
        started = time.monotonic()
        self._disk.walk(contents=contents)
        ended = time.monotonic()
        self._took = ended - started
        self._rested_at = ended + (_REST * self._took if self._took > _SHORT else 0.0)
