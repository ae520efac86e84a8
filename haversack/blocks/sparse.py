"""A sparse local file that holds some blocks of a remote file, and the journal of which ones.

The file `NAME.part` has the size of the remote file from the start, with holes. `NAME.journal` has a line of JSON that
identifies the content, then one byte for each block. The journal is mapped into memory, so processes that share the
file see each other's blocks at once. When every block is present the file is renamed to `NAME`; a file of that name is
always complete. This module fetches nothing.

| byte | block | valid after SIGKILL | valid after a power cut or reboot |
|---|---|---|---|
| 0 | missing | | |
| 1 | present and synced | yes | yes; no with `lasting=False` |
| 2 | present, written but not synced | yes | no |

With `lasting=False` nothing is synced before the file is complete, for data that can be fetched again. Its journal is
then valid until the next boot; after that, even a complete file starts over when it is opened as a `SparseFile`.

The content is identified by its size and its `tag`, a string such as the `ETag`. A file that is opened with another
size or tag is deleted and starts over.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from haversack import disk
from haversack.errors import DiskFull, IntegrityError

BLOCK = 64 << 10
"""Bytes in a block; small, so that reading one image of an archive fetches little else."""

_MISSING, _SYNCED, _WRITTEN = b"\0", b"\1", b"\2"
_PRESENT = re.compile(b"[^\0]")


class SparseFile:
    """The sparse file whose name is `path` once it is complete. The constructor creates it or continues what exists.

    Args:
        path: the final path, NAME below.
        size: the size of the content in bytes.
        tag: identifies the content together with `size`.
        lasting: whether blocks are synced, so that they survive a power cut (see the module).

    The attribute `replaced` is whether other content, or a journal that is no longer valid, was found and deleted.

    | state | files | next state |
    |---|---|---|
    | partial | `NAME.part`, `NAME.journal` | complete: `finish`; removed: `discard`, `remove` |
    | complete | `NAME`, `NAME.journal` | partial: `forget`; removed: `discard`, `remove` |
    | removed | none; an open descriptor still reads | partial, when another `SparseFile` is opened |

    A block becomes written by `mark_written`, synced by `keep` or `finish`, and missing again by `forget`. `close` ends
    the use of this object and does not change the files.

    Thread-safe, and safe for several processes. The file lock `NAME.lock` guards the files' names (opening, `finish`,
    `forget`, `remove`). `_mark_lock` guards `_descriptor` and the journal's mapping against `close` while blocks are
    marked. Two writers of one block need no lock, since they write the same bytes. The constructor
    raises `OSError`.
    """

    def __init__(self, path: Path, size: int, tag: str, *, lasting: bool = True) -> None:
        self.path, self.size, self.tag, self.lasting = path, size, tag, lasting
        self._mark_lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._file_lock():
            found = _read_header(self._journal)
            data = path if path.exists() else self.part
            exists = found is not None and data.exists() and data.stat().st_size == found["size"]
            boot = found.pop("boot", None) if found else None
            valid = exists and found == self._header and (lasting or boot == disk.boot_id())
            self.replaced = exists and not valid
            if not valid:
                data = self._create_empty()
            self._descriptor = os.open(data, os.O_RDWR)
            if valid and boot != disk.boot_id():
                self._drop_unsynced()
            self._map_journal()

    @property
    def complete(self) -> bool:
        """Whether every block is present and the file has its final name."""
        return self._is_at(self.path)

    @property
    def descriptor(self) -> int:
        """The open file descriptor of the data; -1 after `close`."""
        return self._descriptor

    @property
    def present(self) -> int:
        """The number of bytes in blocks that are present."""
        return self.size - sum(stop - start for start, stop in self.missing(0, self.size))

    def missing(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the byte ranges (start, stop) of the missing blocks that overlap [start, stop), whole and in order."""
        at, last = self._first_block + start // BLOCK, self._first_block + -(-min(stop, self.size) // BLOCK)
        while 0 <= (hole := self._blocks.find(_MISSING, at, last)) < last:
            present = _PRESENT.search(self._blocks, hole, last)
            at = present.start() if present else last
            yield (hole - self._first_block) * BLOCK, min((at - self._first_block) * BLOCK, self.size)

    def write(self, offset: int, data: bytes) -> None:
        """Write `data` at `offset`; its blocks stay missing until `mark_written` or `keep`.

        Raises `DiskFull`, or another `OSError`.
        """
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _disk_full(self.path.parent, self.size) from error

    def mark_written(self, start: int, stop: int) -> int:
        """Mark the blocks that lie wholly in [start, stop) as written: present until the next boot.

        Returns the offset at which the last of them ends; `start` if there is none, if the system does not tell boots
        apart (so that nothing is marked), or if the file is closed.
        """
        return self._mark_whole(start, stop, _WRITTEN) if disk.boot_id() else start

    def keep(self, start: int, stop: int) -> int:
        """Sync the file if `lasting`, then mark the blocks that lie wholly in [start, stop) as present and synced.

        Returns the offset at which the last of them ends; `start` if there is none or the file is closed. Raises
        `OSError`.
        """
        return self._mark_whole(start, stop, _SYNCED)

    def forget(self, start: int, stop: int) -> None:
        """Mark the blocks that overlap [start, stop) as missing, because their bytes are wrong.

        A complete file is renamed to `part`, so `complete` becomes False. Raises `OSError`.
        """
        with self._file_lock():
            self._mark(start // BLOCK, -(-min(stop, self.size) // BLOCK), _MISSING)
            if self.complete:
                self.path.rename(self.part)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; missing blocks read as zeros, so check `missing` first.

        Raises `IntegrityError` if the file ends before `offset + size`.
        """
        data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise IntegrityError(
                f"{self.path} is shorter than its journal says.", "Delete it and its journal, then fetch it again."
            )
        return data

    def finish(self) -> None:
        """Sync the file, whose blocks must all be present, and rename it to its final name.

        Does nothing if the file is complete, or if it was deleted or replaced by another `SparseFile`. Raises
        `OSError`.
        """
        with self._file_lock():
            if self._is_at(self.part):
                os.fdatasync(self._descriptor)
                self._mark(0, -(-self.size // BLOCK), _SYNCED)
                self.part.rename(self.path)
                disk.sync_folder(self.path.parent)

    def discard(self) -> None:
        """Delete the file and its journal, and close this object. Raises `OSError`."""
        self.remove()
        self.close()

    def remove(self) -> None:
        """Delete the file and its journal; this and other open `SparseFile`s can still read it. Raises `OSError`."""
        with self._file_lock():
            for path in (self._journal, self.part, self.path):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; may be called twice.

        Afterwards `mark_written` and `keep` do nothing, and reading or writing raises `OSError` or `ValueError`.
        """
        with self._mark_lock:
            if self._descriptor >= 0:
                self._blocks.close()
                os.close(self._descriptor)
                self._descriptor = -1

    @property
    def part(self) -> Path:
        """The path of the data while the file is partial: `NAME.part`."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def _journal(self) -> Path:
        return self.path.with_name(self.path.name + ".journal")

    @property
    def _header(self) -> dict[str, object]:
        """The identity of the content in the journal, which also has the boot id."""
        return {"size": self.size, "tag": self.tag, "block": BLOCK}

    def _is_at(self, path: Path) -> bool:
        """Whether `path` is our open file; another process may have deleted it and created another one."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), path.stat())
        except FileNotFoundError:
            return False

    def _file_lock(self) -> FileLock:
        return FileLock(self.path.with_name(self.path.name + ".lock"))

    def _create_empty(self) -> Path:
        """Create an empty data file and journal, and return the former's path.

        The journal is deleted first and written last, so it never describes another file.
        """
        for path in (self._journal, self.part, self.path):
            path.unlink(missing_ok=True)
        with open(self.part, "wb") as data:
            data.truncate(self.size)
        self._write_journal(bytes(-(-self.size // BLOCK)))
        return self.part

    def _drop_unsynced(self) -> None:
        """Mark blocks that were written before this boot, but not synced, as missing."""
        self._write_journal(self._journal.read_bytes().partition(b"\n")[2].replace(_WRITTEN, _MISSING))

    def _write_journal(self, blocks: bytes) -> None:
        header = json.dumps({**self._header, "boot": disk.boot_id()}).encode()
        disk.write(self._journal, header + b"\n" + blocks, durable=self.lasting)

    def _map_journal(self) -> None:
        with open(self._journal, "r+b") as journal:
            self._blocks = mmap.mmap(journal.fileno(), 0)
        self._first_block = self._blocks.find(b"\n") + 1

    def _mark_whole(self, start: int, stop: int, value: bytes) -> int:
        """Mark the blocks wholly in [start, stop); the end of the file ends its short last block.

        Returns the end of the last block marked, or `start` if there is none or the file is closed.
        """
        first = -(-start // BLOCK)
        last = -(-stop // BLOCK) if stop == self.size else stop // BLOCK
        if first >= last:
            return start
        with self._mark_lock:
            if self._descriptor < 0:
                return start
            if self.lasting and value == _SYNCED:
                os.fdatasync(self._descriptor)
            self._mark(first, last, value)
        return min(last * BLOCK, self.size)

    def _mark(self, first: int, last: int, value: bytes) -> None:
        self._blocks[self._first_block + first : self._first_block + last] = value * (last - first)
        if self.lasting and value != _WRITTEN:
            self._blocks.flush()


def whole_file(path: Path) -> tuple[int, str] | None:
    """Return (size in bytes, tag) of the complete `SparseFile` at `path`; None if it is missing or partial."""
    found = _read_header(path.with_name(path.name + ".journal"))
    return (int(found["size"]), found["tag"]) if found and path.exists() else None


def require_space(folder: Path, needed: int) -> None:
    """Raise `DiskFull` if fewer than `needed` bytes are free on the disk of the existing folder `folder`."""
    if needed > shutil.disk_usage(folder).free:
        raise _disk_full(folder, needed)


def _disk_full(folder: Path, needed: int) -> DiskFull:
    free = shutil.disk_usage(folder).free
    return DiskFull(
        f"The disk of {folder} is full: {needed:,} bytes are needed and {free:,} are free.",
        "Free space on it, or choose another folder.",
    )


def _read_header(journal: Path) -> dict[str, Any] | None:
    """Return the JSON header of a journal; None if it is missing, invalid, or has the wrong number of blocks."""
    try:
        with open(journal, "rb") as file:
            header: dict[str, Any] = json.loads(file.readline())
            blocks = len(file.read())
        return header if blocks == -(-header["size"] // BLOCK) and header["block"] == BLOCK else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
