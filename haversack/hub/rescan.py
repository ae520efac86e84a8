"""The background rescan: compares the whole tree with the disk, for queries that concern all of it.

`changes` and searches without a parent wait for a rescan of a small tree. For a large tree they return possibly stale
results after a quarter of a second, and the rescan continues in the background. After a rescan of more than 50 ms, none
starts for nine times as long, so rescans take at most a tenth of the time.
"""

from __future__ import annotations

import threading
import time

from haversack.hub.disk import Disk

_WAIT = 0.25
_CHEAP = 0.05
_PAUSE_FACTOR = 9


class Rescan:
    """Scans the tree of `disk` in a thread, one scan at a time. Thread-safe; `_lock` guards starting the thread.

    `_last_duration` is in seconds; no scan starts before `_next_at` (monotonic clock).
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._last_duration = 0.0
        self._next_at = 0.0

    def refresh(self) -> None:
        """Bring the rows up to date with the disk, as far as a quarter of a second suffices.

        It waits for the rescan in progress, then starts another, because the first may have passed a folder before it
        changed. It waits for that one too, unless rescans take longer than a quarter of a second. No rescan starts too
        soon after a slow one.
        """
        until = time.monotonic() + _WAIT
        # A scan in progress may have passed a folder before it changed, so another one follows.
        self._join(until)
        self.start()
        if self._last_duration < _WAIT:
            self._join(until)

    def start(self, *, contents: bool = True) -> None:
        """Start a rescan in a thread, and return at once.

        `contents` also compares each file's size, mtime and inode, which a folder's ctime does not cover. Nothing
        happens if a rescan is running, a slow one ended recently, or the hub is closing.
        """
        with self._lock:
            running = self._thread is not None and self._thread.is_alive()
            if not running and time.monotonic() >= self._next_at and not self._disk.closing.is_set():
                thread = threading.Thread(target=self._compare, args=(contents,), name="watch", daemon=True)
                thread.start()
                self._thread = thread  # after its start: `_join` takes no lock, and only a started thread can be joined

    def close(self) -> None:
        """Stop the rescan in progress and wait for its thread; no other can start."""
        self._disk.closing.set()
        if self._thread is not None:
            self._thread.join()

    def _join(self, until: float) -> None:
        if self._thread is not None:
            self._thread.join(max(0.0, until - time.monotonic()))

    def _compare(self, contents: bool) -> None:
        started = time.monotonic()
        self._disk.scan_tree(contents=contents)
        ended = time.monotonic()
        self._last_duration = ended - started
        self._next_at = ended + (_PAUSE_FACTOR * self._last_duration if self._last_duration > _CHEAP else 0.0)
