"""The `struct stat` of a file on a drive.

A drive has no owners and no modes: every file belongs to the user who mounted it, and no other user has access. Times
are whole milliseconds. A listing fills one struct for every name, so filling is kept cheap: the six time fields are
packed in one call.

The kernel caches attributes for `CACHE_SECONDS`; `kernel_cache` invalidates them when others change the drive.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import Any

from haversack.drive import ROOT
from haversack.drive.remote.calls import FOLDER, SHORTCUT, File

BLOCK = 4096
CACHE_SECONDS = {3: 300.0, 2: 3.0}
"""How long the kernel caches names and attributes, by libfuse's major version; version 2 cannot invalidate them."""
_FILE_MODE = stat.S_IFREG | 0o600
_MODES = {FOLDER: stat.S_IFDIR | 0o700, SHORTCUT: stat.S_IFLNK | 0o777}
# Sizes of folders and shortcuts; every other file has its own size.
_SIZES = {FOLDER: BLOCK, SHORTCUT: len(ROOT)}
# st_atimespec, st_mtimespec and st_ctimespec are adjacent in the struct, each as seconds and nanoseconds.
_TIMES = struct.Struct("@6l")


class Attributes:
    """Writes the attributes of files into `status`, mfusepy's `struct stat`, which may be reused for many files.

    The constructor sets its owner to this process's user and group.
    """

    def __init__(self, status: Any) -> None:
        self.status = status
        status.st_uid, status.st_gid = os.getuid(), os.getgid()
        self._times_offset = type(status).st_atimespec.offset

    def fill(self, file: File) -> None:
        """Set mode, link count, size, blocks and times; access and change time equal the modification time."""
        status, kind = self.status, file.mime_type
        status.st_mode = _MODES.get(kind, _FILE_MODE)
        status.st_nlink = 2 if kind == FOLDER else 1
        status.st_size = size = _SIZES.get(kind, file.size)
        status.st_blocks = 0 if kind in _SIZES else -(-size // 512)
        seconds, milliseconds = divmod(round(file.modified * 1000), 1000)
        nanoseconds = milliseconds * 1_000_000
        _TIMES.pack_into(status, self._times_offset, seconds, nanoseconds, seconds, nanoseconds, seconds, nanoseconds)

    def fill_mode(self, file: File) -> None:
        """Set only the mode, which holds the file type: enough for a listing without attributes."""
        self.status.st_mode = _MODES.get(file.mime_type, _FILE_MODE)
