"""Detects a walk through the drive's folders (`find`, `os.walk`, `rglob`) and chooses the folders to prefetch for it.

A walk is detected when a folder is read soon after its parent. The folders beside it and below it are then listed
before the walk reads them. The number of folders that may be prefetched and unread doubles as the walk continues;
prefetching ends when no folder has been read for ten seconds. `listing` sends the queries and stores the answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Container, Sequence

from haversack.drive.index.index import DriveIndex
from haversack.drive.remote.calls import PARENTS_PER_QUERY

# One place in each query is left for the canary (see `listing`).
_BATCH = PARENTS_PER_QUERY - 1
_FIRST_WINDOW = 4 * PARENTS_PER_QUERY
# Seconds without a folder being read after which a walk counts as ended.
_ENDED_AFTER = 10.0
_READS_KEPT = 1000


class WalkDetector:
    """The folders that a walk is likely to read next. Thread-safe; `_lock` guards the fields.

    `_queue` holds folders to list, the next one last. `_prefetched` holds folders that were handed out by `next_batch`
    and not read since. No batch is handed out while they are `_window` or more; it is 0 until a walk is detected.
    `_read_at` maps the folders read most recently to the `time.monotonic` of their last read.
    """

    def __init__(self, index: DriveIndex) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._queue: list[str] = []
        self._prefetched: set[str] = set()
        self._window = 0
        self._read_at: dict[str, float] = {}
        self._last_read = 0.0

    def is_walking(self) -> bool:
        return bool(self._window) and time.monotonic() - self._last_read < _ENDED_AFTER

    def is_prefetched(self, folder: str) -> bool:
        """Whether `next_batch` returned `folder`, it was not discarded, and it has not been read since."""
        return folder in self._prefetched

    def folder_read(self, folder: str) -> None:
        """Record that `folder` is being read.

        If it was not prefetched and its parent was read less than ten seconds ago, a walk is detected: its sibling
        folders are queued, and the number of folders that may be prefetched and unread doubles.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._last_read > _ENDED_AFTER:
                self._queue.clear()
                self._prefetched.clear()
                self._window = 0
            self._last_read = now
            self._read_at.pop(folder, None)
            self._read_at[folder] = now
            if len(self._read_at) > _READS_KEPT:
                del self._read_at[next(iter(self._read_at))]
            if folder in self._prefetched:
                self._prefetched.discard(folder)
                return
            file = self._index.get(folder)
            parent = file.parent if file is not None else ""
            if now - self._read_at.get(parent, -_ENDED_AFTER) < _ENDED_AFTER:
                # Also in the middle of a walk: a prefetch is lost if somebody changes the folder during the query.
                if not self._queue:
                    self._queue = [one for one in self._index.unlisted_subfolders([parent]) if one != folder]
                self._window = max(self._window * 2, _FIRST_WINDOW)

    def has_batch(self, *, alone: bool) -> bool:
        """Whether `next_batch` may return folders. `alone` says that no other prefetch is in flight."""
        return (
            self.is_walking() and len(self._prefetched) < self._window and len(self._queue) >= (1 if alone else _BATCH)
        )

    def next_batch(self, running: Container[str], *, alone: bool) -> list[str]:
        """Return the folders to prefetch in one query, without those that are listed already or in `running`.

        `running` holds the folders whose listing is in flight. Empty if the window is full or nothing is queued. With
        `alone` (no other prefetch is in flight) a batch may be partly filled; otherwise an incomplete batch stays
        queued, because a prefetch in flight may fill it.
        """
        with self._lock:
            if not self.has_batch(alone=alone):
                return []
            batch: dict[str, None] = {}
            while self._queue and len(batch) < _BATCH:
                start = len(batch) - _BATCH
                taken, self._queue = self._queue[start:], self._queue[:start]
                unlisted = self._index.without_listed(taken[::-1])
                batch |= dict.fromkeys(one for one in unlisted if one not in running and one not in self._prefetched)
            if not alone and len(batch) < _BATCH:
                self._queue += reversed(batch)
                return []
            self._prefetched.update(batch)
            return list(batch)

    def queue_subfolders(self, folders: Sequence[str]) -> None:
        """Queue the unlisted subfolders of `folders`, which were just listed. Does nothing without a walk."""
        if self._window:
            with self._lock:
                self._queue += self._index.unlisted_subfolders(folders)

    def discard(self, folders: Sequence[str]) -> None:
        """Stop counting `folders` as prefetched: their listing failed or was incomplete."""
        with self._lock:
            self._prefetched.difference_update(folders)
