"""What the kernel believes of a mount, and how it is told to believe it no longer.

It keeps names, also those that are not there, and attributes for minutes without asking: then a warm `stat` never
reaches this process. When others change the drive, the names they touched are taken back one by one
(`fuse_lowlevel_notify_inval_entry`), which libfuse's path-based interface does not offer: of its session and the number
it gives each folder the one is public, and the other is what `stat` calls the inode.

When nobody can say what changed, all names are asked anew (`FUSE_NOTIFY_INC_EPOCH`, Linux 6.16). An older kernel
believes what it has for as long as it was told.

Several names of one folder are to be looked up at once: each may wait for a round trip. The kernel does so for a file
system that says it can, which libfuse means to and before 3.17 never does (libfuse/libfuse#861). There its first words
to the kernel are said here, a moment before libfuse says them.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import struct
from pathlib import Path
from typing import Any

from haversack.drive.fuse.libfuse import VERSION, function, mfusepy

_log = logging.getLogger(__name__)

# Of <linux/fuse.h>.
_INC_EPOCH = 8  # FUSE_NOTIFY_INC_EPOCH
_MAJOR, _MINOR = 7, 31  # of libfuse 3.10 to 3.16
_PARALLEL_DIROPS, _BIG_WRITES, _MAX_PAGES = 1 << 18, 1 << 5, 1 << 22
# Of libfuse's alone: what is read from a file goes to the kernel by `splice`, without a copy.
_SPLICE = 1 << 7 | 1 << 8
# What libfuse passes on of `want`: async read, atomic O_TRUNC, export, invalidation, readdirplus (auto), async direct.
_PASSED_ON = sum(1 << bit for bit in (0, 3, 4, 12, 13, 14, 15))
_FIRST_REQUEST = 2
# Of <fcntl.h> and <linux/stat.h>.
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _AT_STATX_DONT_SYNC, _STATX_INO = -100, 0x100, 0x4000, 0x100
_LIBC = ctypes.CDLL(None)
_FOLDERS = 100_000
# Kilobytes. Twice that, and it would not go through a pipe, which may hold a megabyte.
_READ_AHEAD = 512


class Kernel:
    """The kernel's view of the mount at `mountpoint`. `connect` is called while the mount begins."""

    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint
        self._session: int | None = None
        # The folders of which the kernel may know a name.
        self._folders: set[str] = set()
        self._all = False

    def connect(self, connection: Any) -> None:
        """Find the session of the mount that begins with the operation being carried out on this thread.

        `connection` is libfuse's `fuse_conn_info`.
        """
        if VERSION < (3, 0):
            return
        get_session = function("fuse_get_session", ctypes.c_void_p, ctypes.c_void_p)
        self._session = get_session(mfusepy._libfuse.fuse_get_context().contents.fuse)
        connection.want |= connection.capable & _SPLICE
        if connection.capable & _PARALLEL_DIROPS:
            connection.want |= _PARALLEL_DIROPS
            if (3, 10) <= VERSION < (3, 17):
                self._begin(connection)

    def _begin(self, connection: Any) -> None:
        """Answer `FUSE_INIT` as libfuse is about to, with `FUSE_PARALLEL_DIROPS`. Its own answer then goes nowhere."""
        flags = connection.want & _PASSED_ON | _PARALLEL_DIROPS | _BIG_WRITES | _MAX_PAGES
        # struct fuse_init_out, behind struct fuse_out_header.
        answer = struct.pack(
            "=IIIIHHIIHHI28x",
            _MAJOR,
            _MINOR,
            connection.max_readahead,
            flags,
            connection.max_background,
            connection.congestion_threshold,
            connection.max_write,
            connection.time_gran,
            -(-connection.max_write // os.sysconf("SC_PAGESIZE")),
            0,
            0,
        )
        try:
            os.write(self._descriptor(), struct.pack("=IiQ", 16 + len(answer), 0, _FIRST_REQUEST) + answer)
        except OSError as error:
            _log.info("Names of one folder are looked up one after the other: %s", error)

    def read_further_ahead(self) -> None:
        """Have files that are read in order asked for in pieces of half a megabyte, where this user may say so."""
        try:
            # Not by `stat`: see `_inode`.
            mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
            device = next(mount[2] for mount in reversed(mounts) if _unescaped(mount[4]) == self._mountpoint)
            Path(f"/sys/class/bdi/{device}/read_ahead_kb").write_text(f"{_READ_AHEAD}\n")
        except (OSError, StopIteration) as error:
            _log.info("Files are read ahead in small pieces: %s", error)

    def asked(self, folder: str) -> None:
        """The kernel asked for a name in that folder, a path in the mount, or what is in it."""
        if folder not in self._folders:
            if len(self._folders) >= _FOLDERS:
                self._all = True
            else:
                self._folders.add(folder)

    def forget(self, folder: str, name: str) -> None:
        """Have the kernel ask again what stands under that name. Not to be called while it waits for an answer."""
        if self._session is None or not (self._all or folder in self._folders):
            return
        inode = _inode(self._mountpoint + folder)
        if inode is None:
            return  # the folder is gone, or the mount
        notify = function(
            "fuse_lowlevel_notify_inval_entry",
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_uint64,
            ctypes.c_char_p,
            ctypes.c_size_t,
        )
        encoded = name.encode(errors="surrogateescape")
        refused = -notify(self._session, inode, encoded, len(encoded))
        if refused not in (0, errno.ENOENT):
            _log.warning("The kernel keeps what it knows of %s: %s", name, os.strerror(refused))

    def forget_all(self) -> None:
        """Have the kernel ask again about every name."""
        if self._session is None:
            return
        try:
            # struct fuse_out_header: its own length, the notification's code in place of an error, no request.
            os.write(self._descriptor(), struct.pack("=IiQ", 16, _INC_EPOCH, 0))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENODEV, errno.ENOTCONN):
                _log.warning("The kernel keeps what it knows of the mount: %s", error)

    def _descriptor(self) -> int:
        """Where the kernel is spoken to."""
        return function("fuse_session_fd", ctypes.c_int, ctypes.c_void_p)(self._session)


def _inode(path: str) -> int | None:
    """The inode's number, as the kernel remembers it: who waits for an answer of its own cannot be killed any more."""
    about = (ctypes.c_uint64 * 32)()  # struct statx
    if _LIBC.statx(_AT_FDCWD, os.fsencode(path), _AT_SYMLINK_NOFOLLOW | _AT_STATX_DONT_SYNC, _STATX_INO, about):
        return None
    return int(about[4])


def _unescaped(path: str) -> str:
    r"""A path of `/proc/self/mountinfo`, where a space is `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)
