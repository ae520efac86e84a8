"""FUSE operations of `/kaggle/input`: a read-only tree of files that never changes.

The mount is read-only, so the kernel itself refuses every write with `EROFS`. It caches names, attributes and pages for
as long as it likes. Operations run on many threads; a slow read delays no other.
"""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from haversack.drive.fuse.attributes import BLOCK
from haversack.drive.fuse.handles import OpenFolder
from haversack.drive.fuse.kernel_cache import KernelCache
from haversack.drive.fuse.libfuse import BaseOperations, FuseOSError
from haversack.drive.remote.calls import FOLDER, File
from haversack.notebook.kaggle.attachment import AttachedInput
from haversack.notebook.kaggle.inputs import InputFiles
from haversack.notebook.kaggle.readers import Reader, Readers
from haversack.notebook.kaggle.tree import InputFolder, InputPath, InputTree


class InputOperations(BaseOperations):  # type: ignore[misc]
    """The operations of one mount, called by libfuse on many threads. Paths are those of the mount, from `/`.

    An `OSError`, such as `ConnectionFailed`, ends the system call with its errno; any other error, such as
    `IntegrityError`, ends it with `EIO`.

    | field | type | assigned by |
    |---|---|---|
    | `kernel_cache` | KernelCache | the constructor |
    | `ready` | Event | set by `init_with_config` once the kernel has mounted |
    | `_open_files` | handle → (input's position, file's name, Reader) | `open` adds, `release` removes |
    | `_open_folders` | handle → OpenFolder | `opendir` adds, `releasedir` removes |

    The dicts are changed by single operations that are atomic in CPython.

    Args:
        inputs: the inputs with their opened files; the caller closes them.
        mountpoint: the absolute path of the mount.
        newer: whether listings have Kaggle's newer paths; see `InputTree`.
        spools: an existing folder for decompressed bytes.
    """

    use_ns = True
    flag_nopath = True
    flag_nullpath_ok = True

    def __init__(
        self, inputs: Sequence[tuple[AttachedInput, InputFiles]], mountpoint: str, newer: bool, spools: Path
    ) -> None:
        self.kernel_cache = KernelCache(mountpoint)
        self.ready = threading.Event()
        self._inputs = inputs
        self._tree = InputTree(inputs, newer)
        self._readers = [Readers(files, spools) for _, files in inputs]
        self._time = max((one.attached for one, _ in inputs), default=0.0)
        self._open_files: dict[int, tuple[int, str, Reader]] = {}
        self._open_folders: dict[int, OpenFolder] = {}
        self._handles = itertools.count(1)

    def init_with_config(self, connection: Any, config: Any) -> None:
        self.kernel_cache.connect(connection)
        self.ready.set()

    # Names and attributes

    def getattr(self, path: str | None, fh: int | None = None) -> File:
        """Return what is at `path`, or the file that `fh` has open, for `Attributes`. Raises `ENOENT`."""
        if path is None:
            number, name, reader = self._open_files[fh or 0]
            return self._file(name, reader.size, self._inputs[number][0].attached)
        found = self._found(path)
        return self._file(found.name, found.entry, self._modified(found))

    def opendir(self, path: str) -> int:
        """Open a folder, and return its handle. Raises `ENOENT` and `ENOTDIR`."""
        found = self._found(path)
        folder = found.entry
        if not isinstance(folder, InputFolder):
            raise FuseOSError(errno.ENOTDIR)
        number = next(self._handles)
        self._open_folders[number] = OpenFolder(path, lambda: (0, self._entries(folder, self._modified(found))))
        return number

    def readdir_with_offset(self, path: str | None, offset: int, fh: int) -> Iterator[tuple[str, File, int, bool]]:
        """Yield (name, file, position, whether its attributes may be cached) of the entries after `offset`."""
        for name, file, position in self._open_folders[fh].after(offset):
            yield name, file, position, name not in (".", "..")

    def releasedir(self, path: str | None, fh: int) -> int:
        del self._open_folders[fh]
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        """Return a full file system, as large as the files that are attached."""
        total = sum(size for _, files in self._inputs for _, size in files.sizes()) // BLOCK
        return {"f_bsize": BLOCK, "f_frsize": BLOCK, "f_blocks": total, "f_namemax": 255}

    # Bytes

    def open(self, path: str, flags: int) -> int:
        """Open a file, and return its handle. Raises `ENOENT`, `EISDIR`, and `OSError` if a spool cannot be made."""
        found = self._found(path)
        if isinstance(found.entry, InputFolder):
            raise FuseOSError(errno.EISDIR)
        reader = self._readers[found.number].acquire(found.name, found.entry)
        number = next(self._handles)
        self._open_files[number] = found.number, found.name, reader
        return number

    def can_keep_cache(self, fh: int) -> bool:
        """Return True: the files never change, so the kernel's pages of an earlier handle are right."""
        return True

    def read_buf(self, path: str | None, buf: Any, size: int, offset: int, fh: int) -> bytes:
        """Return up to `size` bytes from `offset` of the open file `fh`. Raises what `Reader.read` raises."""
        return self._open_files[fh][2].read(offset, size)

    def release(self, path: str | None, fh: int) -> int:
        number, name, _ = self._open_files.pop(fh)
        self._readers[number].release(name)
        return 0

    # The kernel refuses these before it asks; libfuse 2 is given them all the same.

    def create(self, path: str, mode: int, flags: int) -> NoReturn:
        raise FuseOSError(errno.EROFS)

    def write_buf(self, path: str | None, buf: Any, offset: int, fh: int) -> NoReturn:
        raise FuseOSError(errno.EROFS)

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> NoReturn:
        raise FuseOSError(errno.EROFS)

    def _found(self, path: str) -> InputPath:
        found = self._tree.find(path)
        if found is None:
            raise FuseOSError(errno.ENOENT)
        return found

    def _modified(self, found: InputPath) -> float:
        return self._inputs[found.number][0].attached if found.number >= 0 else self._time

    def _entries(self, folder: InputFolder, modified: float) -> Iterator[tuple[str, File]]:
        """Yield the names of a folder, `.` and `..` first, with their files."""
        for dot in (".", ".."):
            yield dot, self._file(dot, folder, modified)
        for name, entry in folder.entries.items():
            yield name, self._file(name, entry, modified)

    def _file(self, name: str, entry: InputFolder | int, modified: float) -> File:
        kind, size = (FOLDER, 0) if isinstance(entry, InputFolder) else ("application/octet-stream", entry)
        return File(name, name, "", kind, size, "", modified, 1)
