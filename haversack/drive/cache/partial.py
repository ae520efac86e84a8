"""One large file of the drive, as far as its bytes are here, on local disk, and fetched where they are not.

The bytes lie in a sparse file on local disk. What is read first comes in small ranges; a reader that goes on in order
has more and more fetched ahead of it, in proportion to what it has read so far, several ranges side by side. A range
that breaks off goes on at the byte where it stopped. A read waits for its own bytes alone, not for the range that they
come in.

When every byte is here the file is compared with its MD5, and thrown away where it is another's. A part of a file has
no hash of its own: of it the drive must say, with each range, that it belongs to the same content.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import os
import re
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from haversack.blocks.sparse import BLOCK, SparseFile
from haversack.drive.remote.api import DriveApi, File
from haversack.errors import ConnectionFailed, IntegrityError

_log = logging.getLogger(__name__)

# A range is at most this long, and at least this long where a window is split into ranges.
_LONGEST, _SHORTEST = 32 << 20, 4 << 20
_SIDE_BY_SIDE = 4
_FURTHEST_AHEAD = 128 << 20
# Who has read this much in order is likely to go on, and then every doubling costs a round trip less.
_CERTAIN, _EAGER = 512 << 10, 4
# The kernel reads ahead with several calls at once, so those of one reader come in any order within this many bytes.
_ABOUT = 2 << 20
_READERS = 8


@dataclass
class _SequentialReader:
    """Somebody who reads in order: behind which byte, how many so far, and up to where they were asked for."""

    front: int
    read: int = 0
    asked: int = 0


@dataclass(eq=False)
class _Range:
    """A range on its way. `waiting` are those who want its bytes up to a place, and what wakes them."""

    start: int
    stop: int
    error: Exception | None = None
    ended: bool = False
    waiting: list[tuple[int, threading.Event]] = field(default_factory=list)


class CompleteFile:
    """A file of which every byte is at `path`. Raises `FileNotFoundError` for one that is not there, or not whole."""

    broken = False

    def __init__(self, file: File, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)
        if os.fstat(self.descriptor).st_size != file.size:
            raise FileNotFoundError(path)
        os.utime(path)  # for the budget: it is used

    def bring(self, offset: int, stop: int) -> None:
        """Nothing is to be brought: it is all here."""


class PartialFile:
    """`file`, which is kept at `path`. `added` is told how many bytes came. Raises `OSError` where nothing can be kept.

    To be read from any thread but the loop's.
    """

    def __init__(self, file: File, path: Path, api: DriveApi, added: Callable[[int], None]) -> None:
        self.file = file
        self.broken = False
        self._api = api
        self._added = added
        self._sparse = SparseFile(path, file.size, f"{file.id} {file.md5}", lasting=False)
        self._lock = threading.Lock()
        self._ranges: list[_Range] = []
        self._readers: list[_SequentialReader] = []
        self._whole = self._sparse.complete
        weakref.finalize(self, self._sparse.close)

    @property
    def descriptor(self) -> int:
        return self._sparse.descriptor

    def bring(self, offset: int, stop: int) -> None:
        """Returns once the bytes from `offset` to before `stop`, which lie within the file, can be read from disk.

        Raises `IntegrityError` for a file that changed on the drive, `DiskFull`, and what the drive's answers mean.
        """
        if not self._whole:
            self._fetch(self._ahead(offset, stop))
            while (hole := next(self._sparse.missing(offset, stop), None)) is not None:
                self._await(*hole)

    def _await(self, start: int, stop: int) -> None:
        """Wait for a hole, or for as much of it as comes with one range. Raises why it did not come."""
        with self._lock:
            coming = next((one for one in self._ranges if one.start <= start < one.stop), None)
            if coming is not None:
                ready = threading.Event()
                coming.waiting.append((min(stop, coming.stop), ready))
        if coming is None:
            self._fetch([(start, stop)])
            return
        # It may have come between the look and the waiting.
        if next(self._sparse.missing(start, min(stop, coming.stop)), None) is not None and not coming.ended:
            ready.wait()
        if coming.error is not None and next(self._sparse.missing(start, start + 1), None) is not None:
            raise coming.error

    def _ahead(self, offset: int, stop: int) -> list[tuple[int, int]]:
        """The ranges to begin when [offset, stop) is read: what is missing of it, and what will be read next."""
        with self._lock:
            reader = next((one for one in self._readers if -_ABOUT <= offset - one.front <= _ABOUT), None)
            if reader is None:
                reader = _SequentialReader(offset)
                self._readers = [*self._readers[-_READERS + 1 :], reader]
            else:
                reader.read += stop - offset
            reader.front = max(reader.front, stop)
            wanted = stop
            window = min(reader.read * (_EAGER if reader.read >= _CERTAIN else 1), _FURTHEST_AHEAD)
            # Asked for in halves of the window, so that ranges are long.
            if reader.asked < reader.front + window // 2:
                wanted = reader.asked = min(reader.front + window, self.file.size)
        piece = min(max((wanted - offset) // _SIDE_BY_SIDE // BLOCK * BLOCK, _SHORTEST), _LONGEST)
        return [
            (start, min(start + piece, last))
            for first, last in self._sparse.missing(offset, wanted)
            for start in range(first, last, piece)
        ]

    def _fetch(self, holes: list[tuple[int, int]]) -> None:
        """Begin to fetch what of these is not on its way already."""
        if not holes:
            return
        begun = []
        with self._lock:
            for start, stop in holes:
                for one in sorted(self._ranges, key=lambda one: one.start):
                    if one.start < stop and start < one.stop:
                        if start < one.start:
                            begun.append(_Range(start, one.start))
                        start = max(start, one.stop)
                if start < stop:
                    begun.append(_Range(start, stop))
            self._ranges += begun
        for one in begun:
            asyncio.run_coroutine_threadsafe(self._bring(one), _loop())

    async def _bring(self, coming: _Range) -> None:
        try:
            await self._download(coming)
        except Exception as error:  # noqa: BLE001 - raised where somebody waits for these bytes
            coming.error = error
        finally:
            with self._lock:
                coming.ended = True
                self._ranges.remove(coming)
                waiting, coming.waiting = coming.waiting, []
            for _, ready in waiting:
                ready.set()
        self._added(coming.stop - coming.start)
        if coming.error is None and next(self._sparse.missing(0, self.file.size), None) is None:
            await asyncio.to_thread(self._finish)

    async def _download(self, coming: _Range) -> None:
        position = kept = coming.start
        failures = 0
        while position < coming.stop:
            try:
                async with self._api.download(self.file.id, position, coming.stop) as response:
                    check_content(response, self.file, position)
                    async for piece in response.content.iter_any():
                        piece = piece[: coming.stop - position]
                        self._sparse.write(position, piece)
                        position, failures = position + len(piece), 0
                        kept = self._keep(coming, kept, position)
                if position < coming.stop:
                    raise aiohttp.ClientPayloadError("it ended early")
            except (TimeoutError, aiohttp.ClientError) as error:
                failures += 1
                if failures >= self._api.http.attempts:
                    raise ConnectionFailed(f"Reading {self.file.name} from the drive broke off ({error}).") from error

    def _keep(self, coming: _Range, kept: int, position: int) -> int:
        """Believe what was written, and wake who waited for it."""
        if position // BLOCK == kept // BLOCK and position != self.file.size:
            return kept
        kept = self._sparse.keep(kept, position)
        with self._lock:
            ready = [event for stop, event in coming.waiting if stop <= kept]
            if ready:
                coming.waiting = [one for one in coming.waiting if one[0] > kept]
        for event in ready:
            event.set()
        return kept

    def _finish(self) -> None:
        """Give the file its name, once, if it is what it should be."""
        with self._lock:
            if self._whole or self.broken:
                return
            self._whole = True
        if _md5(self._sparse.part, self.file.size) in (self.file.md5, None):
            self._sparse.finish()
            return
        self.broken = True
        _log.warning("%s changed on the drive while it was read; what was kept of it is thrown away.", self.file.name)
        self._sparse.remove()


def check_content(response: aiohttp.ClientResponse, file: File, position: int) -> None:
    """Raise `IntegrityError` for an answer that holds other bytes than those of `file` from `position`."""
    if response.status != 206 and position > 0:
        raise IntegrityError(f"The drive does not serve a part of {file.name}.", "Copy it whole: haversack drive get.")
    said = response.headers.get("Content-Range") or response.headers.get("Content-Length") or "-1"
    total = said.rpartition("/")[2]
    named = re.search(r"md5=([A-Za-z0-9+/=]+)", ",".join(response.headers.getall("x-goog-hash", [])))
    if (total.isdigit() and int(total) != file.size) or (named and file.md5 and _hex(named[1]) != file.md5):
        raise changed(file)


def changed(file: File) -> IntegrityError:
    return IntegrityError(f"{file.name} changed on the drive while it was read.", "Read it again.")


def _hex(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        return ""


def _md5(path: Path, size: int) -> str | None:
    """The hash of a file; None for one that is not there, whole, any more."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                return None
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except FileNotFoundError:
        return None


def _loop() -> asyncio.AbstractEventLoop:
    from fsspec.asyn import get_loop

    return get_loop()
