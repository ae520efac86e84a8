"""Upload a file while it is still being written, and complete it on the drive only when it is committed.

The upload starts before the file's length is known, and sends appended bytes while they are still in the page cache; it
hashes them once, as it reads them. At least the last byte is held back until the journal has committed the file and
passes its length to `finish`. The chunk that then names the total size is the first one that gives the drive a new
file or new content. So nothing acknowledged depends on the bytes sent earlier, and bytes sent in vain never become a
file.

A write below the bytes already sent cancels the upload, and its session is deleted: `DELETE`, answered with 499, as
documented for Google Cloud Storage and GData. A drive that does not support this lets the session expire. While it
waits for the writer, the upload is a suspended coroutine and occupies no thread. Its errors are only logged: the
journal then uploads the file in the ordinary way, which reports errors.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path

from fsspec.asyn import get_loop

from haversack.drive.remote.api import DriveApi
from haversack.drive.remote.calls import File
from haversack.drive.remote.upload import CHUNK, CHUNK_MULTIPLE, ResumableUpload
from haversack.errors import HaversackError

_log = logging.getLogger(__name__)
_UNKNOWN = 1 << 62


class StreamingUpload(ResumableUpload):
    """An upload of `source` while it is written.

    `read_until` is the end of the bytes that may have been hashed and sent; it is guarded by `lock`. `position` is how
    many bytes the drive has stored. `size` is meaningless until `finish` sets it; `total` is None until then.
    `start`, `finish` and `result` are called in this order, once each; the writer calls `grow` with `lock` held.

    Args:
        source: The local file that is being written.
        lock: The lock that the writer holds while it changes the file.
        written: How many bytes are in the file, from its start, when the upload starts.
        exists: Whether the file exists on the drive.
        parent: The id of the folder to create the file in; not sent with `exists`.
        name: The name to create the file with; not sent with `exists`.
        modified: The file's modification time, in seconds since 1970.
        step: The shortest chunk, in bytes, that is sent before `finish`; a multiple of `CHUNK_MULTIPLE`.
    """

    def __init__(
        self,
        source: Path,
        lock: threading.RLock,
        written: int,
        *,
        exists: bool,
        parent: str,
        name: str,
        modified: float,
        step: int = CHUNK,
    ) -> None:
        first_chunk = written & -CHUNK_MULTIPLE
        super().__init__(source, _UNKNOWN, Future(), "", exists, parent, name, modified, first_chunk=first_chunk)
        self.read_until = self.position = 0
        self.cancelled = False
        self._lock = lock
        self._written = written
        self._step = step
        # The writer sets `_wakeup` once `_written` has reached `_wake_at`.
        self._wake_at = _UNKNOWN
        self._wakeup = asyncio.Event()
        # The hash of the first `_hashed` bytes, guarded by `_hash_lock`; None once `finish` has handed it out.
        self._hasher: hashlib._Hash | None = hashlib.md5(usedforsecurity=False)
        self._hashed = 0
        self._hash_lock = threading.Lock()
        self._result: Future[File] = Future()
        self.is_wanted = lambda: not self.cancelled

    def start(self, api: DriveApi, get_file_id: Callable[[], Awaitable[str]]) -> Future[File]:
        """Start the upload on the event loop, and return the future of the uploaded file.

        `get_file_id` is awaited on the event loop for the id of the file to create or replace.
        """
        self._result = asyncio.run_coroutine_threadsafe(self._run(api, get_file_id), get_loop())
        return self._result

    # `grow` is called by the writer, which holds `lock`; `cancel` by any thread

    def grow(self, written: int) -> None:
        """Report that the file now has `written` bytes; wake the upload if that is enough for a chunk."""
        self._written = written
        if written >= self._wake_at:
            self._wake_at = _UNKNOWN
            get_loop().call_soon_threadsafe(self._wakeup.set)

    def cancel(self) -> None:
        """Cancel the upload and its session, because bytes that may have been sent are no longer those of the file.

        Returns at once; the file on the drive stays as it is.
        """
        if not self.cancelled:
            self.cancelled = True
            self._result.cancel()

    # Called by the uploader

    @property
    def is_usable(self) -> bool:
        """Whether the upload is still running, so that `finish` can complete it."""
        return not self.cancelled and not self._result.done()

    def finish(self, size: int) -> tuple[hashlib._Hash, int]:
        """Send the rest of the file, which now has its final `size`, and complete it on the drive.

        Called once, by the uploader. Returns (hasher, N): the MD5 object of the first N bytes. The caller hashes the
        rest and puts the file's MD5, in hex, into the future `self.md5`, which the upload awaits at its end.
        """
        self.size = size
        get_loop().call_soon_threadsafe(self._wakeup.set)
        with self._hash_lock:
            hasher, self._hasher = self._hasher, None
            assert hasher is not None
            return hasher, self._hashed

    def result(self) -> File:
        """Block until the upload has ended, and return the metadata of the file on the drive.

        Raises `concurrent.futures.CancelledError` if the upload was cancelled, `UploadSuperseded` if `is_wanted`
        returned False, `IntegrityError` if the drive reports another MD5, `ConnectionFailed`, `SignInError`,
        `RemoteError`, and `OSError` if `source` cannot be read.
        """
        return self._result.result()

    # Called by `DriveApi.upload` on the event loop

    @property
    def total(self) -> int | None:
        return None if self.size == _UNKNOWN else self.size

    @property
    def max_stored(self) -> int:
        return self.read_until if self.total is None else self.size

    async def chunk_end(self, position: int, max_size: int) -> int:
        """Return the offset at which the chunk from `position` on ends; it has at most `max_size` bytes.

        Waits until `step` bytes and one more are written after `position`, or `finish` is called.
        """
        while self.total is None:
            self._wakeup.clear()
            # Set before `_written` is read: a writer in between either is seen here or sees `_wake_at`.
            self._wake_at = position + self._step + 1
            ready = min(self._written - 1 - position, max_size)
            if ready >= self._step:
                return position + ready - ready % CHUNK_MULTIPLE
            if self.total is None:
                await self._wakeup.wait()
        return await super().chunk_end(position, max_size)

    def read(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes of `source` at `position`, and hash those not hashed yet. Raises `OSError`."""
        if self.total is None:
            with self._lock:
                self.read_until = max(self.read_until, position + size)
        data = super().read(position, size)
        with self._hash_lock:
            if self._hasher is not None and position <= self._hashed < position + len(data):
                self._hasher.update(memoryview(data)[self._hashed - position :])
                self._hashed = position + len(data)
        return data

    async def _run(self, api: DriveApi, get_file_id: Callable[[], Awaitable[str]]) -> File:
        """Upload the file; delete the session if the upload ends before `finish`."""
        try:
            self.file_id = await get_file_id()
            return await api.upload(self)
        except HaversackError as error:
            _log.debug("The streaming upload of %s failed: %s", self.name, error)
            raise
        finally:
            if self.total is None:
                await self._delete_session(api)

    async def _delete_session(self, api: DriveApi) -> None:
        """Ask the drive to discard the upload session; if that fails, it expires by itself."""
        if self.session is None:
            return
        try:
            await api.http.request("DELETE", self.session, accept=(404, 405, 410, 499), repeatable=False)
        except HaversackError as error:
            _log.debug("Cannot delete the upload session of %s, which will expire: %s", self.name, error)
