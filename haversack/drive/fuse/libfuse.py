"""libfuse through mfusepy: calls a mount's operations, on many threads, with little overhead.

mfusepy's callbacks serve any program; `Fuse` replaces those that copy too much or hide arguments. An exception becomes
an errno: an `OSError` (most of haversack's errors are one) its own, any other exception `EIO` and a line in the log.
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

# mfusepy chooses the library when it is imported.
if find_library("fuse3"):
    os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")

import mfusepy

from haversack.drive.cache.content import Extent
from haversack.drive.fuse.attributes import CACHE_SECONDS, Attributes
from haversack.drive.remote.calls import File
from haversack.errors import HaversackError

_log = logging.getLogger(__name__)

VERSION: tuple[int, int] = (mfusepy.fuse_version_major, mfusepy.fuse_version_minor)
"""libfuse's version, as (major, minor)."""
FuseOSError = mfusepy.FuseOSError
BaseOperations = mfusepy.Operations
_THREADS = 64
_BUFFER_IS_FILE, _BUFFER_SEEKS = 1 << 1, 1 << 2  # FUSE_BUF_IS_FD, FUSE_BUF_FD_SEEK
_READDIR_PLUS, _FILL_PLUS = 1 << 0, 1 << 1  # FUSE_READDIR_PLUS, FUSE_FILL_DIR_PLUS
_RESERVE = 64  # bytes for fields that later versions of libfuse add to `struct fuse_buf`
_thread = threading.local()
_allocate = ctypes.CDLL(None).calloc
_allocate.restype, _allocate.argtypes = ctypes.c_void_p, (ctypes.c_size_t, ctypes.c_size_t)


class _BufferVector(ctypes.Structure):
    """libfuse's `struct fuse_bufvec` with one `struct fuse_buf`: bytes at `memory`, or in the file `descriptor`.

    libfuse frees the one that `read_buf` returns, and its `memory`, so both are allocated with `calloc`.
    """

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


def libfuse_function(name: str, result: type, *arguments: type) -> Callable[..., int]:
    """Return libfuse's C function `name`, with the ctypes types of its result and arguments, where mfusepy has none.

    Raises `AttributeError` if this libfuse does not have it.
    """
    found: Any = mfusepy._libfuse[name]
    found.restype, found.argtypes = result, arguments
    typed: Callable[..., int] = found
    return typed


