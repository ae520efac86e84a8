"""A remote file that is fetched by range requests as it is read, into a sparse local file.

Several ranges are fetched in parallel, and no block twice: a reader of a block that is in flight waits for it.
`streams` determines how many are fetched at once. What a reader needs now, and what is prefetched, has connections of
its own in addition to those of a full download.

A range that breaks off is resumed at the byte where it stopped. A signed URL that expired is requested anew. Size and
tag of every response must be those of the first one (RFC 9110: `Content-Range`, `ETag`); if the content changed, a full
download starts over and a read raises. From a server that ignores ranges the whole file is fetched in one stream. A
full download is compared with the MD5 that the server sends (`x-goog-hash`).
"""

from __future__ import annotations

import asyncio
import bisect
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
from filelock import FileLock, Timeout
from fsspec.asyn import get_loop

from haversack import disk, progress, settings
from haversack.blocks.checksum import BackgroundMd5
from haversack.blocks.headers import ContentInfo, parse_content_info, range_start
from haversack.blocks.sparse import BLOCK, SparseFile, require_space, whole_file
from haversack.blocks.streams import FIRST, StreamLimiter
from haversack.errors import ConnectionFailed, HaversackError, IntegrityError, RemoteError, SignInError
from haversack.http import Http, wait

log = logging.getLogger(__name__)

_LARGEST_RANGE = 8 << 20
"""Bytes that one request asks for, at most."""
_SMALLEST_RANGE = 1 << 20
_SYNC_INTERVAL = 8 << 20
"""Bytes of a range between two syncs, which a power cut may lose of each range in flight."""
_CHUNK = 256 << 10
_MAX_PREFETCH_TASKS = 16
_STALE_ADDRESS_STATUSES = (400, 401, 403, 404, 410)
"""With these, storage refuses an address that has expired or that it no longer knows."""
_NOT_SATISFIABLE = 416
"""The answer to a request for the first byte of an empty file (RFC 9110)."""
_MAX_DOWNLOADS = 3
"""How often a full download is begun while the content changes on the server."""


class _ContentChanged(Exception):
    """A response has another size or tag than the first one: the file changed on the server."""


class _RangesIgnored(Exception):
    """The server answered a range request with another range or the whole file."""


