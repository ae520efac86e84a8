"""The bytes of files that were read, kept on local disk in blocks.

A file's bytes are keyed by its id and content hash, so what was changed is never mixed with what was before. A block
is a file of its own, complete or absent, which makes it safe to share between processes, to evict, and to lose power.
Reads in order fetch ahead, further with every block; several blocks come side by side. Files of one block are verified
against their MD5; of a larger one each block's length, because a range has no hash of its own.

A file that was just uploaded is taken over whole (`adopt`). Once the cache is over its budget, the oldest bytes go.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import threading
from pathlib import Path

import aiohttp

from haversack.drive.api import DriveApi, File
from haversack.errors import ConnectionFailed, IntegrityError
from haversack.http import wait

BLOCK = 4 << 20
_AHEAD = 8
_WHOLE = "whole"


class Content:
    """The cache of one drive's bytes in `folder`, at most `budget` bytes (by default a tenth of what is free)."""

    def __init__(self, folder: Path, api: DriveApi, budget: int | None = None) -> None:
        self.api = api
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._budget = budget if budget is not None else max(256 << 20, shutil.disk_usage(folder).free // 10)
        self._written = 0
        self._fetching: dict[Path, asyncio.Task[bytes]] = {}
        self._reading: dict[str, tuple[int, int]] = {}
        self._noting = threading.Lock()
        self._evicting = threading.Lock()

    def read(self, file: File, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`, fewer only at the end of the file.

        Raises `IntegrityError` when the drive's bytes are not those of `file`, which then has changed.
        """
        stop = min(offset + size, file.size)
        if offset >= stop:
            return b""
        place = self._place(file)
        whole = _read_file(place / _WHOLE, offset, stop - offset)
        if whole is not None:
            return whole
        first, last = offset // BLOCK, (stop - 1) // BLOCK
        self._read_ahead(file, place, first, last)
        parts = []
        for number in range(first, last + 1):
            start = max(offset - number * BLOCK, 0)
            length = min(stop - number * BLOCK, BLOCK) - start
            part = _read_file(place / str(number), start, length)
            if part is None:
                part = wait(self._block(file, place, number))[start : start + length]
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def copy_to(self, file: File, target: int) -> None:
        """Write the whole file into the open file descriptor `target`, verified. Raises `IntegrityError`."""
        digest = hashlib.md5(usedforsecurity=False)
        for offset in range(0, file.size, BLOCK):
            data = self.read(file, offset, BLOCK)
            digest.update(data)
            while data:
                written = os.pwrite(target, data, offset)
                data, offset = data[written:], offset + written
        if digest.hexdigest() != file.md5:
            shutil.rmtree(self._place(file), ignore_errors=True)
            raise _changed(file)

    def adopt(self, file: File, path: Path) -> None:
        """Take over the local file `path`, which holds exactly the bytes of `file`, where the cache can have it."""
        place = self._place(file)
        try:
            place.mkdir(parents=True, exist_ok=True)
            path.replace(place / _WHOLE)
        except OSError:
            # Another disk, or a full one: a cache without it is only slower.
            path.unlink()
            return
        self._count(file.size)

    def _place(self, file: File) -> Path:
        key = hashlib.sha256(f"{file.id} {file.md5} {file.size}".encode()).hexdigest()[:32]
        return self._folder / key[:2] / key

    def _read_ahead(self, file: File, place: Path, first: int, last: int) -> None:
        """Begin to fetch what a reader in order will ask for next: twice as much with every block it goes on."""
        with self._noting:
            previous, window = self._reading.pop(file.id, (-1, 0))
            if first == previous + 1 or (last > first and first == previous):
                window = min(max(1, window * 2), _AHEAD)
            elif first != previous:
                window = 0
            self._reading[file.id] = (last, window)
            if len(self._reading) > 1000:
                self._reading.pop(next(iter(self._reading)))
        blocks = range(first, min(last + 1 + window, (file.size - 1) // BLOCK + 1))
        missing = [number for number in blocks if not (place / str(number)).exists()]
        if len(missing) > 1 or (missing and missing[0] > last):
            asyncio.run_coroutine_threadsafe(self._begin(file, place, missing), _loop())

    async def _begin(self, file: File, place: Path, numbers: list[int]) -> None:
        for number in numbers:
            self._fetch(file, place, number)

    async def _block(self, file: File, place: Path, number: int) -> bytes:
        # Shielded: others may wait for the same block when this reader is interrupted.
        return await asyncio.shield(self._fetch(file, place, number))

    def _fetch(self, file: File, place: Path, number: int) -> asyncio.Task[bytes]:
        path = place / str(number)
        task = self._fetching.get(path)
        if task is None:
            task = asyncio.ensure_future(self._download(file, path, number))
            self._fetching[path] = task
            task.add_done_callback(lambda done: self._done(path, done))
        return task

    def _done(self, path: Path, task: asyncio.Task[bytes]) -> None:
        del self._fetching[path]
        if not task.cancelled():
            task.exception()  # what was only fetched ahead may fail; who needs it asks again

    async def _download(self, file: File, path: Path, number: int) -> bytes:
        stored = await asyncio.to_thread(_read_file, path, 0, BLOCK)
        if stored is not None:
            return stored
        start, stop = number * BLOCK, min((number + 1) * BLOCK, file.size)
        data = await self._range(file, start, stop)
        await asyncio.to_thread(self._keep, file, path, data)
        return data

    async def _range(self, file: File, start: int, stop: int) -> bytes:
        """The bytes of one block; goes on where the connection broke off."""
        data = bytearray()
        failures = 0
        while len(data) < stop - start:
            position = start + len(data)
            try:
                async with self.api.download(file.id, position, stop) as response:
                    if response.status != 206 and not (position == 0 and stop == file.size):
                        raise IntegrityError(f"The drive does not serve a part of {file.name}.", "Report this.")
                    if _total(response) != file.size:
                        raise _changed(file)
                    async for piece in response.content.iter_any():
                        data += piece
            except (TimeoutError, aiohttp.ClientError) as error:
                failures += 1
                if failures >= self.api.http.attempts:
                    raise ConnectionFailed(f"Reading {file.name} from the drive broke off ({error}).") from error
        if len(data) > stop - start:
            raise _changed(file)
        return bytes(data)

    def _keep(self, file: File, path: Path, data: bytes) -> None:
        if len(data) == file.size and hashlib.md5(data, usedforsecurity=False).hexdigest() != file.md5:
            raise _changed(file)
        aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(data)
            aside.replace(path)
        except OSError as error:
            # A cache that cannot be written is only slower.
            aside.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.ENOENT):
                raise
            self._evict()
            return
        self._count(len(data))

    def _count(self, size: int) -> None:
        self._written += size
        if self._written > self._budget // 8:
            self._written = 0
            self._evict()

    def _evict(self) -> None:
        """Remove the least recently read until the cache is within nine tenths of its budget."""
        if not self._evicting.acquire(blocking=False):
            return
        try:
            known = []
            for path in self._folder.glob("*/*/*"):
                try:
                    about = path.stat()
                except FileNotFoundError:
                    continue
                known.append((about.st_atime, about.st_blocks * 512, path))
            used = sum(size for _, size, _ in known)
            for _, size, path in sorted(known):
                if used <= self._budget * 9 // 10:
                    break
                path.unlink(missing_ok=True)
                used -= size
        finally:
            self._evicting.release()


def _loop() -> asyncio.AbstractEventLoop:
    from fsspec.asyn import get_loop

    return get_loop()


def _read_file(path: Path, offset: int, size: int) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
            while 0 < len(data) < size and (more := os.pread(file.fileno(), size - len(data), offset + len(data))):
                data += more
            return data
    except FileNotFoundError:
        return None


def _total(response: aiohttp.ClientResponse) -> int:
    said: str = response.headers.get("Content-Range") or response.headers.get("Content-Length") or "-1"
    return int(said.rpartition("/")[2])


def _changed(file: File) -> IntegrityError:
    return IntegrityError(f"{file.name} changed on the drive while it was read.", "Read it again.")
