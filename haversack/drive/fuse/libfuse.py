"""libfuse, through mfusepy: how a mount's operations are called, on many threads, quickly.

mfusepy's callbacks do for every program; these are for ours. An error of haversack's answers with its own errno;
anything unexpected is `EIO` and a line in the log.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from typing import Any, Protocol

if find_library("fuse3"):
    os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")

import mfusepy

from haversack.drive.cache.content import Extent
from haversack.drive.fuse.attributes import Attributes
from haversack.drive.remote.api import File
from haversack.errors import HaversackError

_log = logging.getLogger(__name__)

VERSION: tuple[int, int] = (mfusepy.fuse_version_major, mfusepy.fuse_version_minor)
BELIEVED = 300.0 if VERSION >= (3, 0) else 3.0
"""Seconds for which the kernel believes names and attributes; long only where they can be taken back (`kernel`)."""
_THREADS = 64
_IS_FILE, _AT_POSITION = 1 << 1, 1 << 2  # FUSE_BUF_IS_FD, FUSE_BUF_FD_SEEK
_PLUS_WANTED, _PLUS = 1 << 0, 1 << 1  # FUSE_READDIR_PLUS, FUSE_FILL_DIR_PLUS
_SPARE = 64  # later versions add to the structure
_thread = threading.local()
_allocate = ctypes.CDLL(None).calloc
_allocate.restype, _allocate.argtypes = ctypes.c_void_p, (ctypes.c_size_t, ctypes.c_size_t)


class _Vector(ctypes.Structure):
    """`struct fuse_bufvec` with one `struct fuse_buf`. libfuse frees it, and `memory` with it."""

    _fields_ = [
        ("count", ctypes.c_size_t),
        ("index", ctypes.c_size_t),
        ("offset", ctypes.c_size_t),
        ("size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("memory", ctypes.c_void_p),
        ("descriptor", ctypes.c_int),
        ("position", ctypes.c_int64),
    ]


def function(name: str, result: type, *arguments: type) -> Callable[..., int]:
    """A function of libfuse's that mfusepy does not offer."""
    found = mfusepy._libfuse[name]
    found.restype, found.argtypes = result, arguments
    return found


