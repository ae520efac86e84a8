"""The bytes of open files of an input, at any offset, while an archive's member can only be decompressed in sequence.

    LocalReader    a file of this disk: of a local folder, or fetched from a drive's folder
    WholeReader    a small member of an archive: read and verified at its first read, and kept in memory while open
    SpoolReader    a large member: decompressed once, as far as it is read, into an unlinked file of this disk

A spool makes a backward seek cheap, which decompressing again from the start would not: SQLite, HDF5 and zip files in
an archive are read at random. Once a reader has gone past the first megabytes, the rest of the member is prefetched.
Files that are opened one after the other in the archive's order, as by a loop over images, have their successors
prefetched. All classes are thread-safe: the kernel reads ahead on several threads.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

from haversack.notebook.kaggle.inputs import InputFiles

# Up to this size a member is read whole, in bytes. One range and one call decompress it.
_MAX_WHOLE = 4 << 20
_PIECE = 1 << 20
# What a reader has to read in sequence before the rest is prefetched, in bytes.
_PREFETCH_AFTER = 4 << 20
# Bytes of spools that are kept after their files were closed, for the next `open`.
_MAX_KEPT = 1 << 30
# So many files opened in the archive's order make a scan, of which this many bytes are prefetched.
_SCAN_LENGTH = 4
_SCAN_AHEAD = 8 << 20
# A loop over a sorted folder may skip some members of the archive's order.
_SCAN_GAP = 4


class Reader(Protocol):
    """An open file. `read` raises what `InputFiles` raises, and `OSError`."""

    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`, fewer only at the end."""
        ...

    def close(self) -> None: ...


class LocalReader:
    """Reads the file `name` of `files`, of `size` bytes, from the file of this disk that `open` gives."""

    def __init__(self, files: InputFiles, name: str, size: int) -> None:
        self.size = size
        self._files = files
        self._name = name
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None  # assigned under the lock

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            # The first read, and not `open`, fetches a file of a drive.
            file = self._file = self._file or self._files.open(self._name)
        return os.pread(file.fileno(), size, offset)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class WholeReader:
    """Reads the file `name` of `files`, of `size` bytes, into memory at its first read."""

    def __init__(self, files: InputFiles, name: str, size: int) -> None:
        self.size = size
        self._files = files
        self._name = name
        self._lock = threading.Lock()
        self._content: bytes | None = None  # assigned under the lock

    def read(self, offset: int, size: int) -> bytes:
        if self._content is None:
            with self._lock:
                if self._content is None:
                    self._content = self._files.read(self._name)
        return self._content[offset : offset + size]

    def close(self) -> None:
        self._content = None


