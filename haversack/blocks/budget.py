"""A size limit for a cache folder, kept by LRU eviction.

A cache is a folder of folders of files. An entry is the files of one of these folders whose names are equal up to the
first dot; it is evicted as a whole. A process that has an evicted file open can still read it, so processes that share
a cache need no coordination.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

_log = logging.getLogger(__name__)

_SMALLEST_DEFAULT = 256 << 20


@dataclass
class _Entry:
    """The files of one cache entry.

    Attributes:
        used: when one of them was last read or changed, in seconds since 1970.
        files: their paths, each with the bytes that it occupies on the disk, holes excluded.
    """

    used: float = 0.0
    files: dict[str, int] = field(default_factory=dict)


class Budget:
    """Keeps the cache in `folder`, which must exist, at about `limit` bytes.

    `limit` None stands for a tenth of the disk's free space, at least 256 MiB. Between two evictions the cache may
    exceed the limit by an eighth.

    Thread-safe: `_lock` guards `_added`, the bytes reported since `add` last started an eviction; `_eviction_lock` is
    held by the thread that evicts.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder = folder
        self.limit = limit if limit is not None else max(_SMALLEST_DEFAULT, shutil.disk_usage(folder).free // 10)
        self._added = 0
        self._lock = threading.Lock()
        self._eviction_lock = threading.Lock()

    def add(self, size: int) -> None:
        """Count `size` bytes that the caller has added; after an eighth of the limit, start `evict` in a new thread."""
        with self._lock:
            self._added += size
            if self._added <= self.limit // 8:
                return
            self._added = 0
        threading.Thread(target=self.evict, name="haversack-evict", daemon=True).start()

    def evict(self) -> None:
        """Delete the least recently used entries until at most nine tenths of the limit are used.

        Does nothing if another thread of this process is evicting. A file that cannot be deleted is logged and goes on
        counting, so that more recently used entries make room for it.
        """
        if not self._eviction_lock.acquire(blocking=False):
            return
        try:
            entries = self._entries()
            used = sum(sum(entry.files.values()) for entry in entries)
            for entry in sorted(entries, key=lambda entry: entry.used):
                if used <= self.limit * 9 // 10:
                    return
                used -= sum(size for file, size in entry.files.items() if _delete(file))
        finally:
            self._eviction_lock.release()

    def _entries(self) -> list[_Entry]:
        found: dict[str, _Entry] = {}
        for folder in _scan(self.folder):
            for file in _scan(folder.path) if folder.is_dir(follow_symlinks=False) else ():
                try:
                    status = file.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                entry = found.setdefault(os.path.join(folder.path, file.name.partition(".")[0]), _Entry())
                entry.used = max(entry.used, status.st_atime, status.st_mtime)
                entry.files[file.path] = status.st_blocks * 512
        return list(found.values())


def _scan(folder: Path | str) -> list[os.DirEntry[str]]:
    """Return what is in a folder; an empty list if it is gone or not a folder."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _delete(file: str) -> bool:
    """Delete a file and return whether it is gone; one that cannot be deleted is logged."""
    try:
        os.unlink(file)
    except FileNotFoundError:
        return True
    except OSError as error:
        _log.warning("%s cannot be deleted from the cache: %s. Delete it by hand to free its space.", file, error)
        return False
    return True
