"""A local file of which some blocks are here, and the journal that says which.

`NAME.part` has the remote file's size from the start, with holes. `NAME.journal` has one line of JSON (what the content
is) and then one byte for each block: 1 when the block is here and synced, 2 when it is here and was only written. What
was written outlives its process but not its machine, so after a start of the machine a 2 counts for nothing: what the
journal says is true after SIGKILL and after a power cut. The journal is mapped into memory: processes that share the
file see each other's blocks at once. When every block is here the file is renamed to `NAME`, and only then is there a
file of that name.

A file that can be fetched again does without the syncing: it is not `lasting`, its journal is believed until the
machine is started anew, and only the complete file beyond that.

Whoever fills the file decides what content it is: a different `tag` or size starts it over. Nothing is fetched here.
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
"""Bytes in a block; small, so that one image out of an archive brings little else."""

_MISSING, _SYNCED, _WRITTEN = b"\0", b"\1", b"\2"
_HERE = re.compile(b"[^\0]")


class SparseFile:
    """The file `path` with `size` bytes of the content that `tag` names; see the module's words.

    `replaced` says that another content was here under this name, and is gone. Safe for threads and processes: opening,
    finishing and discarding take a lock, and a block written twice is written with the same bytes.
    """

    def __init__(self, path: Path, size: int, tag: str, *, lasting: bool = True) -> None:
        self.path, self.size, self.tag, self.lasting = path, size, tag, lasting
        self._keeping = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock():
            known = _header(self._journal)
            whole = path if path.exists() else self.part
            there = known is not None and whole.exists() and whole.stat().st_size == known["size"]
            boot = known.pop("boot", None) if known else None
            same = there and known == self._header and (lasting or boot == disk.boot_id())
            self.replaced = there and not same
            if not same:
                whole = self._start()
            self._data = os.open(whole, os.O_RDWR)
            if same and boot != disk.boot_id():
                self._forget_unsynced()
            self._map_journal()

    @property
    def complete(self) -> bool:
        """Whether every byte is here and the file has its name."""
        return self._is_at(self.path)

    @property
    def descriptor(self) -> int:
        """The open file with the bytes, which `close` closes."""
        return self._data

    @property
    def present(self) -> int:
        """How many of the bytes are here."""
        return self.size - sum(stop - start for start, stop in self.missing(0, self.size))

    def missing(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The ranges of bytes, in whole blocks, that must come before [start, stop) can be read."""
        at, last = self._first + start // BLOCK, self._first + -(-min(stop, self.size) // BLOCK)
        while 0 <= (hole := self._blocks.find(_MISSING, at, last)) < last:
            here = _HERE.search(self._blocks, hole, last)
            at = here.start() if here else last
            yield (hole - self._first) * BLOCK, min((at - self._first) * BLOCK, self.size)

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` in place; it is not believed before `believe` or `keep`. Raises `DiskFull`."""
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._data, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _disk_full(self.path.parent, self.size) from error

    def believe(self, start: int, stop: int) -> int:
        """Believe the blocks that lie wholly in the written range [start, stop), until the machine is started anew.

        Returns where the last of them ends.
        """
        return self._mark_whole(start, stop, _WRITTEN) if disk.boot_id() else start

    def keep(self, start: int, stop: int) -> int:
        """Believe the blocks that lie wholly in the written range [start, stop); returns where the last one ends."""
        return self._mark_whole(start, stop, _SYNCED)

    def forget(self, start: int, stop: int) -> None:
        """Believe the blocks that touch [start, stop) no longer: their bytes turned out to be wrong."""
        with self._lock():
            self._mark(start // BLOCK, -(-min(stop, self.size) // BLOCK), _MISSING)
            if self.complete:
                self.path.rename(self.part)

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes from `offset`. What is missing reads as zeros: ask `missing` first."""
        data = os.pread(self._data, size, offset)
        if len(data) != size:
            raise IntegrityError(f"{self.path} is shorter than its journal says.", "Remove it, and fetch it again.")
        return data

    def finish(self) -> None:
        """Give the complete file its name."""
        with self._lock():
            if self._is_at(self.part):
                os.fdatasync(self._data)
                self._mark(0, -(-self.size // BLOCK), _SYNCED)
                self.part.rename(self.path)
                disk.sync_folder(self.path.parent)

    def discard(self) -> None:
        """Remove the file: its content was not what was promised."""
        self.remove()
        self.close()

    def remove(self) -> None:
        """Take the file's names away; who has it open reads on in it."""
        with self._lock():
            for path in (self._journal, self.part, self.path):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        with self._keeping:
            if self._data >= 0:
                self._blocks.close()
                os.close(self._data)
                self._data = -1

    @property
    def part(self) -> Path:
        """Where the file lies until it is complete."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def _journal(self) -> Path:
        return self.path.with_name(self.path.name + ".journal")

    @property
    def _header(self) -> dict[str, object]:
        """What the content is, in the journal; beside it stands which start of the machine it is."""
        return {"size": self.size, "tag": self.tag, "block": BLOCK}

    def _is_at(self, path: Path) -> bool:
        """Whether the file has that name; another process may have removed it, and begun another one there."""
        try:
            return os.path.samestat(os.fstat(self._data), path.stat())
        except FileNotFoundError:
            return False

    def _lock(self) -> FileLock:
        return FileLock(self.path.with_name(self.path.name + ".lock"))

    def _start(self) -> Path:
        """An empty file and journal. The journal goes first and comes last, so it never speaks of another file."""
        for path in (self._journal, self.part, self.path):
            path.unlink(missing_ok=True)
        with open(self.part, "wb") as data:
            data.truncate(self.size)
        self._write_journal(bytes(-(-self.size // BLOCK)))
        return self.part

    def _forget_unsynced(self) -> None:
        self._write_journal(self._journal.read_bytes().partition(b"\n")[2].replace(_WRITTEN, _MISSING))

    def _write_journal(self, blocks: bytes) -> None:
        header = json.dumps({**self._header, "boot": disk.boot_id()}).encode()
        disk.write(self._journal, header + b"\n" + blocks, durable=self.lasting)

    def _map_journal(self) -> None:
        with open(self._journal, "r+b") as journal:
            self._blocks = mmap.mmap(journal.fileno(), 0)
        self._first = self._blocks.find(b"\n") + 1

    def _mark_whole(self, start: int, stop: int, value: bytes) -> int:
        first = -(-start // BLOCK)
        last = -(-stop // BLOCK) if stop == self.size else stop // BLOCK
        if first >= last:
            return start
        with self._keeping:
            if self._data < 0:
                return start
            if self.lasting and value == _SYNCED:
                os.fdatasync(self._data)
            self._mark(first, last, value)
        return min(last * BLOCK, self.size)

    def _mark(self, first: int, last: int, value: bytes) -> None:
        self._blocks[self._first + first : self._first + last] = value * (last - first)
        if self.lasting and value != _WRITTEN:
            self._blocks.flush()


def whole_file(path: Path) -> tuple[int, str] | None:
    """Size and tag of the complete `SparseFile` at `path`, or None where there is none."""
    known = _header(path.with_name(path.name + ".journal"))
    return (int(known["size"]), known["tag"]) if known and path.exists() else None


def require_space(folder: Path, needed: int) -> None:
    """Raise `DiskFull` where fewer than `needed` bytes are free on the disk of `folder`."""
    if needed > shutil.disk_usage(folder).free:
        raise _disk_full(folder, needed)


def _disk_full(folder: Path, needed: int) -> DiskFull:
    free = shutil.disk_usage(folder).free
    return DiskFull(
        f"The disk of {folder} is full: {needed:,} bytes are needed and {free:,} are free.",
        "Free space there, or name another folder.",
    )


def _header(journal: Path) -> dict[str, Any] | None:
    """What a journal says the content is; None where it is missing or none of ours."""
    try:
        with open(journal, "rb") as file:
            header = json.loads(file.readline())
            blocks = len(file.read())
        return header if blocks == -(-header["size"] // BLOCK) and header["block"] == BLOCK else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
