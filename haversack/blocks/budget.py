"""The room that a cache may take on the disk: what was used longest ago goes first.

A cache is a folder of folders of files, where the files of one entry share a name up to the first dot. Entries are
removed whole. Who has a removed file open reads on in it, so processes that share a cache need not ask each other.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

_log = logging.getLogger(__name__)

_SMALLEST = 256 << 20


@dataclass
class _CachedFile:
    used: float = 0.0
    size: int = 0
    files: list[str] = field(default_factory=list)


class Budget:
    """At most about `limit` bytes in `folder`; by default a tenth of what is free on its disk, 256 MB at least."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder = folder
        self.limit = limit if limit is not None else max(_SMALLEST, shutil.disk_usage(folder).free // 10)
        self._added = 0
        self._lock = threading.Lock()
        self._evicting = threading.Lock()

    def add(self, size: int) -> None:
        """So many bytes came. Now and then the oldest go, on a thread of their own."""
        with self._lock:
            self._added += size
            if self._added <= self.limit // 8:
                return
            self._added = 0
        threading.Thread(target=self.evict, name="haversack-evict", daemon=True).start()

    def evict(self) -> None:
        """Remove entries until nine tenths of the budget are used. Nothing to do while another thread is at it."""
        if not self._evicting.acquire(blocking=False):
            return
        try:
            entries = self._entries()
            used = sum(entry.size for entry in entries)
            for entry in sorted(entries, key=lambda entry: entry.used):
                if used <= self.limit * 9 // 10:
                    return
                for file in entry.files:
                    _remove(file)
                used -= entry.size
        finally:
            self._evicting.release()

    def _entries(self) -> list[_CachedFile]:
        found: dict[str, _CachedFile] = {}
        for folder in _scan(self.folder):
            for file in _scan(folder.path) if folder.is_dir(follow_symlinks=False) else ():
                try:
                    about = file.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                entry = found.setdefault(os.path.join(folder.path, file.name.partition(".")[0]), _CachedFile())
                entry.used = max(entry.used, about.st_atime, about.st_mtime)
                entry.size += about.st_blocks * 512
                entry.files.append(file.path)
        return list(found.values())


def _scan(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as inside:
            return list(inside)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove(file: str) -> None:
    try:
        os.unlink(file)
    except OSError as error:
        if error.errno != errno.ENOENT:
            _log.warning("%s cannot be removed from the cache: %s", file, error)
