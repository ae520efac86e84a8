"""A disk cache of the bytes of files that were read, with a size limit and LRU eviction.

Files are keyed by id, MD5 and size, so bytes of different versions are never mixed. A file of up to 1 MiB is fetched in
one request, and its MD5 is compared each time it is read from disk. A larger file is fetched in the ranges that are
read (`partial`). Processes share the cache: a small file is written by atomic replace, and a sparse file has a journal
of the blocks that are present.

`adopt` moves the bytes of a file that was just uploaded into the cache. If the local disk is full or broken, bytes are
fetched all the same and cached in memory only.
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
from haversack.drive.cache.partial import CompleteFile, PartialFile, changed_error, check_content
from haversack.drive.remote.api import DriveApi
from haversack.drive.remote.calls import File
from haversack.errors import ConnectionFailed, DiskFull, HaversackError
from haversack.http import wait

_log = logging.getLogger(__name__)

SMALL = 1 << 20
"""Files of up to this many bytes are fetched whole."""
_COPY_SIZE = 4 << 20
_MAX_RECENT_BYTES = 8 << 20
_MAX_OPEN = 64
# File id, MD5, and the offset of the first byte; -1 stands for the whole file.
_Key = tuple[str, str, int]


@dataclass(frozen=True)
class Extent:
    """Where a range of bytes is: `size` bytes at `offset` of the open local file with the file descriptor `descriptor`.

    The descriptor stays open as long as `holder`, the cached file, is referenced. `read` returns the bytes.
    """

    holder: CompleteFile | PartialFile
    offset: int
    size: int

    @property
    def descriptor(self) -> int:
        return self.holder.descriptor

    def read(self) -> bytes:
        return os.pread(self.descriptor, self.size, self.offset)


class ContentCache:
    """The cache of one drive's bytes. Thread-safe, but its methods must not be called on the event loop's thread.

    `received` is the number of bytes requested from the drive in downloads that have ended.

    Args:
        folder: The local folder of the cache, created if it is missing. Several processes may share it.
        api: The drive.
        budget: The size limit in bytes; by default a tenth of the free disk space, at least 256 MiB.
    """

    def __init__(self, folder: Path, api: DriveApi, budget: int | None = None) -> None:
        self.api = api
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.budget = Budget(folder, budget)
        self.received = 0
        self._lock = threading.Lock()
        # The next three are guarded by `_lock`; the ordered ones have the least recently used entry first.
        self._open: OrderedDict[_Key, CompleteFile | PartialFile] = OrderedDict()
        self._recent: OrderedDict[_Key, bytes] = OrderedDict()
        self._recent_bytes = 0
        # Used on the event loop only.
        self._downloads: dict[_Key, asyncio.Task[bytes]] = {}

    def read(self, file: File, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of `file` at `offset`, fewer only at its end; bytes that are missing are fetched.

        Raises `IntegrityError` if the file on the drive is no longer the version `file`, `ConnectionFailed` if the
        download broke off `Http.attempts` times in a row, and `NotFound`, `SignInError` or another `RemoteError` if the
        drive refuses it.
        """
        found = self.find(file, offset, size)
        return found if isinstance(found, bytes) else found.read()

    def find(self, file: File, offset: int, size: int) -> bytes | Extent:
        """Fetch what `read` would return; for a file of more than `SMALL` bytes, return the bytes' place on disk.

        An empty range, a small file, and bytes that the local disk has no room for are returned as bytes. Raises
        `IntegrityError`, `ConnectionFailed`, `SignInError` and `RemoteError`, in the same cases as `read`.
        """
        stop = min(offset + size, file.size)
        if offset >= stop:
            return b""
        if file.size <= SMALL:
            return self._read_small(file)[offset:stop]
        try:
            cached = self._open_large(file)
            cached.fetch(offset, stop)
            return Extent(cached, offset, stop - offset)
        except OSError as error:
            if isinstance(error, HaversackError) and not isinstance(error, DiskFull):
                raise
            # The local disk is full or broken, or the cache folder is not usable.
            self.budget.evict()
            return self._uncached(file, offset, stop)

    def copy_to(self, file: File, target: int) -> None:
        """Write the whole of `file` to the file descriptor `target`, which must be seekable, and compare its MD5.

        A wrong MD5 removes the file from the cache and raises `IntegrityError`; what was written to `target` stays.
        Raises `OSError` if writing fails, and `ConnectionFailed`, `SignInError` or `RemoteError` if the download does.
        """
        digest = hashlib.md5(usedforsecurity=False)
        for offset in range(0, file.size, _COPY_SIZE):
            data = self.read(file, offset, _COPY_SIZE)
            digest.update(data)
            while data:
                written = os.pwrite(target, data, offset)
                data, offset = data[written:], offset + written
        if file.md5 and digest.hexdigest() != file.md5:
            self._drop(file)
            raise changed_error(file)

    def adopt(self, file: File, path: Path) -> None:
        """Move the local file `path`, which must hold exactly the bytes of `file`, into the cache.

        If that fails (another file system, a full disk), `path` is deleted and the file is not cached.
        """
        cached_path = self._path_of(file)
        try:
            cached_path.parent.mkdir(parents=True, exist_ok=True)
            path.replace(cached_path)
        except OSError as error:
            _log.debug("Cannot move %s into the cache: %s", file.name, error)
            path.unlink(missing_ok=True)
            return
        self.budget.add(file.size)

    def _path_of(self, file: File) -> Path:
        key = hashlib.sha256(f"{file.id} {file.md5} {file.size}".encode()).hexdigest()[:32]
        return self._folder / key[:2] / key

    def _drop(self, file: File) -> None:
        """Delete a file from the cache, on disk and in memory."""
        cached_path = self._path_of(file)
        with self._lock:
            self._open.pop(_key(file), None)
            self._recent_bytes -= len(self._recent.pop(_key(file), b""))
        for path in (
            cached_path,
            cached_path.with_name(f"{cached_path.name}.part"),
            cached_path.with_name(f"{cached_path.name}.journal"),
        ):
            path.unlink(missing_ok=True)

    # Large files

    def _open_large(self, file: File) -> CompleteFile | PartialFile:
        """Return the open local file for `file`, which stays open while it is among the `_MAX_OPEN` last used.

        Raises `OSError` if it can be neither opened nor created.
        """
        key = _key(file)
        with self._lock:
            cached = self._open.get(key)
            if cached is not None and not cached.broken:
                self._open.move_to_end(key)
                return cached
        cached_path = self._path_of(file)
        try:
            opened: CompleteFile | PartialFile = CompleteFile(file, cached_path)
        except FileNotFoundError:
            opened = PartialFile(file, cached_path, self.api, self._on_received)
        with self._lock:
            cached = self._open.get(key)
            if cached is not None and not cached.broken:
                return cached  # another thread opened it first, and may be fetching already
            self._open[key] = opened
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
        return opened

    def _on_received(self, size: int) -> None:
        self.received += size
        self.budget.add(size)

    # Small files, and blocks of large ones that cannot be stored on disk

    def _read_small(self, file: File) -> bytes:
        """Return a whole small file, from memory, from disk or from the drive."""
        key = _key(file)
        data = self._get_recent(key)
        if data is None:
            data = _read_whole(self._path_of(file), file)
            if data is None:
                data = wait(self._fetch_shared(key, file, 0, file.size))
            self._add_recent(key, data)
        return data

    def _uncached(self, file: File, offset: int, stop: int) -> bytes:
        """Return the bytes [offset, stop) of a large file, fetched in blocks of `SMALL` bytes and cached in memory."""
        parts = []
        for start in range(offset - offset % SMALL, stop, SMALL):
            key = (file.id, file.md5, start)
            data = self._get_recent(key)
            if data is None:
                data = wait(self._fetch_shared(key, file, start, min(start + SMALL, file.size)))
                self._add_recent(key, data)
            parts.append(data[max(offset - start, 0) : stop - start])
        return b"".join(parts)

    def _get_recent(self, key: _Key) -> bytes | None:
        with self._lock:
            data = self._recent.get(key)
            if data is not None:
                self._recent.move_to_end(key)
            return data

    def _add_recent(self, key: _Key, data: bytes) -> None:
        with self._lock:
            self._recent_bytes += len(data) - len(self._recent.pop(key, b""))
            self._recent[key] = data
            while self._recent_bytes > _MAX_RECENT_BYTES:
                self._recent_bytes -= len(self._recent.popitem(last=False)[1])

    async def _fetch_shared(self, key: _Key, file: File, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop); concurrent calls for the same key share one download."""
        task = self._downloads.get(key)
        if task is None:
            task = asyncio.ensure_future(self._fetch(file, start, stop))
            self._downloads[key] = task
            task.add_done_callback(lambda done: self._downloads.pop(key))
        # Shielded: if this reader is interrupted, others may still be waiting for the same download.
        return await asyncio.shield(task)

    async def _fetch(self, file: File, start: int, stop: int) -> bytes:
        """Download the bytes [start, stop), resuming where a response broke off; store a whole file in the cache.

        Raises `IntegrityError` if the file changed on the drive, and `ConnectionFailed` after `Http.attempts` failures
        in a row.
        """
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
                    raise aiohttp.ClientPayloadError("the response ended early")
            except (TimeoutError, aiohttp.ClientError) as error:
                failures += 1
                if failures >= self.api.http.attempts:
                    raise ConnectionFailed(
                        f"The download of {file.name} from the drive broke off ({error}).", "Read it again."
                    ) from error
        whole = bytes(data)
        self.received += len(whole)
        if len(whole) == file.size:
            if file.md5 and hashlib.md5(whole, usedforsecurity=False).hexdigest() != file.md5:
                raise changed_error(file)
            self._store(file, whole)
        elif len(whole) > stop - start:
            raise changed_error(file)
        return whole

    def _store(self, file: File, data: bytes) -> None:
        """Write a whole file into the cache; if that fails, the file is not cached."""
        path = self._path_of(file)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            disk.write(path, data, durable=False)
        except OSError as error:
            _log.debug("Cannot store %s in the cache: %s", file.name, error)
            return
        self.budget.add(len(data))


def _key(file: File) -> _Key:
    """Return the key of the whole file."""
    return file.id, file.md5, -1


def _read_whole(path: Path, file: File) -> bytes | None:
    """Return the cached bytes of a small file; None if there are none, or if their size or MD5 differs."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(data) != file.size or (file.md5 and hashlib.md5(data, usedforsecurity=False).hexdigest() != file.md5):
        return None
    return data
