"""A large file of the drive in the local cache: complete, or a sparse file that is filled by range requests.

The first reads fetch small ranges. A sequential reader gets read-ahead: a window that grows with the bytes it has read
so far, fetched as several ranges side by side. An interrupted range resumes at the byte where it stopped. A read waits
until its own bytes are present, not for the end of the range that contains them.

When the last byte is present, the file's MD5 is compared, and a file that differs is discarded. A range alone has no
hash; each response's headers must match the version of the file instead (`check_content`).
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
from fsspec.asyn import get_loop

from haversack.blocks.sparse import BLOCK, SparseFile
from haversack.drive.remote.api import DriveApi
from haversack.drive.remote.calls import File
from haversack.errors import ConnectionFailed, IntegrityError

_log = logging.getLogger(__name__)

# The longest range, and the shortest into which a read-ahead window is split.
_MAX_RANGE, _MIN_RANGE = 32 << 20, 4 << 20
_PARALLEL_RANGES = 4
_MAX_READ_AHEAD = 128 << 20
# A reader of this many sequential bytes will likely continue; a window this many times as long saves round trips.
_EAGER_AFTER, _EAGER_FACTOR = 512 << 10, 4
# The kernel reads ahead with several calls at once, so one reader's calls arrive in any order within this many bytes.
_READER_REACH = 2 << 20
_MAX_READERS = 8


@dataclass
class _SequentialReader:
    """The state of one sequential reader of a file, which determines its read-ahead.

    Attributes:
        front: The offset at which its furthest read ended.
        read: The number of bytes that it has read, without its first read.
        requested: The offset at which its last read-ahead window ends.
    """

    front: int
    read: int = 0
    requested: int = 0


@dataclass(eq=False)
class _Range:
    """The bytes [start, stop) that are being fetched.

    `ended` is True once the fetch is over, and `error` is what it failed with. `waiters` are pairs (end, event) of the
    readers that wait: the event is set once all bytes before `end` are present, or the fetch has ended.
    """

    start: int
    stop: int
    error: Exception | None = None
    ended: bool = False
    waiters: list[tuple[int, threading.Event]] = field(default_factory=list)


class CompleteFile:
    """A file of the drive whose bytes are all in the local file `path`, open at `descriptor`.

    The constructor raises `FileNotFoundError` if `path` does not exist or has another size than `file`.
    """

    broken = False

    def __init__(self, file: File, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)
        if os.fstat(self.descriptor).st_size != file.size:
            raise FileNotFoundError(path)
        os.utime(path)  # marks the file as used, for LRU eviction

    def fetch(self, offset: int, stop: int) -> None:
        """Do nothing, since every byte is present; it has the signature of `PartialFile.fetch`."""


class PartialFile:
    """A file that is cached as a sparse local file. Thread-safe, except on the event loop's thread.

    `broken` is True once the complete file turned out to have another MD5; its cache entry is then deleted.

    Args:
        file: The version of the file.
        path: Where the complete local file will be; see `SparseFile` for the names it has until then.
        api: The drive.
        on_received: Called on the event loop with the length of each range when its fetch ends, also if it failed.

    The constructor raises `OSError` if the sparse file cannot be created.
    """

    def __init__(self, file: File, path: Path, api: DriveApi, on_received: Callable[[int], None]) -> None:
        self.file = file
        self.broken = False
        self._api = api
        self._on_received = on_received
        self._sparse = SparseFile(path, file.size, f"{file.id} {file.md5}", lasting=False)
        self._lock = threading.Lock()
        # Guarded by `_lock`: the ranges in flight, and the readers seen last.
        self._ranges: list[_Range] = []
        self._readers: list[_SequentialReader] = []
        # True once the file is complete or its last check has begun.
        self._complete = self._sparse.complete
        weakref.finalize(self, self._sparse.close)

    @property
    def descriptor(self) -> int:
        return self._sparse.descriptor

    def fetch(self, offset: int, stop: int) -> None:
        """Block until the bytes [offset, stop), which must be within the file, are present; start read-ahead.

        Then they can be read from `descriptor`. Raises `IntegrityError` if the file changed on the drive, `DiskFull`,
        `ConnectionFailed`, and `NotFound`, `SignInError` or another `RemoteError` if the drive refuses the download.
        """
        if not self._complete:
            self._start_fetching(self._plan(offset, stop))
            while (hole := next(self._sparse.missing(offset, stop), None)) is not None:
                self._wait_for(*hole)

    def _wait_for(self, start: int, stop: int) -> None:
        """Wait for those of the missing bytes [start, stop) that the range in flight at `start` contains.

        If no range contains `start`, start one and return. Raises the range's error if `start` is still missing.
        """
        with self._lock:
            containing = next((one for one in self._ranges if one.start <= start < one.stop), None)
            if containing is not None:
                ready = threading.Event()
                containing.waiters.append((min(stop, containing.stop), ready))
        if containing is None:
            self._start_fetching([(start, stop)])
            return
        # The bytes may have arrived before the waiter was registered.
        if next(self._sparse.missing(start, min(stop, containing.stop)), None) is not None and not containing.ended:
            ready.wait()
        if containing.error is not None and next(self._sparse.missing(start, start + 1), None) is not None:
            raise containing.error

    def _plan(self, offset: int, stop: int) -> list[tuple[int, int]]:
        """Record a read of [offset, stop); return the missing ranges of it and of the reader's read-ahead window."""
        with self._lock:
            reader = next((one for one in self._readers if -_READER_REACH <= offset - one.front <= _READER_REACH), None)
            if reader is None:
                reader = _SequentialReader(offset)
                self._readers = [*self._readers[-_MAX_READERS + 1 :], reader]
            else:
                reader.read += stop - offset
            reader.front = max(reader.front, stop)
            end = stop
            window = min(reader.read * (_EAGER_FACTOR if reader.read >= _EAGER_AFTER else 1), _MAX_READ_AHEAD)
            # Extended only when less than half a window is left, so that ranges are long.
            if reader.requested < reader.front + window // 2:
                end = reader.requested = min(reader.front + window, self.file.size)
        piece = min(max((end - offset) // _PARALLEL_RANGES // BLOCK * BLOCK, _MIN_RANGE), _MAX_RANGE)
        return [
            (start, min(start + piece, last))
            for first, last in self._sparse.missing(offset, end)
            for start in range(first, last, piece)
        ]

    def _start_fetching(self, holes: list[tuple[int, int]]) -> None:
        """Start to fetch those bytes of `holes` that no range in flight contains."""
        if not holes:
            return
        started = []
        with self._lock:
            for start, stop in holes:
                for one in sorted(self._ranges, key=lambda one: one.start):
                    if one.start < stop and start < one.stop:
                        if start < one.start:
                            started.append(_Range(start, one.start))
                        start = max(start, one.stop)
                if start < stop:
                    started.append(_Range(start, stop))
            self._ranges += started
        for one in started:
            asyncio.run_coroutine_threadsafe(self._fetch_range(one), get_loop())

    async def _fetch_range(self, fetched: _Range) -> None:
        """Fetch one range, wake all its waiters, and check the file if this was its last missing range."""
        try:
            await self._download(fetched)
        except Exception as error:  # noqa: BLE001 - raised in the threads that wait for these bytes
            fetched.error = error
        finally:
            with self._lock:
                fetched.ended = True
                self._ranges.remove(fetched)
                waiters, fetched.waiters = fetched.waiters, []
            for _, ready in waiters:
                ready.set()
        self._on_received(fetched.stop - fetched.start)
        if fetched.error is None and next(self._sparse.missing(0, self.file.size), None) is None:
            await asyncio.to_thread(self._check_and_finish)

    async def _download(self, fetched: _Range) -> None:
        """Write a range's bytes into the sparse file; resume where a response broke off.

        Raises `ConnectionFailed` after `Http.attempts` failures in a row.
        """
        position = marked = fetched.start
        failures = 0
        while position < fetched.stop:
            try:
                async with self._api.download(self.file.id, position, fetched.stop) as response:
                    check_content(response, self.file, position)
                    async for piece in response.content.iter_any():
                        piece = piece[: fetched.stop - position]
                        self._sparse.write(position, piece)
                        position, failures = position + len(piece), 0
                        marked = self._mark_present(fetched, marked, position)
                if position < fetched.stop:
                    raise aiohttp.ClientPayloadError("the response ended early")
            except (TimeoutError, aiohttp.ClientError) as error:
                failures += 1
                if failures >= self._api.http.attempts:
                    raise ConnectionFailed(
                        f"The download of {self.file.name} from the drive broke off ({error}).", "Read it again."
                    ) from error

    def _mark_present(self, fetched: _Range, marked: int, position: int) -> int:
        """Mark the complete blocks of the written bytes [marked, position) as present, and wake their waiters.

        Returns the end of the last marked block.
        """
        if position // BLOCK == marked // BLOCK and position != self.file.size:
            return marked
        marked = self._sparse.keep(marked, position)
        with self._lock:
            ready = [event for end, event in fetched.waiters if end <= marked]
            if ready:
                fetched.waiters = [waiter for waiter in fetched.waiters if waiter[0] > marked]
        for event in ready:
            event.set()
        return marked

    def _check_and_finish(self) -> None:
        """Compare the MD5 of the complete file once; then rename it to `path`, or delete it if the MD5 differs."""
        with self._lock:
            if self._complete or self.broken:
                return
            self._complete = True
        if _md5(self._sparse.part, self.file.size) in (self.file.md5, None):
            self._sparse.finish()
            return
        self.broken = True
        _log.warning("%s changed on the drive while it was read; its cached bytes are deleted.", self.file.name)
        self._sparse.remove()


def check_content(response: aiohttp.ClientResponse, file: File, position: int) -> None:
    """Raise `IntegrityError` if, by its headers, a download cannot be of the version `file` from `position` on.

    The total size and, if there is an `x-goog-hash` header, the MD5 must be those of `file`. The first byte of the
    response must be that at `position`: by `Content-Range` (RFC 9110) with status 206; with 200 the server has ignored
    the range and sends the whole file.
    """
    begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", "")) if response.status == 206 else None
    if (int(begins[1]) if begins else 0) != position:
        raise IntegrityError(
            f"The drive does not serve byte ranges of {file.name}.", "Download it whole: haversack drive get."
        )
    length = response.headers.get("Content-Range") or response.headers.get("Content-Length") or "-1"
    total = length.rpartition("/")[2]
    md5 = re.search(r"md5=([A-Za-z0-9+/=]+)", ",".join(response.headers.getall("x-goog-hash", [])))
    if (total.isdigit() and int(total) != file.size) or (md5 and file.md5 and _hex(md5[1]) != file.md5):
        raise changed_error(file)


def changed_error(file: File) -> IntegrityError:
    """Return the error for a file whose bytes on the drive are not those of the version `file`."""
    return IntegrityError(f"{file.name} changed on the drive while it was read.", "Read it again.")


def _hex(text: str) -> str:
    """Convert base64 to hex; "" if `text` is not valid base64."""
    try:
        return base64.b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        return ""


def _md5(path: Path, size: int) -> str | None:
    """Return the MD5 of a local file in hex; None if it does not exist or has another size."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                return None
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except FileNotFoundError:
        return None
