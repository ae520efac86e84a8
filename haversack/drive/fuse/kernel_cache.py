"""The kernel's caches of a mount, and how they are invalidated.

The kernel caches names (missing ones too) and attributes for 5 minutes (`attributes.CACHE_SECONDS`), so a warm `stat`
never reaches this process. When
others change the drive, the names they touched are invalidated one by one with `fuse_lowlevel_notify_inval_entry`.
libfuse offers that only in its low-level interface, which needs a session and a folder's inode number; the session can
be asked for, and the inode number is what `stat` returns.

When the changed names are not known, all names are invalidated with `FUSE_NOTIFY_INC_EPOCH` (Linux 6.16). An older
kernel keeps its caches until they time out.

A lookup may wait for a round trip, so several names of one folder should be looked up in parallel. The kernel does that
for a file system that sets `FUSE_PARALLEL_DIROPS`, which libfuse before 3.17 drops by mistake (libfuse/libfuse#861).
There, `KernelCache` replies to the kernel's `FUSE_INIT` itself, just before libfuse does.
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

from haversack.drive.fuse.libfuse import VERSION, current_session, libfuse_function

_log = logging.getLogger(__name__)

# From <linux/fuse.h>.
_INC_EPOCH = 8  # FUSE_NOTIFY_INC_EPOCH
_MAJOR, _MINOR = 7, 31  # the protocol of libfuse 3.10 to 3.16
_PARALLEL_DIROPS, _BIG_WRITES, _MAX_PAGES = 1 << 18, 1 << 5, 1 << 22
# FUSE_CAP_SPLICE_WRITE and FUSE_CAP_SPLICE_MOVE, flags of libfuse only: file reads reach the kernel without a copy.
_SPLICE = 1 << 7 | 1 << 8
# The flags of `want` that libfuse passes to the kernel: async read, atomic O_TRUNC, export, automatic invalidation,
# readdirplus, automatic readdirplus, async direct I/O.
_PASSED_ON = sum(1 << bit for bit in (0, 3, 4, 12, 13, 14, 15))
_INIT_REQUEST = 2  # the kernel's id of its first request, FUSE_INIT
# From <fcntl.h> and <linux/stat.h>.
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _AT_STATX_DONT_SYNC, _STATX_INO = -100, 0x100, 0x4000, 0x100
_LIBC = ctypes.CDLL(None)
_MAX_FOLDERS = 100_000
# Kilobytes. An answer of twice that does not fit into a pipe, which holds up to a megabyte, so it would not be spliced.
_READ_AHEAD = 512


class KernelCache:
    """The kernel's caches of the mount at `mountpoint`. Before `connect`, and with libfuse 2, nothing is invalidated.

    `invalidate` and `invalidate_all` must not be called by a FUSE operation: the kernel may be waiting for that
    operation with a lock that the invalidation needs.
    """

    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint
        self._session: int | None = None
        # Folders of which the kernel may cache a name; complete unless `_overflowed`.
        self._folders: set[str] = set()
        self._overflowed = False

    def connect(self, connection: Any) -> None:
        """Remember the mount's libfuse session, and ask the kernel for splicing and parallel lookups if it has them.

        Call it in the `init` operation, on libfuse's thread. `connection` is libfuse's `fuse_conn_info`, whose `want`
        is changed. Does nothing with libfuse 2.
        """
        if VERSION < (3, 0):
            return
        self._session = current_session()
        connection.want |= connection.capable & _SPLICE
        if connection.capable & _PARALLEL_DIROPS:
            connection.want |= _PARALLEL_DIROPS
            if (3, 10) <= VERSION < (3, 17):
                self._reply_to_init(connection)

    def _reply_to_init(self, connection: Any) -> None:
        """Reply to `FUSE_INIT` as libfuse would, plus `FUSE_PARALLEL_DIROPS`; the kernel drops libfuse's later reply.

        If the write fails, libfuse's own reply counts, and lookups in one folder are not parallel.
        """
        flags = connection.want & _PASSED_ON | _PARALLEL_DIROPS | _BIG_WRITES | _MAX_PAGES
        # struct fuse_init_out; struct fuse_out_header goes before it.
        reply = struct.pack(
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
            os.write(self._device(), struct.pack("=IiQ", 16 + len(reply), 0, _INIT_REQUEST) + reply)
        except OSError as error:
            _log.info("Names in one folder are looked up one at a time: %s", error)

    def raise_read_ahead(self) -> None:
        """Set the mount's read-ahead to half a megabyte, if this user may write `/sys/class/bdi`; else log it."""
        try:
            # `stat` would give the device number too, but could hang: see `_inode`.
            mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
            device = next(mount[2] for mount in reversed(mounts) if _unescaped(mount[4]) == self._mountpoint)
            Path(f"/sys/class/bdi/{device}/read_ahead_kb").write_text(f"{_READ_AHEAD}\n")
        except (OSError, StopIteration) as error:
            _log.info("The kernel reads files ahead in small requests: %s", error)

    def record_lookup(self, folder: str) -> None:
        """Record that the kernel may cache names of `folder`, a path in the mount, so that `invalidate` drops them.

        After 100,000 folders no more are recorded, and every folder counts as recorded.
        """
        if folder not in self._folders:
            if len(self._folders) >= _MAX_FOLDERS:
                self._overflowed = True
            else:
                self._folders.add(folder)

    def invalidate(self, folder: str, name: str) -> None:
        """Make the kernel forget the name `name` in `folder`, a path in the mount, and its attributes. Logs a failure.

        Does nothing if no lookup in that folder was recorded, or if the kernel no longer has the folder.
        """
        if self._session is None or not (self._overflowed or folder in self._folders):
            return
        inode = _inode(self._mountpoint + folder)
        if inode is None:
            return  # the folder or the mount is gone
        notify = libfuse_function(
            "fuse_lowlevel_notify_inval_entry",
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_uint64,
            ctypes.c_char_p,
            ctypes.c_size_t,
        )
        encoded = name.encode(errors="surrogateescape")
        failure = -notify(self._session, inode, encoded, len(encoded))
        if failure not in (0, errno.ENOENT):
            _log.warning("The kernel's cache of %s could not be invalidated: %s", name, os.strerror(failure))

    def invalidate_all(self) -> None:
        """Drop the kernel's cache of every name (Linux 6.16; an older kernel keeps it). Logs other failures."""
        if self._session is None:
            return
        try:
            # struct fuse_out_header: its length, the notification's code in place of an error, no request id.
            os.write(self._device(), struct.pack("=IiQ", 16, _INC_EPOCH, 0))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENODEV, errno.ENOTCONN):
                _log.warning("The kernel's caches of the mount could not be invalidated: %s", error)

    def _device(self) -> int:
        """The session's descriptor of `/dev/fuse`."""
        return libfuse_function("fuse_session_fd", ctypes.c_int, ctypes.c_void_p)(self._session)


def _inode(path: str) -> int | None:
    """Return the inode number of `path` from the kernel's cache; None if there is no such file.

    A `stat` could send a request to this very process, and a process that waits for its own FUSE answer cannot be
    killed. With `AT_STATX_DONT_SYNC` the kernel answers from the attributes that it has cached.
    """
    status = (ctypes.c_uint64 * 32)()  # struct statx
    if _LIBC.statx(_AT_FDCWD, os.fsencode(path), _AT_SYMLINK_NOFOLLOW | _AT_STATX_DONT_SYNC, _STATX_INO, status):
        return None
    return int(status[4])


def _unescaped(path: str) -> str:
    r"""Decode a path of `/proc/self/mountinfo`, where a space is `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)