_copy = function("fuse_buf_copy", ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_size = function("fuse_buf_size", ctypes.c_size_t, ctypes.c_void_p)


class Arriving:
    """What the kernel brings to be written, `size` bytes of it; most often they wait in a pipe."""

    def __init__(self, vector: Any) -> None:
        self._vector = ctypes.cast(vector, ctypes.c_void_p)
        self.size = _size(self._vector)

    def put(self, descriptor: int, position: int) -> int:
        """Write what is left of it into an open file; how much that was. Raises `OSError`."""
        target = _Vector(count=1, size=self.size, flags=_IS_FILE | _AT_POSITION)
        target.descriptor, target.position = descriptor, position
        written = _copy(ctypes.byref(target), self._vector, 0)
        if written <= 0:
            number = -written or errno.EIO
            raise OSError(number, os.strerror(number))
        return written


class Operations(Protocol):
    """The operations that `Fuse` calls itself, besides those of `mfusepy.Operations`; see `operations.Operations`."""

    def open(self, path: str, flags: int) -> int: ...

    def create(self, path: str, mode: int, flags: int) -> int: ...

    def has_pages(self, fh: int) -> bool: ...

    def read_buf(self, path: str | None, buf: Any, size: int, offset: int, fh: int) -> bytes | Extent: ...

    def write_buf(self, path: str | None, buf: Arriving, offset: int, fh: int) -> int: ...

    def getattr(self, path: str | None, fh: int | None = None) -> File: ...

    def readdir_with_offset(self, path: str | None, offset: int, fh: int) -> Iterator[tuple[str, File, int, bool]]: ...

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> int: ...


class Fuse(mfusepy.FUSE):
    """Serve `operations` at `mountpoint` until it is unmounted; call it on a thread of its own.

    Raises `RuntimeError` when the kernel or libfuse refuses.
    """

    def __init__(self, operations: Operations, mountpoint: str, readonly: bool) -> None:
        options: dict[str, Any] = {"entry_timeout": BELIEVED, "attr_timeout": BELIEVED, "negative_timeout": BELIEVED}
        if VERSION >= (3, 12):
            options |= {"max_threads": _THREADS, "max_idle_threads": _THREADS}
        options |= {"ro": readonly, "fsname": "haversack", "subtype": "drive"}
        super().__init__(operations, mountpoint, foreground=True, nothreads=False, **options)

    def _wrapper(self, function: Callable[..., Any], *arguments: Any) -> int:
        """What libfuse calls: an operation, with what it raises as an errno."""
        if not hasattr(_thread, "pinned"):
            # A thread of libfuse's is none of Python's, so Python would make a thread state for each call and throw it
            # away. Held once more, it stays as long as the thread: twice as many calls in the same time.
            _thread.pinned = ctypes.pythonapi.PyGILState_Ensure()
        try:
            return function(*arguments) or 0
        except OSError as error:
            if error.errno:
                ordinary = (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY)
                if isinstance(error, HaversackError) and error.errno not in ordinary:
                    _log.warning("%s: %s", function.__name__, error)
                return -error.errno
            _log.exception("%s failed", function.__name__)
        except HaversackError as error:
            _log.warning("%s: %s", function.__name__, error)
        except Exception:  # noqa: BLE001 - libfuse cannot take it, so it is logged here
            _log.exception("%s failed", function.__name__)
        return -errno.EIO

    # The library's own versions of these pass on less than there is, or do more than is needed.

    def open(self, path: bytes, fip: Any) -> int:
        about = fip.contents
        about.fh = self.operations.open(path.decode(self.encoding, self.errors), about.flags)
        about.keep_cache = self.operations.has_pages(about.fh)
        about.noflush = about.flags & os.O_ACCMODE == os.O_RDONLY
        return 0

    def create(self, path: bytes, mode: int, fip: Any) -> int:
        about = fip.contents
        about.fh = self.operations.create(path.decode(self.encoding, self.errors), mode, about.flags)
        about.keep_cache = self.operations.has_pages(about.fh)
        return 0

    def write_buf(self, path: bytes | None, vector: Any, offset: int, fip: Any) -> int:
        return self.operations.write_buf(None, Arriving(vector), offset, fip.contents.fh)

    def read_buf(self, path: bytes | None, answer: Any, size: int, offset: int, fip: Any) -> int:
        found = self.operations.read_buf(None, None, size, offset, fip.contents.fh)
        place = _allocate(1, ctypes.sizeof(_Vector) + _SPARE)
        vector = _Vector.from_address(place)
        vector.count = 1
        if isinstance(found, bytes):
            vector.size = len(found)
            vector.memory = _allocate(1, len(found) or 1)
            ctypes.memmove(vector.memory, found, len(found))
        else:
            vector.size, vector.flags = found.size, _IS_FILE | _AT_POSITION
            vector.descriptor, vector.position = found.descriptor, found.offset
        ctypes.cast(answer, ctypes.POINTER(ctypes.c_void_p))[0] = place
        return 0

    def fgetattr(self, path: bytes | None, answer: Any, fip: Any) -> int:
        named = None if path is None else path.decode(self.encoding, self.errors)
        file = self.operations.getattr(named, fip.contents.fh if fip else None)
        Attributes(answer.contents).fill(file)
        return 0

    def readdir_fuse_2(self, path: bytes | None, buffer: Any, filler: Any, offset: int, fip: Any) -> int:
        attributes = Attributes(mfusepy.c_stat())
        for name, file, position, _ in self.operations.readdir_with_offset(None, offset, fip.contents.fh):
            attributes.fill_kind(file)
            if filler(buffer, name.encode(self.encoding, self.errors), attributes.about, position):
                break
        return 0

    def readdir_fuse_3(self, path: bytes | None, buffer: Any, filler: Any, offset: int, fip: Any, flags: int) -> int:
        attributes, whole = Attributes(mfusepy.c_stat()), flags & _PLUS_WANTED
        about = ctypes.byref(attributes.about)
        for name, file, position, sure in self.operations.readdir_with_offset(None, offset, fip.contents.fh):
            if whole and sure:
                attributes.fill(file)
                full = filler(buffer, name.encode(self.encoding, self.errors), about, position, _PLUS)
            else:
                attributes.fill_kind(file)
                full = filler(buffer, name.encode(self.encoding, self.errors), about, position, 0)
            if full:
                break
        return 0

    def truncate_fuse_3(self, path: bytes | None, length: int, fip: Any) -> int:
        # The handle is all there is when the file was deleted while open.
        named = None if path is None else path.decode(self.encoding, self.errors)
        return self.operations.truncate(named, length, fip.contents.fh if fip else None)

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        # The kernel itself sees to RENAME_NOREPLACE (1); an exchange of two names is more than a drive can do.
        if flags & ~1:
            raise mfusepy.FuseOSError(errno.EINVAL)
        return super().rename_fuse_3(old, new, flags)
