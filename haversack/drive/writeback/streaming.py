"""The upload of a file that is still being written: what was appended goes up meanwhile, the file is made at the end.

It begins before anybody knows how long the file will be, follows the writer out of the page cache, and hashes the bytes
on their way, once. At least the last byte waits until the journal has the file committed and says how long it is
(`finish`); the call that then names the total is the first by which the drive gets a file or new content. So nothing
that was acknowledged depends on bytes that went ahead, and bytes that went ahead for nothing were never a file's.

What is written below what was sent ends it (`end`), and the session is taken back: `DELETE`, answered with 499, as
Google's Cloud Storage and GData document it; a drive that knows no such call lets the session expire. It waits for the
writer as a coroutine and holds no thread meanwhile. Why it failed is nobody's concern: the ordinary upload tells.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from fsspec.asyn import get_loop

from haversack.drive.remote.api import DriveApi, File, ResumableUpload
from haversack.drive.remote.upload import CHUNK, UNIT
from haversack.errors import HaversackError

_log = logging.getLogger(__name__)
_NEVER = 1 << 62


class StreamingUpload(ResumableUpload):
    """The upload of `source` while it is written, of which `there` bytes can be sent so far, beginning with the first.

    `lock` is the one under which the bytes change. Those below `taken` are hashed and sent, or about to be.
    `position` is how many of them the drive has. Each call carries `step` bytes at least, a multiple of `UNIT`, until
    the file is whole. `size` counts once `finish` was called.
    """

    def __init__(
        self,
        source: Path,
        lock: threading.RLock,
        there: int,
        *,
        exists: bool,
        parent: str,
        name: str,
        modified: float,
        step: int = CHUNK,
    ) -> None:
        super().__init__(source, _NEVER, Future(), "", exists, parent, name, modified, first=there & -UNIT)
        self.taken = self.position = 0
        self.ended = False
        self._lock = lock
        self._there = there
        self._step = step
        self._wanted = _NEVER
        self._more = asyncio.Event()
        self._hasher: Any = hashlib.md5(usedforsecurity=False)
        self._hashed = 0
        self._hashing = threading.Lock()
        self._result: Future[File] = Future()
        self.is_wanted = lambda: not self.ended

    def begin(self, api: DriveApi, identified: Callable[[], Awaitable[str]]) -> Future[File]:
        """Begin to send what is there; `identified` gives the file's id."""
        self._result = asyncio.run_coroutine_threadsafe(self._followed(api, identified), get_loop())
        return self._result

    # The writer's side; `lock` is held

    def grew(self, there: int) -> None:
        """So many bytes are in the file by now."""
        self._there = there
        if there >= self._wanted:
            self._wanted = _NEVER
            get_loop().call_soon_threadsafe(self._more.set)

    def end(self) -> None:
        """Send nothing more: what was sent is not, or not as it was, what the file is going to be."""
        if not self.ended:
            self.ended = True
            self._result.cancel()

    # The journal's side

    @property
    def is_good(self) -> bool:
        """Whether it can still become the file."""
        return not self.ended and not self._result.done()

    def finish(self, size: int) -> tuple[Any, int]:
        """The file is whole, with so many bytes: send the rest and make it one, once `md5` is known.

        Returns the hash of so many of its first bytes, which the caller is to go on with.
        """
        self.size = size
        get_loop().call_soon_threadsafe(self._more.set)
        with self._hashing:
            hasher, self._hasher = self._hasher, None
            return hasher, self._hashed

    def result(self) -> File:
        """Wait until it is on the drive. Raises as `DriveApi.upload`."""
        return self._result.result()

    # The upload's own

    @property
    def total(self) -> int | None:
        return None if self.size == _NEVER else self.size

    @property
    def sent(self) -> int:
        return self.taken if self.total is None else self.size

    async def reach(self, position: int, most: int) -> int:
        while self.total is None:
            self._more.clear()
            # Looked at only after it was said: whoever writes meanwhile sees one or is seen by the other.
            self._wanted = position + self._step + 1
            ready = min(self._there - 1 - position, most)
            if ready >= self._step:
                return position + ready - ready % UNIT
            if self.total is None:
                await self._more.wait()
        return await super().reach(position, most)

    def read(self, position: int, size: int) -> bytes:
        if self.total is None:
            with self._lock:
                self.taken = max(self.taken, position + size)
        data = super().read(position, size)
        with self._hashing:
            if self._hasher is not None and position <= self._hashed < position + len(data):
                self._hasher.update(memoryview(data)[self._hashed - position :])
                self._hashed = position + len(data)
        return data

    async def _followed(self, api: DriveApi, identified: Callable[[], Awaitable[str]]) -> File:
        try:
            self.file_id = await identified()
            return await api.upload(self)
        except HaversackError as error:
            _log.debug("%s goes ahead no more: %s", self.name, error)
            raise
        finally:
            if self.total is None:
                await self._take_back(api)

    async def _take_back(self, api: DriveApi) -> None:
        """Tell the drive that the session is not gone on with."""
        if self.session is None:
            return
        try:
            await api.http.request("DELETE", self.session, accept=(404, 405, 410, 499), again=False)
        except HaversackError as error:
            _log.debug("The upload of %s that went ahead is left to expire: %s", self.name, error)
