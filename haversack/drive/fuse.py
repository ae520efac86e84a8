"""What the kernel asks of a mounted drive, answered from the tree.

The mount shows the folder `My Drive`, and `MyDrive` as a symbolic link to it, as Colab does. Operations run on many
threads, so one slow read never holds up another. Names and attributes are believed by the kernel for a few seconds; the
pages of a file until it is opened anew and has changed. Modes and owners are the mounting user's: a drive has none, and
setting them is accepted and forgotten. Links and extended attributes are refused.

An error of haversack's answers with its own errno; anything unexpected is `EIO` and a line in the log.
"""

from __future__ import annotations

import errno
import functools
import itertools
import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from ctypes.util import find_library
from dataclasses import dataclass, field
from typing import Any

if find_library("fuse3"):
    os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")

import mfusepy

from haversack.drive import tree
from haversack.drive.api import File
from haversack.drive.journal import Draft
from haversack.drive.tree import ALIAS, ROOT, Drive
from haversack.errors import HaversackError, IntegrityError, IsAFolder, QuotaExceeded

_log = logging.getLogger(__name__)

_BELIEVED = 3.0
_THREADS = 64
_BLOCK = 4096
# Where a drive has no limit, programs that look for room should find some.
_UNLIMITED = 1 << 50


@dataclass
class _Open:
    """An open file: of the drive as it was, until something is written into it or it is being written already."""

    file: File
    draft: Draft | None
    writes: bool
    appends: bool
    lock: threading.Lock = field(default_factory=threading.Lock)


