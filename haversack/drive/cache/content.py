"""The bytes of files that were read, kept on local disk within a budget.

A file's bytes are keyed by its id and content hash, so what was changed is never mixed with what was before. A small
file comes whole, in one call, and is compared with its MD5 whenever it is read from disk; a larger one comes in the
ranges that are read (`filling`). Processes share what is kept: a file is complete or absent, a sparse one has a journal
of what is there.

A file that was just uploaded is taken over whole (`adopt`). Where the disk takes nothing, bytes come all the same and
are not kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from haversack import disk
from haversack.blocks.budget import Budget
from haversack.drive.cache.partial import CompleteFile, PartialFile, changed, check_content
from haversack.drive.remote.api import DriveApi, File
from haversack.errors import ConnectionFailed, DiskFull, HaversackError
from haversack.http import wait

_log = logging.getLogger(__name__)

SMALL = 1 << 20
"""A file of up to this many bytes is fetched whole."""
_PIECE = 4 << 20
_RECENT = 8 << 20
_OPEN = 64
_Key = tuple[str, str, int]


@dataclass(frozen=True)
class Extent:
    """Bytes that lie in a file of this machine: `size` of them from `offset`. It is open for as long as `holder` is."""

    holder: CompleteFile | PartialFile
    offset: int
    size: int

    @property
    def descriptor(self) -> int:
        return self.holder.descriptor

    def read(self) -> bytes:
        return os.pread(self.descriptor, self.size, self.offset)


class ContentCache:
    """The cache of one drive's bytes in `folder`, at most `budget` bytes (see `Budget`).

    `received` counts the bytes that came from the drive.
    """

    def __init__(self, folder: Path, api: DriveApi, budget: int | None = None) -> None:
        self.api = api
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.budget = Budget(folder, budget)
        self.received = 0
        self._lock = threading.Lock()
        self._open: OrderedDict[_Key, CompleteFile | PartialFile] = OrderedDict()
        self._recent: OrderedDict[_Key, bytes] = OrderedDict()
        self._held = 0
        self._fetching: dict[_Key, asyncio.Task[bytes]] = {}

    def read(self, file: File, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`, fewer only at the end of the file.

        Raises `IntegrityError` when the drive's bytes are not those of `file`, which then has changed.
        """
        found = self.find(file, offset, size)
        return found if isinstance(found, bytes) else found.read()

    def find(self, file: File, offset: int, size: int) -> bytes | Extent:
        """As `read`; where the bytes lie in a file on disk, that place rather than a copy of them."""
        stop = min(offset + size, file.size)
        if offset >= stop:
            return b""
        if file.size <= SMALL:
            return self._small(file)[offset:stop]
        try:
            kept = self._large(file)
            kept.bring(offset, stop)
            return Extent(kept, offset, stop - offset)
        except OSError as error:
            if isinstance(error, HaversackError) and not isinstance(error, DiskFull):
                raise
            # The local disk is full, or broken, or the cache folder is none.
            self.budget.evict()
            return self._uncached(file, offset, stop)

    def copy_to(self, file: File, target: int) -> None:
        """Write the whole file into the open file descriptor `target`, verified. Raises `IntegrityError`."""
        digest = hashlib.md5(usedforsecurity=False)
        for offset in range(0, file.size, _PIECE):
            data = self.read(file, offset, _PIECE)
            digest.update(data)
            while data:
                written = os.pwrite(target, data, offset)
                data, offset = data[written:], offset + written
        if file.md5 and digest.hexdigest() != file.md5:
            self._drop(file)
            raise changed(file)

    def adopt(self, file: File, path: Path) -> None:
        """Take over the local file `path`, which holds exactly the bytes of `file`, where the cache can have it."""
        place = self._place(file)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
        except OSError as error:
            # Another disk, or a full one: a cache without it is only slower.
            _log.debug("%s is not taken over: %s", file.name, error)
            path.unlink(missing_ok=True)
            return
        self.budget.add(file.size)

    def _place(self, file: File) -> Path:
        key = hashlib.sha256(f"{file.id} {file.md5} {file.size}".encode()).hexdigest()[:32]
        return self._folder / key[:2] / key

    def _drop(self, file: File) -> None:
        place = self._place(file)
        with self._lock:
            self._open.pop(_key(file), None)
            self._held -= len(self._recent.pop(_key(file), b""))
        for path in (place, place.with_name(f"{place.name}.part"), place.with_name(f"{place.name}.journal")):
            path.unlink(missing_ok=True)

    # Large files

    def _large(self, file: File) -> CompleteFile | PartialFile:
        key = _key(file)
        with self._lock:
            there = self._open.get(key)
            if there is not None and not there.broken:
                self._open.move_to_end(key)
                return there
        place = self._place(file)
        try:
            opened: CompleteFile | PartialFile = CompleteFile(file, place)
        except FileNotFoundError:
            opened = PartialFile(file, place, self.api, self._came)
        with self._lock:
            there = self._open.get(key)
            if there is not None and not there.broken:
                return there  # another thread came first: its ranges are on their way
            self._open[key] = opened
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        return opened

    def _came(self, size: int) -> None:
        self.received += size
        self.budget.add(size)

    # Small files, and pieces of large ones where the disk keeps nothing

    def _small(self, file: File) -> bytes:
        key = _key(file)
        data = self._remembered(key)
        if data is None:
            data = _read_whole(self._place(file), file)
            if data is None:
                data = wait(self._fetched(key, file, 0, file.size))
            self._remember(key, data)
        return data

    def _uncached(self, file: File, offset: int, stop: int) -> bytes:
        parts = []
        for start in range(offset - offset % SMALL, stop, SMALL):
            key = (file.id, file.md5, start)
            data = self._remembered(key)
            if data is None:
                data = wait(self._fetched(key, file, start, min(start + SMALL, file.size)))
                self._remember(key, data)
            parts.append(data[max(offset - start, 0) : stop - start])
        return b"".join(parts)

    def _remembered(self, key: _Key) -> bytes | None:
        with self._lock:
            data = self._recent.get(key)
            if data is not None:
                self._recent.move_to_end(key)
            return data

    def _remember(self, key: _Key, data: bytes) -> None:
        with self._lock:
            self._held += len(data) - len(self._recent.pop(key, b""))
            self._recent[key] = data
            while self._held > _RECENT:
                self._held -= len(self._recent.popitem(last=False)[1])

    async def _fetched(self, key: _Key, file: File, start: int, stop: int) -> bytes:
        """One call's bytes, for all who want them at once."""
        task = self._fetching.get(key)
        if task is None:
            task = asyncio.ensure_future(self._fetch(file, start, stop))
            self._fetching[key] = task
            task.add_done_callback(lambda done: self._fetching.pop(key))
        # Shielded: others may wait for the same bytes when this reader is interrupted.
        return await asyncio.shield(task)

    async def _fetch(self, file: File, start: int, stop: int) -> bytes:
        data = bytearray()
        failures = 0
        while len(data) < stop - start:
            try:
                async with self.api.download(file.id, start + len(data), stop) as response:
                    check_content(response, file, start + len(data))
                    async for piece in response.content.iter_any():
                        data += piece
                        failures = 0
                if len(data) < stop - start:
                    raise aiohttp.ClientPayloadError("it ended early")
            except (TimeoutError, aiohttp.ClientError) as error:
                failures += 1
                if failures >= self.api.http.attempts:
                    raise ConnectionFailed(f"Reading {file.name} from the drive broke off ({error}).") from error
        whole = bytes(data)
        self.received += len(whole)
        if len(whole) == file.size:
            if file.md5 and hashlib.md5(whole, usedforsecurity=False).hexdigest() != file.md5:
                raise changed(file)
            self._keep(file, whole)
        elif len(whole) > stop - start:
            raise changed(file)
        return whole

    def _keep(self, file: File, data: bytes) -> None:
        path = self._place(file)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            disk.write(path, data, durable=False)
        except OSError as error:
            # A cache that cannot be written is only slower.
            _log.debug("%s is not kept: %s", file.name, error)
            return
        self.budget.add(len(data))


def _key(file: File) -> _Key:
    return file.id, file.md5, -1


def _read_whole(path: Path, file: File) -> bytes | None:
    """A small file as it was kept; None where it was not, or where the disk holds something else by now."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(data) != file.size or (file.md5 and hashlib.md5(data, usedforsecurity=False).hexdigest() != file.md5):
        return None
    return data
