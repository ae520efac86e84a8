"""What the kernel believes of a mount, and how it is told to believe it no longer.

It keeps names, also those that are not there, and attributes for minutes without asking: then a warm `stat` never
reaches this process. When others change the drive, the names they touched are taken back one by one
(`fuse_lowlevel_notify_inval_entry`), which libfuse's path-based interface does not offer: of its session and the number
it gives each folder the one is public, and the other is what `stat` calls the inode.

When nobody can say what changed, all names are asked anew (`FUSE_NOTIFY_INC_EPOCH`, Linux 6.16). An older kernel
believes what it has for as long as it was told.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import struct

from haversack.drive.libfuse import VERSION, function, mfusepy

_log = logging.getLogger(__name__)

_INC_EPOCH = 8  # FUSE_NOTIFY_INC_EPOCH of <linux/fuse.h>
_FOLDERS = 100_000


class Kernel:
    """The kernel's view of the mount at `mountpoint`. `connect` is called while the mount begins."""

    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint
        self._session: int | None = None
        # The folders of which the kernel may know a name.
        self._folders: set[tuple[str, ...]] = set()
        self._all = False

    def connect(self) -> None:
        """Find the session of the mount whose operation is being carried out on this thread."""
        if VERSION >= (3, 0):
            get_session = function("fuse_get_session", ctypes.c_void_p, ctypes.c_void_p)
            self._session = get_session(mfusepy._libfuse.fuse_get_context().contents.fuse)

    def asked(self, folder: tuple[str, ...]) -> None:
        """The kernel asked for a name in that folder of the mount."""
        if folder not in self._folders:
            if len(self._folders) >= _FOLDERS:
                self._all = True
            else:
                self._folders.add(folder)

    def forget(self, folder: tuple[str, ...], name: str) -> None:
        """Have the kernel ask again what stands under that name. Not to be called while it waits for an answer."""
        if self._session is None or not (self._all or folder in self._folders):
            return
        try:
            inode = os.lstat(os.path.join(self._mountpoint, *folder)).st_ino
        except OSError:
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
        descriptor = function("fuse_session_fd", ctypes.c_int, ctypes.c_void_p)(self._session)
        try:
            # struct fuse_out_header: its own length, the notification's code in place of an error, no request.
            os.write(descriptor, struct.pack("=IiQ", 16, _INC_EPOCH, 0))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENODEV, errno.ENOTCONN):
                _log.warning("The kernel keeps what it knows of the mount: %s", error)