class RemoteFile:
    """A file on a server, readable at any offset (`archive.directory.Bytes`); fetched blocks are kept at `path`.

    Args:
        http: client for the server.
        locate: coroutine function that returns a URL from which the file can be fetched, a new one on every call.
        path: the local file; see `SparseFile` for the files beside it.
        name: the file's name in messages.

    The constructor sends a request for size, tag and MD5. If the server does not answer and `path` is complete, the
    local copy is used. If the file at `path` has another size or tag, it is deleted and fetched anew.

    The setting `streams` limits how many ranges a download fetches in parallel. Thread-safe, but not callable on the
    event loop's thread. `complete` reopens the local file if its content changed or is damaged; a read in another
    thread may then fail. Processes share blocks through `path`.

    | field | changed in |
    |---|---|
    | `_sparse`, `_content` | the caller's thread; `_content.ranges` also on the event loop |
    | `_fetched_to`, `_read_ahead` | the caller's thread; a race between readers only changes the read-ahead |
    | `_bars` | the caller's thread |
    | `_address`, guarded by `_locate_lock` where it is requested | the event loop |
    | `_in_flight`: range of missing blocks -> future that is done once its fetch ended | the event loop |
    | `_prefetch_queue`, `_prefetch_tasks` | the event loop |

    Raises `RemoteError` (such as `NotFound` or `Forbidden`) or `SignInError` for an error response; `ConnectionFailed`
    if the server does not answer and `path` is not complete; `OSError` if the local file cannot be opened.
    """

    def __init__(self, http: Http, locate: Callable[[], Awaitable[str]], path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._http = http
        self._locate = locate
        self.streams = StreamLimiter(settings.load().streams)
        self._bars: list[_DownloadBar] = []
        self._address: str | None = None
        self._locate_lock = asyncio.Lock()
        self._fetched_to, self._read_ahead = -1, 0
        self._in_flight: dict[tuple[int, int], asyncio.Future[None]] = {}
        self._prefetch_queue: deque[tuple[int, int]] = deque()
        self._prefetch_tasks: list[asyncio.Task[None]] = []
        self._sparse = self._open()

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return self._sparse.size

    @property
    def tag(self) -> str:
        """The `ContentInfo.tag` of the content; `complete` updates it if the file changed on the server."""
        return self._sparse.tag

    @property
    def present(self) -> int:
        """The number of the file's bytes that are on this machine."""
        return self._sparse.present

    def read_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; missing blocks are fetched, with read-ahead if the reads are sequential.

        The read-ahead doubles with each sequential fetch, from 64 KiB to 8 MiB. Raises `IntegrityError` if the file
        changed on the server or ends before `offset + size`; `ConnectionFailed`; `DiskFull`; and `RemoteError` or
        `SignInError` for an error response.
        """
        stop = offset + size
        if not self._sparse.complete and any(self._sparse.missing(offset, stop)):
            sequential = offset <= self._fetched_to <= stop + BLOCK
            self._read_ahead = min(max(2 * self._read_ahead, BLOCK), _LARGEST_RANGE) if sequential else 0
            self._fetched_to = -(-(stop + self._read_ahead) // BLOCK) * BLOCK
            try:
                wait(self._fill([(offset, self._fetched_to)], urgent=True))
            except _ContentChanged:
                raise self._changed_error() from None
        return self._sparse.read_at(offset, size)

    def want(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Prefetch the missing blocks of the byte ranges (start, stop) in this order; return at once.

        These ranges replace what an earlier call has queued and not begun. Neighbouring ranges are joined into requests
        of up to 8 MiB. After an error the queue is dropped and nothing is raised; a read of these bytes sends its own
        request. Does nothing for a complete file, or if the server ignores ranges.
        """
        if not self._sparse.complete and self._content.ranges:
            get_loop().call_soon_threadsafe(self._start_prefetch, list(ranges))

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch the missing blocks of the byte ranges (start, stop), and wait; shows a progress bar.

        From a server that ignores ranges the whole file is fetched. Raises `IntegrityError` if the file changed on the
        server; `ConnectionFailed`; `DiskFull`; and `RemoteError` or `SignInError` for an error response.
        """
        holes = [hole for start, stop in _to_blocks(list(ranges)) for hole in self._sparse.missing(start, stop)]
        if not holes:
            return
        try:
            with self._progress(holes):
                wait(self._fill(holes))
        except _ContentChanged:
            raise self._changed_error() from None

    def complete(self, check: Callable[[Path], None]) -> Path:
        """Fetch what is missing of the file, verify it, and return its path; shows a progress bar.

        The file is verified by its MD5 if the server sends one, else by `check`, which gets the file's path and raises
        `IntegrityError` if it is damaged. A file that was completed before is not verified again. One process fetches,
        others wait for it. If the content changes on the server the download starts over, up to twice.

        Raises `IntegrityError` for wrong bytes, after deleting the file, and if the content changes a third time;
        `DiskFull`, before a request if the space is known to be short; `ConnectionFailed`; and `RemoteError` or
        `SignInError` for an error response.
        """
        if not self._sparse.complete:
            with _download_lock(self.path, self.name):
                if not self._sparse.complete:
                    self._download(check)
        return self.path

    def mend(self, start: int, stop: int) -> None:
        """Mark the blocks that overlap [start, stop), whose bytes are wrong, as missing: a read fetches them again.

        A complete file becomes partial. Raises `OSError`.
        """
        self._sparse.forget(start, stop)

    def close(self) -> None:
        """Cancel the prefetch and close the local file; later reads raise."""
        if self._prefetch_tasks:
            wait(self._cancel_prefetch())
        self._sparse.close()

    def _open(self) -> SparseFile:
        """Request the description and open the local file; if the server does not answer, a complete one will do."""
        try:
            self._content = wait(self._describe())
        except ConnectionFailed:
            found = whole_file(self.path)
            if found is None:
                raise
            log.warning("The server of %s does not answer; reading the copy on this machine.", self.name)
            self._content = ContentInfo(*found, md5=None, ranges=True)
        opened = SparseFile(self.path, self._content.size, self._content.tag)
        if opened.replaced:
            log.warning("%s changed on the server; its old content on this machine was deleted.", self.name)
        return opened

    def _download(self, check: Callable[[Path], None]) -> None:
        """Fetch and verify the whole file, and start over if its content changes; then give it its final name."""
        for _ in range(_MAX_DOWNLOADS):
            try:
                with BackgroundMd5(self._sparse) if self._content.md5 else nullcontext() as md5:
                    with self._progress(list(self._sparse.missing(0, self.size))):
                        # Repeated, since `mend` in another thread may mark blocks as missing again.
                        while any(self._sparse.missing(0, self.size)):
                            wait(self._fill([(0, self.size)]))
                    self._verify(check, md5)
                break
            except _ContentChanged:
                wait(self._cancel_prefetch())
                self._address = None
                self._sparse.close()
                self._sparse = self._open()
        else:
            raise IntegrityError(f"{self.name} keeps changing on the server.", "Try again when it has settled.")
        self._sparse.finish()

    def _verify(self, check: Callable[[Path], None], md5: BackgroundMd5 | None) -> None:
        """Verify the partial file whose blocks are all present; if it is damaged, replace it by an empty one and raise.

        Raises `IntegrityError`.
        """
        part, expected = self._sparse.part, self._content.md5
        try:
            if md5 is None:
                check(part)
            elif md5.hexdigest() != expected and (found := disk.md5(part)) != expected:
                raise IntegrityError(
                    f"The bytes fetched of {self.name} are wrong: their MD5 is {found} instead of {expected}.",
                    "They were deleted; fetch the file again.",
                )
        except IntegrityError:
            self._sparse.discard()
            self._sparse = SparseFile(self.path, self._content.size, self._content.tag)
            raise

    def _changed_error(self) -> IntegrityError:
        return IntegrityError(f"{self.name} changed on the server while it was read.", "Open it again.")

    async def _describe(self) -> ContentInfo:
        """Return the description, from a request for the first byte: a signed address may allow nothing but GET."""
        asked = self._http.stream("GET", await self._current_address(), headers={"Range": "bytes=0-0"})
        try:
            async with asked as response:
                content = parse_content_info(response, self.name)
                if content.ranges:
                    await response.read()  # a connection can be reused only after its body was read
                return content
        except RemoteError as error:
            if error.status != _NOT_SATISFIABLE:
                raise
            return ContentInfo(0, "", md5=None, ranges=True)

    async def _current_address(self) -> str:
        async with self._locate_lock:
            if self._address is None:
                self._address = await self._locate()
            return self._address

    def _invalidate_address(self, address: str) -> None:
        """Request a new address next time, unless another stream has replaced `address`."""
        if self._address == address:
            self._address = None

    async def _fill(self, ranges: list[tuple[int, int]], *, urgent: bool = False) -> None:
        """Fetch the missing blocks of `ranges`; `urgent` does not wait for the stream limiter.

        If the server ignores ranges, fetches the whole file. Raises `_ContentChanged`, `ConnectionFailed`, `DiskFull`,
        and the error of the server's response.
        """
        holes = [hole for start, stop in ranges for hole in self._sparse.missing(start, stop)]
        if self._content.ranges:
            require_space(self.path.parent, sum(stop - start for start, stop in holes))
            try:
                return await self._fetch_holes(holes, urgent)
            except _RangesIgnored:
                self._content = replace(self._content, ranges=False)
                log.warning("The server of %s ignores ranges; fetching the whole file in one stream.", self.name)
        if holes:
            require_space(self.path.parent, self.size - self.present)
            await self._stream_with_retries(0, self.size, self._stream_whole)
        return None

    async def _fetch_holes(self, holes: list[tuple[int, int]], urgent: bool) -> None:
        """Fetch `holes` in parallel; the first error cancels the rest and is raised."""
        most = FIRST if urgent else self.streams.most
        slot: Callable[[], AbstractAsyncContextManager[None]] = nullcontext if urgent else self.streams.slot
        parts = _split(holes, most)

        async def fetch_parts() -> None:
            while parts:
                async with slot():
                    if parts:
                        await self._fetch(*parts.popleft())

        tasks = [asyncio.create_task(fetch_parts()) for _ in range(min(most, len(parts)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            await _cancel(tasks)

    async def _fetch(self, start: int, stop: int) -> None:
        """Fetch the missing blocks of [start, stop), and wait for those that are in flight."""
        while missing := list(self._sparse.missing(start, stop)):
            in_flight = [future for (begin, end), future in self._in_flight.items() if begin < stop and start < end]
            hole = next((hole for one in missing for hole in _subtract(one, self._in_flight)), None)
            if hole is None:
                await asyncio.wait(in_flight)
                continue
            ended = self._in_flight[hole] = asyncio.get_running_loop().create_future()
            try:
                await self._stream_with_retries(*hole, self._stream_range)
            finally:
                del self._in_flight[hole]
                ended.set_result(None)

    def _start_prefetch(self, ranges: list[tuple[int, int]]) -> None:
        """Replace the prefetch queue, and start tasks for it. Runs on the event loop."""
        holes = (hole for start, stop in _to_blocks(ranges) for hole in self._sparse.missing(start, stop))
        self._prefetch_queue = _split(holes, FIRST)
        self._prefetch_tasks = [task for task in self._prefetch_tasks if not task.done()]
        most = min(2 * self.streams.allowed, _MAX_PREFETCH_TASKS, len(self._prefetch_queue))
        for _ in range(len(self._prefetch_tasks), most):
            self._prefetch_tasks.append(asyncio.create_task(self._prefetch()))

    async def _prefetch(self) -> None:
        """Fetch ranges of the prefetch queue until it is empty; an error empties it."""
        while self._prefetch_queue:
            try:
                await self._fetch(*self._prefetch_queue.popleft())
            except (HaversackError, _ContentChanged, _RangesIgnored) as error:
                self._prefetch_queue.clear()
                log.debug("The prefetch of %s stopped: %s", self.name, error)

    async def _cancel_prefetch(self) -> None:
        self._prefetch_queue.clear()
        await _cancel(self._prefetch_tasks)
        self._prefetch_tasks = []

    async def _stream_with_retries(self, start: int, stop: int, stream: Callable[[_Cursor], Awaitable[None]]) -> None:
        """Call `stream` until [start, stop) is stored; retries with backoff and jitter when the connection breaks off.

        Attempts are counted since the last progress. A refused address is renewed once without progress in between.
        Raises `ConnectionFailed` after too many attempts, and the error of the server's response.
        """
        cursor = _Cursor(start, stop)
        failures, renewed = 0, False
        while cursor.furthest < stop:
            before, address, reason = cursor.furthest, await self._current_address(), "it ended too early"
            try:
                await stream(cursor)
            except (RemoteError, SignInError) as error:
                if renewed or not _may_be_stale_address(error):
                    raise
                self._invalidate_address(address)
                renewed = True
                continue
            except (aiohttp.ClientError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            if cursor.furthest > before:
                failures, renewed = 0, False
            failures += 1
            if cursor.furthest < stop:
                if cursor.furthest - before < _SMALLEST_RANGE:
                    self.streams.record_break()
                if failures >= self._http.attempts:
                    raise ConnectionFailed(
                        f"{self.name} broke off {failures} times at byte {cursor.at:,} ({reason}).",
                        "Run it again: it resumes there.",
                    )
                await asyncio.sleep(random.uniform(0, min(self._http.longest_delay, 0.1 * 2**failures)))

    async def _stream_range(self, cursor: _Cursor) -> None:
        """Request the rest of the cursor's range and store the response.

        Raises `_RangesIgnored`, `_ContentChanged`, `aiohttp.ClientError`, `TimeoutError`, `DiskFull`, and the
        error of the response.
        """
        cursor.at = cursor.furthest
        headers = {"Range": f"bytes={cursor.at}-{cursor.stop - 1}"}
        stream = self._http.stream(
            "GET", await self._current_address(), headers=headers, refused=self.streams.record_refusal
        )
        async with stream as response:
            if response.status != 206:
                raise _RangesIgnored
            self._check_unchanged(response)
            if range_start(response.headers) != cursor.at:
                raise _RangesIgnored
            await self._store(response, cursor)

    async def _stream_whole(self, cursor: _Cursor) -> None:
        """Request the whole file, from its first byte, and store the response.

        Raises `_ContentChanged`, `aiohttp.ClientError`, `TimeoutError`, `DiskFull`, and the error of the response.
        """
        cursor.at = 0
        async with self._http.stream("GET", await self._current_address()) as response:
            self._check_unchanged(response)
            await self._store(response, cursor)

    def _check_unchanged(self, response: aiohttp.ClientResponse) -> None:
        """Raise `_ContentChanged` if the size or the tag is not that of the first response."""
        content = parse_content_info(response, self.name)
        if (content.size, content.tag) != (self._content.size, self._content.tag):
            raise _ContentChanged

    async def _store(self, response: aiohttp.ClientResponse, cursor: _Cursor) -> None:
        """Write the body to the local file from `cursor.at`, and mark its blocks as they become whole."""
        try:
            async for data in response.content.iter_chunked(_CHUNK):
                data = data[: cursor.stop - cursor.at]
                self._sparse.write(cursor.at, data)
                cursor.at += len(data)
                if cursor.at > cursor.furthest:
                    self._count(cursor.furthest, cursor.at)
                    cursor.furthest = cursor.at
                    cursor.written = self._sparse.mark_written(cursor.written, cursor.at)
                if cursor.furthest == cursor.stop or cursor.furthest - cursor.synced >= _SYNC_INTERVAL:
                    cursor.synced = await asyncio.to_thread(self._sparse.keep, cursor.synced, cursor.furthest)
        finally:
            cursor.synced = self._sparse.keep(cursor.synced, cursor.furthest)

    def _count(self, start: int, stop: int) -> None:
        """Report the new bytes [start, stop) to the stream limiter and the progress bars."""
        self.streams.record_bytes(stop - start)
        for bar in tuple(self._bars):
            bar.advance_by(start, stop)

    @contextmanager
    def _progress(self, holes: list[tuple[int, int]]) -> Iterator[None]:
        """Show a progress bar over the bytes of `holes` during the block; it counts every fetch, prefetch included."""
        bar = _DownloadBar(sorted(holes))
        self._bars.append(bar)
        try:
            with progress.bar(self.name, sum(stop - start for start, stop in holes)) as advance:
                get_loop().call_soon_threadsafe(bar.show, advance)
                yield
        finally:
            self._bars.remove(bar)


@dataclass
class _Cursor:
    """The progress of one range, as offsets in the file. It belongs to one task of the event loop.

    Attributes:
        at: where the next byte of the current response is written.
        stop: the end of the range, exclusive.
        furthest: the furthest that any response has come; equal to `at` unless the whole file is sent again.
        written: the range is marked as present up to here.
        synced: the range is marked as present and synced up to here.
    """

    at: int
    stop: int

    def __post_init__(self) -> None:
        self.furthest = self.written = self.synced = self.at


@dataclass
class _DownloadBar:
    """A progress bar over some missing ranges. Belongs to the event loop's thread.

    Attributes:
        holes: the ranges (start, stop) in bytes, sorted and disjoint.
        count: how many of their bytes have come.
        advance: moves the bar by a number of bytes; None until `show`.
    """

    holes: list[tuple[int, int]]
    count: int = 0
    advance: progress.Advance | None = None

    def show(self, advance: progress.Advance) -> None:
        """Move the bar by the bytes that have come before this call, and by new ones from now on."""
        self.advance = advance
        advance(self.count)

    def advance_by(self, start: int, stop: int) -> None:
        """Count those of the new bytes [start, stop) that lie in `holes`, and move the bar if it is shown."""
        first = max(0, bisect.bisect_right(self.holes, (start, start)) - 1)
        more = 0
        for begin, end in self.holes[first:]:
            if begin >= stop:
                break
            more += max(0, min(end, stop) - max(begin, start))
        self.count += more
        if more and self.advance is not None:
            self.advance(more)


@contextmanager
def _download_lock(path: Path, name: str) -> Iterator[None]:
    """Hold the lock of the process that downloads `path`; if another process has it, log that and wait."""
    lock = FileLock(path.with_name(path.name + ".filling"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("Another process is fetching %s; waiting for it.", name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel the tasks and wait until they have ended; their errors are dropped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _to_blocks(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Round ranges outwards to blocks, keep each block once, where it comes first, and join neighbours in sequence."""
    seen: set[int] = set()
    joined: list[tuple[int, int]] = []
    for start, stop in ranges:
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            if block in seen:
                continue
            seen.add(block)
            if joined and joined[-1][1] == block * BLOCK:
                joined[-1] = joined[-1][0], (block + 1) * BLOCK
            else:
                joined.append((block * BLOCK, (block + 1) * BLOCK))
    return joined


def _subtract(hole: tuple[int, int], taken: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the parts of `hole` that no range of `taken` covers, in order."""
    left, (at, stop) = [], hole
    for begin, end in sorted(taken):
        if begin < stop and at < end:
            if at < begin:
                left.append((at, begin))
            at = end
    return [*left, (at, stop)] if at < stop else left


def _split(holes: Iterable[tuple[int, int]], streams: int) -> deque[tuple[int, int]]:
    """Cut holes into ranges for `streams` streams to share, each at most 1 to 8 MiB long."""
    cut = list(holes)
    total = sum(stop - start for start, stop in cut)
    length = -(-min(max(total // streams, _SMALLEST_RANGE), _LARGEST_RANGE) // BLOCK) * BLOCK
    return deque((at, min(at + length, stop)) for start, stop in cut for at in range(start, stop, length))


def _may_be_stale_address(error: Exception) -> bool:
    """Whether a new address may help against this error."""
    return isinstance(error, SignInError) or getattr(error, "status", 0) in _STALE_ADDRESS_STATUSES