def _answered(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what an operation raises into an errno."""

    @functools.wraps(operation)
    def answer(*arguments: Any) -> Any:
        try:
            return operation(*arguments)
        except OSError as error:
            if not error.errno:
                _log.exception("%s failed", operation.__name__)
                raise mfusepy.FuseOSError(errno.EIO) from error
            if isinstance(error, HaversackError) and error.errno not in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY):
                _log.warning("%s: %s", operation.__name__, error)
            raise
        except HaversackError as error:
            _log.warning("%s: %s", operation.__name__, error)
            raise mfusepy.FuseOSError(errno.EIO) from error
        except Exception as error:
            _log.exception("%s failed", operation.__name__)
            raise mfusepy.FuseOSError(errno.EIO) from error

    return answer


class Operations(mfusepy.Operations):
    """The operations of one mount. `ready` is set once the kernel has it."""

    use_ns = True

    def __init__(self, drive: Drive, readonly: bool = False) -> None:
        self.drive = drive
        self.ready = threading.Event()
        self._readonly = readonly
        self._handles: dict[int, _Open] = {}
        self._numbers = itertools.count(1)
        self._owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        self._started = time.time_ns()

    def refuse_writes(self) -> None:
        """From now on nothing can be changed; what is open can still be read."""
        self._readonly = True

    def init_with_config(self, connection: Any, config: Any) -> None:
        self.ready.set()

    # Looking

    @_answered
    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        handle = self._handles.get(fh) if fh is not None else None
        if handle is not None and handle.draft is not None:
            return self._attributes(handle.draft.as_file())
        if path == f"/{ALIAS}":
            return self._link()
        names = _names(path)
        if names is None:
            return self._attributes(self.drive.root)
        return self._attributes(self.drive.find(names))

    @_answered
    def readlink(self, path: str) -> str:
        if path != f"/{ALIAS}":
            raise mfusepy.FuseOSError(errno.EINVAL)
        return ROOT

    @_answered
    def readdir(self, path: str, fh: int) -> list[Any]:
        names = _names(path)
        if names is None:
            inside = [(ROOT, {"st_mode": stat.S_IFDIR}, 0), (ALIAS, {"st_mode": stat.S_IFLNK}, 0)]
        else:
            inside = [
                (name, {"st_mode": stat.S_IFDIR if file.is_folder else stat.S_IFREG}, 0)
                for name, file in self.drive.listing(names).items()
                if len(name.encode()) <= 255  # the kernel refuses a whole folder for one longer name
            ]
        return [".", "..", *inside]

    @_answered
    def statfs(self, path: str) -> dict[str, int]:
        quota = self.drive.quota()
        total = quota.limit if quota.limit is not None else _UNLIMITED
        free = max(total - quota.used, 0) // _BLOCK
        sizes = {"f_bsize": _BLOCK, "f_frsize": _BLOCK, "f_blocks": total // _BLOCK, "f_bfree": free, "f_bavail": free}
        return sizes | {"f_files": 1 << 32, "f_ffree": 1 << 31, "f_favail": 1 << 31, "f_namemax": 255}

    # Files

    @_answered
    def open(self, path: str, flags: int) -> int:
        names = self._below(path)
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if writes:
            self._check_writable()
        if writes and flags & os.O_TRUNC:
            draft = self.drive.open_draft(names, truncate=True)
            return self._opened(_Open(draft.as_file(), draft, True, bool(flags & os.O_APPEND)))
        there = self.drive.draft_at(names)
        file = there.as_file() if there is not None else self.drive.find(names)
        if file.is_folder:
            raise IsAFolder(f"{path} is a folder.", "Open a file in it.")
        tree.check_has_bytes(file)
        return self._opened(_Open(file, there, writes, bool(flags & os.O_APPEND)))

    @_answered
    def create(self, path: str, mode: int, flags: int) -> int:
        self._check_writable()
        draft = self.drive.open_draft(
            self._below(path), truncate=bool(flags & os.O_TRUNC), exclusive=bool(flags & os.O_EXCL)
        )
        return self._opened(_Open(draft.as_file(), draft, True, bool(flags & os.O_APPEND)))

    @_answered
    def read(self, path: str | None, size: int, offset: int, fh: int) -> bytes:
        handle = self._handles[fh]
        if handle.draft is None:
            with handle.lock:
                if handle.draft is None:
                    handle.file, handle.draft = self.drive.current(handle.file)
        if handle.draft is not None:
            return self.drive.journal.read(handle.draft, offset, size)
        try:
            return self.drive.read(handle.file, offset, size)
        except IntegrityError:
            handle.file = self.drive.refreshed(handle.file)
            return self.drive.read(handle.file, offset, size)

    @_answered
    def write(self, path: str | None, data: bytes, offset: int, fh: int) -> int:
        self._check_writable()
        handle = self._handles[fh]
        return self.drive.journal.write(self._draft(handle), data, None if handle.appends else offset)

    @_answered
    def truncate(self, path: str | None, length: int, fh: int | None = None) -> int:
        self._check_writable()
        handle = self._handles.get(fh) if fh is not None else None
        if handle is not None and handle.writes:
            self.drive.journal.truncate(self._draft(handle), length)
            return 0
        if path is None:
            raise mfusepy.FuseOSError(errno.ESTALE)
        draft = self.drive.open_draft(self._below(path), truncate=length == 0)
        try:
            self.drive.journal.truncate(draft, length)
        finally:
            self.drive.journal.release(draft)
        return 0

    @_answered
    def flush(self, path: str | None, fh: int) -> int:
        """What `close()` waits for: the bytes are safe on this machine."""
        draft = self._handles[fh].draft
        if draft is not None and self._handles[fh].writes:
            self.drive.journal.commit(draft)
            if self.drive.journal.is_full():
                raise QuotaExceeded("The drive is full.", "Free space on it; what was written waits on this machine.")
        return 0

    @_answered
    def fsync(self, path: str | None, datasync: int, fh: int) -> int:
        """Returns once the bytes are on the drive."""
        draft = self._handles[fh].draft
        if draft is not None:
            self.drive.journal.commit(draft)
            self.drive.journal.wait(draft)
        return 0

    @_answered
    def release(self, path: str | None, fh: int) -> int:
        handle = self._handles.pop(fh)
        if handle.draft is not None:
            self.drive.journal.release(handle.draft)
        return 0

    # Names

    @_answered
    def mkdir(self, path: str, mode: int) -> int:
        self._check_writable()
        self.drive.make_folder(self._below(path))
        return 0

    @_answered
    def unlink(self, path: str) -> int:
        self._check_writable()
        self.drive.remove(self._below(path))
        return 0

    @_answered
    def rmdir(self, path: str) -> int:
        self._check_writable()
        self.drive.remove_folder(self._below(path))
        return 0

    @_answered
    def rename(self, old: str, new: str) -> int:
        self._check_writable()
        self.drive.rename(self._below(old), self._below(new))
        return 0

    @_answered
    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        self._check_writable()
        self.drive.set_modified(self._below(path), (times[1] if times else time.time_ns()) / 1e9)
        return 0

    @_answered
    def chmod(self, path: str, mode: int) -> int:
        return 0

    @_answered
    def chown(self, path: str, uid: int, gid: int) -> int:
        return 0

    @_answered
    def symlink(self, target: str, source: str) -> int:
        raise mfusepy.FuseOSError(errno.ENOTSUP)

    @_answered
    def link(self, target: str, source: str) -> int:
        raise mfusepy.FuseOSError(errno.ENOTSUP)

    @_answered
    def mknod(self, path: str, mode: int, dev: int) -> int:
        raise mfusepy.FuseOSError(errno.ENOTSUP)

    # The mount's own

    def _below(self, path: str) -> tree.Names:
        """The names below My Drive; what lies beside it is fixed."""
        names = _names(path)
        if names is None:
            raise mfusepy.FuseOSError(errno.EROFS if not self._readonly else errno.EACCES)
        return names

    def _check_writable(self) -> None:
        if self._readonly:
            raise mfusepy.FuseOSError(errno.EROFS)

    def _opened(self, handle: _Open) -> int:
        number = next(self._numbers)
        self._handles[number] = handle
        return number

    def _draft(self, handle: _Open) -> Draft:
        """The draft that an open file is written to, begun with its present bytes at the first write."""
        with handle.lock:
            if handle.draft is None:
                handle.draft = self.drive.draft_of(handle.file)
            return handle.draft

    def _attributes(self, file: File) -> dict[str, Any]:
        modified = int(file.modified * 1e9) if file is not self.drive.root else self._started
        times = {"st_mtime": modified, "st_ctime": modified, "st_atime": modified}
        if file.is_folder:
            return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2, "st_size": _BLOCK, **times, **self._owner}
        blocks = {"st_size": file.size, "st_blocks": -(-file.size // 512)}
        return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, **blocks, **times, **self._owner}

    def _link(self) -> dict[str, Any]:
        times = {"st_mtime": self._started, "st_ctime": self._started, "st_atime": self._started}
        return {"st_mode": stat.S_IFLNK | 0o777, "st_nlink": 1, "st_size": len(ROOT), **times, **self._owner}


class Fuse(mfusepy.FUSE):
    """Serve `operations` at `mountpoint` until it is unmounted; call it on a thread of its own.

    Raises `RuntimeError` when the kernel or libfuse refuses.
    """

    def __init__(self, operations: Operations, mountpoint: str, readonly: bool) -> None:
        options: dict[str, Any] = {"entry_timeout": _BELIEVED, "attr_timeout": _BELIEVED, "negative_timeout": 1.0}
        version = (mfusepy.fuse_version_major, mfusepy.fuse_version_minor)
        if version >= (3, 12):
            options |= {"max_threads": _THREADS, "max_idle_threads": 10}
        # hard_remove: a file deleted while it is open must not become a `.fuse_hidden…` on the drive.
        options |= {"auto_cache": True, "hard_remove": True, "ro": readonly, "fsname": "haversack", "subtype": "drive"}
        super().__init__(operations, mountpoint, foreground=True, nothreads=False, **options)

    def truncate_fuse_3(self, path: bytes | None, length: int, fip: Any) -> int:
        # The library drops the handle, which is all there is when the file was deleted while open.
        named = None if path is None else path.decode(self.encoding, self.errors)
        return self.operations.truncate(named, length, fip.contents.fh if fip else None)

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        # The kernel itself sees to RENAME_NOREPLACE (1); an exchange of two names is more than a drive can do.
        if flags & ~1:
            raise mfusepy.FuseOSError(errno.EINVAL)
        return super().rename_fuse_3(old, new, flags)


def _names(path: str) -> tree.Names | None:
    """The names below My Drive; None for the mount's own root."""
    names = tree.split(path)
    if not names:
        return None
    if names[0] != ROOT:
        raise mfusepy.FuseOSError(errno.ENOENT)
    return names[1:]