_copy = libfuse_function("fuse_buf_copy", ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_size = libfuse_function("fuse_buf_size", ctypes.c_size_t, ctypes.c_void_p)


def current_session() -> int:
    """Return the address of the `fuse_session` whose operation is running on this thread. Needs libfuse 3."""
    get_session = libfuse_function("fuse_get_session", ctypes.c_void_p, ctypes.c_void_p)
    return get_session(mfusepy._libfuse.fuse_get_context().contents.fuse)


class WriteBuffer:
    """The bytes of one write operation, `size` of them. Most often they are still in a pipe from the kernel.

    `vector` is libfuse's `struct fuse_bufvec`, valid until the operation returns.
    """

    def __init__(self, vector: Any) -> None:
        self._vector = ctypes.cast(vector, ctypes.c_void_p)
        self.size = _size(self._vector)

    def copy_to(self, descriptor: int, position: int) -> int:
        """Move the next bytes into an open file at `position`; return how many. Call it again until all are moved.

        Raises `OSError`, also if no byte could be written.
        """
        target = _BufferVector(count=1, size=self.size, flags=_BUFFER_IS_FILE | _BUFFER_SEEKS)
        target.descriptor, target.position = descriptor, position
        written = _copy(ctypes.byref(target), self._vector, 0)
        if written <= 0:
            number = -written or errno.EIO
            raise OSError(number, os.strerror(number))
        return written


class CalledOperations(Protocol):
    """The operations that `Fuse` calls itself; mfusepy calls the others. `operations.Operations` describes each."""

    def open(self, path: str, flags: int) -> int: ...

    def create(self, path: str, mode: int, flags: int) -> int: ...

    def can_keep_cache(self, fh: int) -> bool: ...

    def read_buf(self, path: str | None, buf: Any, size: int, offset: int, fh: int) -> bytes | Extent: ...

    def write_buf(self, path: str | None, buf: WriteBuffer, offset: int, fh: int) -> int: ...

    def getattr(self, path: str | None, fh: int | None = None) -> File: ...

    def readdir_with_offset(self, path: str | None, offset: int, fh: int) -> Iterator[tuple[str, File, int, bool]]: ...

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> int: ...


class Fuse(mfusepy.FUSE):  # type: ignore[misc]
    """Mount `operations` at `mountpoint` and serve them; the constructor returns once it is unmounted.

    With `readonly`, the kernel refuses every write. Call it on a thread of its own. Raises `RuntimeError` if the kernel
    or libfuse refuses the mount.
    """

    operations: CalledOperations

    def __init__(self, operations: CalledOperations, mountpoint: str, readonly: bool) -> None:
        timeouts = ("entry_timeout", "attr_timeout", "negative_timeout")
        options: dict[str, Any] = dict.fromkeys(timeouts, CACHE_SECONDS[VERSION[0]])
        if VERSION >= (3, 12):
            options |= {"max_threads": _THREADS, "max_idle_threads": _THREADS}
        options |= {"ro": readonly, "fsname": "haversack", "subtype": "drive"}
        super().__init__(operations, mountpoint, foreground=True, nothreads=False, **options)

    def _wrapper(self, function: Callable[..., Any], *arguments: Any) -> int:
        """Call an operation for libfuse; return its result, or the negative errno of what it raised.

        Logs an error of haversack unless it is an everyday one (no such file, file exists, folder not empty), and any
        unexpected exception with its traceback.
        """
        if not hasattr(_thread, "pinned"):
            # Python did not create libfuse's threads, so ctypes creates a thread state for every call and drops it
            # afterwards. One reference that is never released keeps the state: twice as many calls per second.
            _thread.pinned = ctypes.pythonapi.PyGILState_Ensure()
        try:
            result: int = function(*arguments) or 0
            return result
        except OSError as error:
            if error.errno:
                ordinary = (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY)
                if isinstance(error, HaversackError) and error.errno not in ordinary:
                    _log.warning("%s: %s", function.__name__, error)
                return -error.errno
            _log.exception("%s failed", function.__name__)
        except HaversackError as error:
            _log.warning("%s: %s", function.__name__, error)
        except Exception:  # noqa: BLE001 - an exception cannot pass through libfuse, so it is logged here
            _log.exception("%s failed", function.__name__)
        return -errno.EIO

    # mfusepy's versions of the following hide arguments, copy bytes, or build a dict for every file.

    def open(self, path: bytes, fip: Any) -> int:
        info = fip.contents
        info.fh = self.operations.open(path.decode(self.encoding, self.errors), info.flags)
        info.keep_cache = self.operations.can_keep_cache(info.fh)
        info.noflush = info.flags & os.O_ACCMODE == os.O_RDONLY
        return 0

    def create(self, path: bytes, mode: int, fip: Any) -> int:
        info = fip.contents
        info.fh = self.operations.create(path.decode(self.encoding, self.errors), mode, info.flags)
        info.keep_cache = self.operations.can_keep_cache(info.fh)
        return 0

    def write_buf(self, path: bytes | None, vector: Any, offset: int, fip: Any) -> int:
        return self.operations.write_buf(None, WriteBuffer(vector), offset, fip.contents.fh)

    def read_buf(self, path: bytes | None, answer: Any, size: int, offset: int, fip: Any) -> int:
        """Read up to `size` bytes at `offset` of the open file `fip` for libfuse; return 0.

        Stores in `answer` a new `_BufferVector` with a copy of the bytes, or with the local file and the position that
        libfuse splices them from. `path` is ignored.
        """
        found = self.operations.read_buf(None, None, size, offset, fip.contents.fh)
        address = _allocate(1, ctypes.sizeof(_BufferVector) + _RESERVE)
        vector = _BufferVector.from_address(address)
        vector.count = 1
        if isinstance(found, bytes):
            vector.size = len(found)
            vector.memory = _allocate(1, len(found) or 1)
            ctypes.memmove(vector.memory, found, len(found))
        else:
            vector.size, vector.flags = found.size, _BUFFER_IS_FILE | _BUFFER_SEEKS
            vector.descriptor, vector.position = found.descriptor, found.offset
        ctypes.cast(answer, ctypes.POINTER(ctypes.c_void_p))[0] = address
        return 0

    def fgetattr(self, path: bytes | None, answer: Any, fip: Any) -> int:
        decoded = None if path is None else path.decode(self.encoding, self.errors)
        file = self.operations.getattr(decoded, fip.contents.fh if fip else None)
        Attributes(answer.contents).fill(file)
        return 0

    def readdir_fuse_2(self, path: bytes | None, buffer: Any, filler: Any, offset: int, fip: Any) -> int:
        attributes = Attributes(mfusepy.c_stat())
        for name, file, position, _ in self.operations.readdir_with_offset(None, offset, fip.contents.fh):
            attributes.fill_mode(file)
            if filler(buffer, name.encode(self.encoding, self.errors), attributes.status, position):
                break
        return 0

    def readdir_fuse_3(self, path: bytes | None, buffer: Any, filler: Any, offset: int, fip: Any, flags: int) -> int:
        """Pass the entries of the open folder `fip` from `offset` on to `filler` until `buffer` is full; return 0.

        An entry has attributes if the kernel asks for them in `flags` and may cache them, else only a file type.
        """
        attributes, plus = Attributes(mfusepy.c_stat()), flags & _READDIR_PLUS
        status = ctypes.byref(attributes.status)
        for name, file, position, cacheable in self.operations.readdir_with_offset(None, offset, fip.contents.fh):
            if plus and cacheable:
                attributes.fill(file)
                full = filler(buffer, name.encode(self.encoding, self.errors), status, position, _FILL_PLUS)
            else:
                attributes.fill_mode(file)
                full = filler(buffer, name.encode(self.encoding, self.errors), status, position, 0)
            if full:
                break
        return 0

    def truncate_fuse_3(self, path: bytes | None, length: int, fip: Any) -> int:
        # A file that was deleted while open has a handle and no path.
        decoded = None if path is None else path.decode(self.encoding, self.errors)
        return self.operations.truncate(decoded, length, fip.contents.fh if fip else None)

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        # The kernel itself enforces RENAME_NOREPLACE (1). A drive cannot exchange two names (RENAME_EXCHANGE).
        if flags & ~1:
            raise FuseOSError(errno.EINVAL)
        result: int = super().rename_fuse_3(old, new, flags)
        return result
