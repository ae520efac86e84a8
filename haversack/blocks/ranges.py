"""A remote file whose bytes come when they are read: range requests into a sparse file.

Several ranges are fetched side by side, and none twice: who needs bytes that are on their way waits for them. How many,
`streams` finds out. What readers ask for, and say they `want` next, has connections of its own, beside those that fetch
the rest of the file. Whatever breaks off goes on at the byte where it stopped. Signed addresses expire, so the address
is asked for anew when storage refuses it. Every answer must be of the content that the first one spoke of (RFC 9110:
`Content-Range`, `ETag`); another one starts the file over. From a server that ignores ranges the file comes whole, in
one stream. A complete file is checked against the md5 that storage names (`x-goog-hash`).
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
from haversack.blocks.checksum import FollowingMd5
from haversack.blocks.headers import ContentInfo, content_of, range_start
from haversack.blocks.sparse import BLOCK, SparseFile, require_space, whole_file
from haversack.blocks.streams import FIRST, Streams
from haversack.errors import ConnectionFailed, HaversackError, IntegrityError, RemoteError, SignInError
from haversack.http import Http, wait

log = logging.getLogger(__name__)

# One request asks for at most this much.
_LARGEST_RANGE = 8 << 20
_SMALLEST_RANGE = 1 << 20
# So much of a range is synced at once; after a power cut, that much of each is fetched again.
_SYNCED_AT_ONCE = 8 << 20
_PIECE = 256 << 10
# Streams for what is wanted next, at most.
_MOST_WANTING = 16
# What storage answers to an address that has expired or that it does not know any more.
_REFUSED = (400, 401, 403, 404, 410)


class _Changed(Exception):
    """An answer was of another content than the first."""


class _RangesIgnored(Exception):
    """A range was asked for and the whole came."""


class RemoteFile:
    """A file of some server, kept in part or whole at `path`; it is `Bytes` for an archive.

    `locate` gives an address to fetch from, a fresh one on every call. `name` is what the user is told. Made from
    ordinary code, never on the loop's thread. At most the setting `streams` ranges of it are fetched side by side.
    Raises what the server's answers mean (`http.error_of`), `ConnectionFailed` for a server that is away unless the
    whole file is here already.
    """

    def __init__(self, http: Http, locate: Callable[[], Awaitable[str]], path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._http = http
        self._locate = locate
        self.streams = Streams(settings.load().streams)
        self._shown: list[_Shown] = []
        self._address: str | None = None
        self._locating = asyncio.Lock()
        self._fetched_to, self._ahead = -1, 0
        # These three belong to the loop's thread.
        self._coming: dict[tuple[int, int], asyncio.Future[None]] = {}
        self._wanted: deque[tuple[int, int]] = deque()
        self._wanting: list[asyncio.Task[None]] = []
        self._sparse = self._open()

    @property
    def size(self) -> int:
        return self._sparse.size

    @property
    def tag(self) -> str:
        """What content this is; another one after `complete` when the file changed on the server."""
        return self._sparse.tag

    @property
    def present(self) -> int:
        """How many of the bytes are on this machine."""
        return self._sparse.present

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes from `offset`, fetched if they are not here; the more beyond them, the longer reads follow on."""
        stop = offset + size
        if not self._sparse.complete and any(self._sparse.missing(offset, stop)):
            follows = offset <= self._fetched_to <= stop + BLOCK
            self._ahead = min(max(2 * self._ahead, BLOCK), _LARGEST_RANGE) if follows else 0
            self._fetched_to = -(-(stop + self._ahead) // BLOCK) * BLOCK
            try:
                wait(self._fill([(offset, self._fetched_to)], urgent=True))
            except _Changed:
                raise IntegrityError(f"{self.name} changed on the server while it was read.", "Open it anew.") from None
        return self._sparse.read_at(offset, size)

    def want(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Begin to fetch these ranges of bytes, in this order, in place of what was wanted before; returns at once.

        Ranges that lie near each other are asked for together. What cannot be fetched is told to who reads it.
        """
        if not self._sparse.complete and self._content.ranges:
            get_loop().call_soon_threadsafe(self._want, list(ranges))

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Have these ranges of bytes here; from a server that ignores ranges, the whole file. Raises as `read_at`."""
        holes = [hole for start, stop in _joined(list(ranges)) for hole in self._sparse.missing(start, stop)]
        if not holes:
            return
        try:
            with self._showing(holes):
                wait(self._fill(holes))
        except _Changed:
            raise IntegrityError(f"{self.name} changed on the server while it was read.", "Open it anew.") from None

    def complete(self, check: Callable[[Path], None]) -> Path:
        """The whole file, verified: by its md5 where storage named one, else by `check`, which raises if it is bad.

        Processes that want the same file wait for the one that fetches it. Raises `IntegrityError` for wrong bytes,
        which are discarded, `DiskFull` before anything is fetched.
        """
        if not self._sparse.complete:
            with _alone(self.path, self.name):
                if not self._sparse.complete:
                    self._complete(check)
        return self.path

    def mend(self, start: int, stop: int) -> None:
        """Fetch [start, stop) again when it is next read, because its bytes turned out to be wrong."""
        self._sparse.forget(start, stop)

    def close(self) -> None:
        if self._wanting:
            wait(self._want_nothing())
        self._sparse.close()

    def _open(self) -> SparseFile:
        try:
            self._content = wait(self._describe())
        except ConnectionFailed:
            whole = whole_file(self.path)
            if whole is None:
                raise
            log.warning("The server is away; %s is read from this machine's copy.", self.name)
            self._content = ContentInfo(*whole, md5=None, ranges=True)
        opened = SparseFile(self.path, self._content.size, self._content.tag)
        if opened.replaced:
            log.warning("%s changed on the server; what was fetched before is discarded.", self.name)
        return opened

    def _complete(self, check: Callable[[Path], None]) -> None:
        for _ in range(3):
            try:
                with FollowingMd5(self._sparse) if self._content.md5 else nullcontext() as md5:
                    with self._showing(list(self._sparse.missing(0, self.size))):
                        # Again, where some of it was mended meanwhile.
                        while any(self._sparse.missing(0, self.size)):
                            wait(self._fill([(0, self.size)]))
                    self._verify(check, md5)
                break
            except _Changed:
                wait(self._want_nothing())
                self._address = None
                self._sparse.close()
                self._sparse = self._open()
        else:
            raise IntegrityError(f"{self.name} keeps changing on the server.", "Try again when it is settled.")
        self._sparse.finish()

    def _verify(self, check: Callable[[Path], None], md5: FollowingMd5 | None) -> None:
        part, promised = self._sparse.part, self._content.md5
        try:
            if md5 is None:
                check(part)
            elif md5.hexdigest() != promised and (found := disk.md5(part)) != promised:
                raise IntegrityError(
                    f"What was fetched is not {self.name}: its md5 is {found}, not {promised}.",
                    "It was discarded; fetch it again.",
                )
        except IntegrityError:
            self._sparse.discard()
            self._sparse = SparseFile(self.path, self._content.size, self._content.tag)
            raise

    async def _describe(self) -> ContentInfo:
        """The file's description, from a request for its first byte (a signed address may allow nothing but GET)."""
        async with self._http.stream("GET", await self._link(), headers={"Range": "bytes=0-0"}) as response:
            content = content_of(response, self.name)
            if content.ranges:
                await response.read()  # so that the connection can be used again
            return content

    async def _link(self) -> str:
        async with self._locating:
            if self._address is None:
                self._address = await self._locate()
            return self._address

    def _drop(self, address: str) -> None:
        """Ask for a new address next time, unless another range already did."""
        if self._address == address:
            self._address = None

    async def _fill(self, ranges: list[tuple[int, int]], *, urgent: bool = False) -> None:
        """Have every block of the ranges here and believed; what is `urgent` does not wait for other streams."""
        holes = [hole for start, stop in ranges for hole in self._sparse.missing(start, stop)]
        if self._content.ranges:
            require_space(self.path.parent, sum(stop - start for start, stop in holes))
            try:
                return await self._fetch_parts(holes, urgent)
            except _RangesIgnored:
                self._content = replace(self._content, ranges=False)
                log.warning("The server of %s ignores ranges; it is fetched whole, in one stream.", self.name)
        if holes:
            require_space(self.path.parent, self.size - self.present)
            await self._retrying(0, self.size, self._stream_whole)
        return None

    async def _fetch_parts(self, holes: list[tuple[int, int]], urgent: bool) -> None:
        most = FIRST if urgent else self.streams.most
        turn: Callable[[], AbstractAsyncContextManager[None]] = nullcontext if urgent else self.streams.turn
        parts = _parts(holes, most)

        async def fetch_next() -> None:
            while parts:
                async with turn():
                    if parts:
                        await self._fetch(*parts.popleft())

        tasks = [asyncio.create_task(fetch_next()) for _ in range(min(most, len(parts)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            await _cancelled(tasks)

    async def _fetch(self, start: int, stop: int) -> None:
        """Have what is missing of [start, stop) here; waits for what is on its way already."""
        while missing := list(self._sparse.missing(start, stop)):
            coming = [future for (begin, end), future in self._coming.items() if begin < stop and start < end]
            hole = next((hole for one in missing for hole in _without(one, self._coming)), None)
            if hole is None:
                await asyncio.wait(coming)
                continue
            arrived = self._coming[hole] = asyncio.get_running_loop().create_future()
            try:
                await self._retrying(*hole, self._stream_range)
            finally:
                del self._coming[hole]
                arrived.set_result(None)

    def _want(self, ranges: list[tuple[int, int]]) -> None:
        wanted = (hole for start, stop in _joined(ranges) for hole in self._sparse.missing(start, stop))
        self._wanted = _parts(wanted, FIRST)
        self._wanting = [task for task in self._wanting if not task.done()]
        for _ in range(len(self._wanting), min(2 * self.streams.allowed, _MOST_WANTING, len(self._wanted))):
            self._wanting.append(asyncio.create_task(self._fetch_wanted()))

    async def _fetch_wanted(self) -> None:
        while self._wanted:
            try:
                await self._fetch(*self._wanted.popleft())
            except (HaversackError, _Changed, _RangesIgnored) as error:
                self._wanted.clear()
                log.debug("%s could not be fetched ahead: %s", self.name, error)

    async def _want_nothing(self) -> None:
        self._wanted.clear()
        await _cancelled(self._wanting)
        self._wanting = []

    async def _retrying(self, start: int, stop: int, stream: Callable[[_Cursor], Awaitable[None]]) -> None:
        """Have [start, stop) streamed in, however often it breaks off while it still gets further."""
        cursor = _Cursor(start, stop)
        failures, renewed = 0, False
        while cursor.furthest < stop:
            before, address, why = cursor.furthest, await self._link(), "it ended too early"
            try:
                await stream(cursor)
            except (RemoteError, SignInError) as error:
                if renewed or not _is_refusal(error):
                    raise
                self._drop(address)
                renewed = True
                continue
            except (aiohttp.ClientError, TimeoutError) as error:
                why = str(error) or type(error).__name__
            if cursor.furthest > before:
                failures, renewed = 0, False
            failures += 1
            if cursor.furthest < stop:
                if cursor.furthest - before < _SMALLEST_RANGE:
                    self.streams.broke()
                if failures >= self._http.attempts:
                    raise ConnectionFailed(
                        f"{self.name} broke off {failures} times at byte {cursor.at:,} ({why}).",
                        "Run it again: it goes on from there.",
                    )
                await asyncio.sleep(random.uniform(0, min(self._http.longest_delay, 0.1 * 2**failures)))

    async def _stream_range(self, cursor: _Cursor) -> None:
        cursor.at = cursor.furthest
        headers = {"Range": f"bytes={cursor.at}-{cursor.stop - 1}"}
        stream = self._http.stream("GET", await self._link(), headers=headers, refused=self.streams.refused)
        async with stream as response:
            if response.status != 206:
                raise _RangesIgnored
            self._check(response)
            if range_start(response.headers) != cursor.at:
                raise _RangesIgnored
            await self._store(response, cursor)

    async def _stream_whole(self, cursor: _Cursor) -> None:
        cursor.at = 0
        async with self._http.stream("GET", await self._link()) as response:
            self._check(response)
            await self._store(response, cursor)

    def _check(self, response: aiohttp.ClientResponse) -> None:
        content = content_of(response, self.name)
        if (content.size, content.tag) != (self._content.size, self._content.tag):
            raise _Changed

    async def _store(self, response: aiohttp.ClientResponse, cursor: _Cursor) -> None:
        try:
            async for data in response.content.iter_chunked(_PIECE):
                data = data[: cursor.stop - cursor.at]
                self._sparse.write(cursor.at, data)
                cursor.at += len(data)
                if cursor.at > cursor.furthest:
                    self._arrived(cursor.furthest, cursor.at)
                    cursor.furthest = cursor.at
                    cursor.believed = self._sparse.believe(cursor.believed, cursor.at)
                if cursor.furthest == cursor.stop or cursor.furthest - cursor.kept >= _SYNCED_AT_ONCE:
                    cursor.kept = await asyncio.to_thread(self._sparse.keep, cursor.kept, cursor.furthest)
        finally:
            cursor.kept = self._sparse.keep(cursor.kept, cursor.furthest)

    def _arrived(self, start: int, stop: int) -> None:
        self.streams.arrived(stop - start)
        for shown in tuple(self._shown):
            shown.arrived(start, stop)

    @contextmanager
    def _showing(self, holes: list[tuple[int, int]]) -> Iterator[None]:
        """Show a bar over the holes meanwhile, whoever fills them."""
        shown = _Shown(sorted(holes))
        self._shown.append(shown)
        try:
            with progress.bar(self.name, sum(stop - start for start, stop in holes)) as advance:
                get_loop().call_soon_threadsafe(shown.begin, advance)
                yield
        finally:
            self._shown.remove(shown)


@dataclass
class _Cursor:
    """Where the fetching of one range is: `at` now, `furthest` ever; up to `believed` the blocks are here, and up to
    `kept` they are synced.
    """

    at: int
    stop: int

    def __post_init__(self) -> None:
        self.furthest = self.believed = self.kept = self.at


@dataclass
class _Shown:
    """A bar over the bytes of `holes`, which are in order and share none; it is moved on the loop's thread."""

    holes: list[tuple[int, int]]
    count: int = 0
    advance: progress.Advance | None = None

    def begin(self, advance: progress.Advance) -> None:
        self.advance = advance
        advance(self.count)

    def arrived(self, start: int, stop: int) -> None:
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
def _alone(path: Path, name: str) -> Iterator[None]:
    """Be the only process that fetches the whole of `path`; waits for another one, and says so."""
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


async def _cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Return once the tasks have ended, whatever they were at."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges in whole blocks, each block once, where it was first asked for; neighbours are one range."""
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


def _without(hole: tuple[int, int], taken: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is left of a hole outside of the taken ranges."""
    left, (at, stop) = [], hole
    for begin, end in sorted(taken):
        if begin < stop and at < end:
            if at < begin:
                left.append((at, begin))
            at = end
    return [*left, (at, stop)] if at < stop else left


def _parts(missing: Iterable[tuple[int, int]], streams: int) -> deque[tuple[int, int]]:
    """The ranges to ask for: the missing ones, cut so that every stream has something to do."""
    holes = list(missing)
    total = sum(stop - start for start, stop in holes)
    length = -(-min(max(total // streams, _SMALLEST_RANGE), _LARGEST_RANGE) // BLOCK) * BLOCK
    return deque((at, min(at + length, stop)) for start, stop in holes for at in range(start, stop, length))


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, SignInError) or getattr(error, "status", 0) in _REFUSED
