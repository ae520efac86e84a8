"""What `stat` says of a file on a drive.

A drive has no owners and no modes: everything belongs to who mounted it, and nobody else may look. Its times are whole
milliseconds. Writing them down costs as little as it can, for a listing does it for every name.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import Any

from haversack.drive import ROOT
from haversack.drive.remote.api import FOLDER, SHORTCUT, File

BLOCK = 4096
_FILE = stat.S_IFREG | 0o600
_KINDS = {FOLDER: stat.S_IFDIR | 0o700, SHORTCUT: stat.S_IFLNK | 0o777}
# Of all kinds but files, which have as many bytes as they have.
_SIZES = {FOLDER: BLOCK, SHORTCUT: len(ROOT)}
# Access, modification and change stand behind one another, each as seconds and nanoseconds.
_TIMES = struct.Struct("@6l")


class Attributes:
    """`about`, the `struct stat` of mfusepy, to be filled in for one file, or for one after another."""

    def __init__(self, about: Any) -> None:
        self.about = about
        about.st_uid, about.st_gid = os.getuid(), os.getgid()
        self._times = type(about).st_atimespec.offset

    def fill(self, file: File) -> None:
        about, kind = self.about, file.mime_type
        about.st_mode = _KINDS.get(kind, _FILE)
        about.st_nlink = 2 if kind == FOLDER else 1
        about.st_size = size = _SIZES.get(kind, file.size)
        about.st_blocks = 0 if kind in _SIZES else -(-size // 512)
        seconds, milliseconds = divmod(round(file.modified * 1000), 1000)
        nanoseconds = milliseconds * 1_000_000
        _TIMES.pack_into(about, self._times, seconds, nanoseconds, seconds, nanoseconds, seconds, nanoseconds)

    def fill_kind(self, file: File) -> None:
        """Only what a name is listed with when the rest is to be asked for."""
        self.about.st_mode = _KINDS.get(file.mime_type, _FILE)