class SpoolReader:
    """Reads the file `name` of `files`, of `size` bytes, through a spool in the folder `spools`.

    The first `_filled` bytes are in the spool, and never change. `_lock` guards the stream and `_filled`; bytes before
    `_filled` are read without it. The member's CRC is compared when its last byte is decompressed: the read that
    reaches it raises `IntegrityError` if it is wrong. A failed read begins the member anew at the next one.
    """

    def __init__(self, files: InputFiles, name: str, size: int, spools: Path) -> None:
        self.size = size
        self._files = files
        self._name = name
        self._lock = threading.Lock()
        self._stream: BinaryIO | None = None
        self._filled = 0
        self._prefetched = False
        self._spool = tempfile.TemporaryFile(dir=spools)  # noqa: SIM115 - `close` closes it

    def read(self, offset: int, size: int) -> bytes:
        stop = min(offset + size, self.size)
        if stop > self._filled:
            with self._lock:
                self._fill(stop)
        return os.pread(self._spool.fileno(), max(stop - offset, 0), offset)

    def close(self) -> None:
        with self._lock:
            self._drop_stream()
            self._spool.close()

    def _fill(self, stop: int) -> None:
        """Decompress up to the byte `stop`, or a little further. The caller holds `_lock`."""
        if stop > self._filled and self._stream is None:
            self._stream, self._filled = self._files.open(self._name), 0
        try:
            while self._filled < stop and self._stream is not None:
                piece = self._stream.read(min(_PIECE, self.size - self._filled))
                _write_at(self._spool.fileno(), piece, self._filled)
                self._filled += len(piece)
                self._prefetch_rest()
                if self._filled == self.size:
                    self._stream.read(1)  # the end, where the CRC is compared
                    self._drop_stream()
        except BaseException:
            self._drop_stream()
            self._filled = 0
            raise

    def _prefetch_rest(self) -> None:
        if not self._prefetched and self._filled >= _PREFETCH_AFTER:
            self._prefetched = True
            self._files.prefetch([self._name])

    def _drop_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class Readers:
    """The readers of one input's files, shared by all handles of a file. Thread-safe.

    Args:
        files: the input's files.
        spools: the folder for spools.

    `_open` maps a name to its reader and its reference count, `_kept` the names of closed files to their spools, least
    recently used first. Both are guarded by `_lock`, as is the scan.
    """

    def __init__(self, files: InputFiles, spools: Path) -> None:
        self._files = files
        self._spools = spools
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Reader, int]] = {}
        self._kept: OrderedDict[str, Reader] = OrderedDict()
        self._scan = _Scan(files)

    def acquire(self, name: str, size: int) -> Reader:
        """Return the reader of the file `name`, of `size` bytes. The caller releases it.

        Nothing is read yet. Raises `OSError` if a spool cannot be made.
        """
        with self._lock:
            reader, references = self._open.get(name, (None, 0))
            if reader is None:
                reader = self._kept.pop(name, None) or self._made(name, size)
            self._open[name] = reader, references + 1
        return reader

    def release(self, name: str) -> None:
        """Give back a reader; the last one to do so closes it, but spools are kept up to `_MAX_KEPT` bytes."""
        with self._lock:
            reader, references = self._open[name]
            if references > 1:
                self._open[name] = reader, references - 1
                return
            del self._open[name]
            closed = self._keep(name, reader)
        for one in closed:
            one.close()

    def _keep(self, name: str, reader: Reader) -> list[Reader]:
        """Keep a spool, and return the readers to close. The caller holds `_lock`."""
        if not isinstance(reader, SpoolReader):
            return [reader]
        self._kept[name] = reader
        total, closed = sum(one.size for one in self._kept.values()), []
        while total > _MAX_KEPT and self._kept:
            _, oldest = self._kept.popitem(last=False)
            total -= oldest.size
            closed.append(oldest)
        return closed

    def _made(self, name: str, size: int) -> Reader:
        """Make the reader of a file. The caller holds `_lock`."""
        if not self._files.is_archive:
            return LocalReader(self._files, name, size)
        if size <= _MAX_WHOLE:
            self._scan.opened(name)
            return WholeReader(self._files, name, size)
        return SpoolReader(self._files, name, size, self._spools)


class _Scan:
    """Notices that files are opened in the archive's order, and prefetches the next ones. The caller holds a lock.

    `_length` counts the files of the scan so far; the one in the row `_next` begins the next prefetch.
    """

    def __init__(self, files: InputFiles) -> None:
        self._files = files
        self._last, self._length, self._next = -_SCAN_GAP - 1, 0, 0

    @cached_property
    def _order(self) -> list[tuple[str, int]]:
        return list(self._files.sizes())

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, (name, _) in enumerate(self._order)}

    def opened(self, name: str) -> None:
        """Note that the file `name` was opened."""
        row = self._rows[name]
        is_next = 0 < row - self._last <= _SCAN_GAP
        self._length, self._next = (self._length + 1, self._next) if is_next else (0, 0)
        self._last = row
        if self._length >= _SCAN_LENGTH and row >= self._next:
            self._prefetch(row)

    def _prefetch(self, row: int) -> None:
        """Prefetch the files after `row`, as many as `_SCAN_AHEAD` bytes; half of them later, the next ones."""
        names, total = list[str](), 0
        for name, size in itertools.islice(self._order, row + 1, None):
            if total > _SCAN_AHEAD:
                break
            names.append(name)
            total += size
        self._next = row + 1 + len(names) // 2
        self._files.prefetch(names)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
