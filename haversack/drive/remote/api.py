"""An asynchronous, typed client for the part of Drive v3 that haversack uses.

`calls` describes each request, `batch` combines many into one HTTP request, and `upload` implements the upload
protocols; `DriveApi` sends them. Creating a file can be retried because its id is generated beforehand: a retry that
finds the id in use compares the MD5. Every upload's MD5 is compared with the one that the drive reports.

The only state here is a stock of generated ids and the id of the shared drive; metadata is cached in `index`.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import aiohttp

from haversack.answer import Answer, error_of
from haversack.credentials import Server
from haversack.drive.remote import batch, calls
from haversack.drive.remote.calls import (
    FILES,
    FOLDER,
    PARENTS_PER_QUERY,
    SHORTCUT,
    Call,
    Change,
    Changes,
    File,
    Page,
    Quota,
)
from haversack.drive.remote.upload import ResumableUpload, UploadSuperseded, send
from haversack.errors import AlreadyExists, HaversackError, IntegrityError, NotFound, RateLimited
from haversack.http import Http

__all__ = [
    "FOLDER",
    "PARENTS_PER_QUERY",
    "SHORTCUT",
    "Call",
    "Change",
    "Changes",
    "DriveApi",
    "File",
    "Page",
    "Quota",
    "ResumableUpload",
    "UploadSuperseded",
]

T = TypeVar("T")
_IDS_PER_CALL = 1000
_MIN_NEW_IDS = 50


class DriveApi:
    """The Drive v3 API of one server. All methods run on the event loop; use `http.wait` from other threads.

    Transient failures are retried with backoff (see `Http`). After that, every method may raise `ConnectionFailed`,
    `SignInError`, `NotFound`, `AlreadyExists`, `Forbidden`, `QuotaExceeded`, `RateLimited`, or `RemoteError` for other
    statuses and invalid responses. A method's docstring names an error only where it adds to this.

    Args:
        server: The server, its sign-in, and the id of its root folder (`root` for My Drive).
        http: The HTTP client to use; by default a new one.
    """

    def __init__(self, server: Server, http: Http | None = None) -> None:
        self.server = server
        self.http = http or Http(server)
        self._ids: list[str] = []
        # The id of the shared drive that the root folder is in; "" for My Drive, None while unknown.
        self._shared_drive: str | None = None if server.root != "root" else ""

    async def send(self, call: Call[T]) -> T:
        """Send one call, with retries, and return its parsed response."""
        return await self._send(await self._in_shared_drive(call))

    async def _send(self, call: Call[T]) -> T:
        answer = await self.http.request(
            call.method, call.path, params=call.params, json=call.json, accept=call.accept, repeatable=True
        )
        return call.read(answer)

    async def batch(self, wanted: Sequence[Call[T]]) -> list[T | HaversackError]:
        """Send many calls in batch requests of up to 100; return for each, in order, its result or its error.

        A call that fails does not raise: its `HaversackError` is in the list. Calls that fail for a transient reason
        are retried without the others. Raises only if a batch request as a whole fails, or if a call's response cannot
        be parsed (`RemoteError`).
        """
        results: dict[int, T | HaversackError] = {}
        waiting, attempt = list(range(len(wanted))), 0
        while waiting:
            attempt += 1
            size = int(max(1, min(batch.LIMIT, self.http.rate_limiter.rate)))
            pieces = [waiting[start : start + size] for start in range(0, len(waiting), size)]
            answers = await asyncio.gather(
                *(self._send_batch([wanted[number] for number in piece]) for piece in pieces)
            )
            pauses: dict[int, float] = {}
            for number, answer in zip(waiting, (part for piece in answers for part in piece), strict=True):
                if answer.status < 400 or answer.status in wanted[number].accept:
                    results[number] = wanted[number].read(answer)
                elif (pause := self.http.pause_after(answer, attempt)) is not None:
                    pauses[number] = pause
                else:
                    results[number] = error_of(answer, self.server.name)
            waiting = list(pauses)
            await asyncio.sleep(max(pauses.values(), default=0.0))
        return [results[number] for number in range(len(wanted))]

    async def _in_shared_drive(self, call: Call[T]) -> Call[T]:
        """Direct `call` to the shared drive that the root folder is in, if any; the first call looks that up."""
        if self._shared_drive is None:
            self._shared_drive = await self._send(calls.shared_drive(self.server.root))
        return calls.in_shared_drive(call, self._shared_drive) if self._shared_drive else call

    async def _send_batch(self, wanted: Sequence[Call[Any]]) -> list[Answer]:
        """Send one batch request, report rate-limited parts to the pacing, and return the response to each part."""
        kind, body = batch.encode([await self._in_shared_drive(call) for call in wanted])
        answer = await self.http.request(
            "POST", batch.PATH, data=body, headers={"Content-Type": kind}, repeatable=True, calls=len(wanted)
        )
        # A part that is missing from the response is retried like one that failed with 503.
        parts = [part or Answer(503) for part in batch.decode(answer, len(wanted))]
        limited = [part for part in parts if isinstance(error_of(part, self.server.name), RateLimited)]
        if limited:
            self.http.rate_limiter.refused(max(part.retry_after for part in limited), len(limited))
        self.http.rate_limiter.accepted(len(parts) - len(limited))
        return parts

    async def get(self, file_id: str) -> File:
        """Return the metadata of a file by id; the id `root` is My Drive. Raises `NotFound` if it does not exist."""
        return await self.send(calls.get(file_id))

    async def lookup(self, parent: str, name: str) -> list[File]:
        """Return the files named exactly `name` in the folder `parent`, trash excluded, last modified first.

        The cost does not depend on the size of the folder. Drive's query ignores case; this method does not.
        """
        return (await self.lookups([(parent, name)]))[0]

    async def lookups(self, wanted: Sequence[tuple[str, str]]) -> list[list[File]]:
        """Look up many (parent, name) pairs in batch requests of 100; return one list for each pair, as `lookup` does.

        Raises the first pair's error if any lookup fails.
        """
        requests: Sequence[Call[Page]] = [calls.named(parent, name) for parent, name in wanted]
        pages: Sequence[Page | HaversackError] = (
            [await self.send(requests[0])] if len(requests) == 1 else await self.batch(requests)
        )
        found = []
        for (parent, name), page in zip(wanted, pages, strict=True):
            if isinstance(page, HaversackError):
                raise page
            files = list(page.files)
            while page.token is not None:  # a page may hold fewer files than exist, even none
                page = await self.send(calls.named(parent, name, page.token))
                files += page.files
            same = [file for file in files if file.name == name]
            found.append(sorted(same, key=lambda file: (-file.modified, file.id)))
        return found

    async def list(self, parent: str) -> AsyncIterator[File]:
        """Yield the files and folders in the folder `parent`, trash excluded, in the server's order."""
        async for page in self.list_folders([parent]):
            for file in page.files:
                yield file

    async def list_folders(
        self, parents: Sequence[str], token: str | None = None, *, sharing: bool = False
    ) -> AsyncIterator[Page]:
        """Yield the pages of a listing of up to `PARENTS_PER_QUERY` folders, trash excluded.

        `token` continues after an earlier page. `sharing` fills in `File.owned` and `File.shared`. Drive has been seen
        to return nothing for several folders that are not empty: if no page holds a file, list each folder alone.
        """
        async for page in self._pages(lambda token: calls.listing(parents, token, sharing=sharing), token):
            yield page

    async def search(self, query: str, *, sharing: bool = False) -> AsyncIterator[Page]:
        """Yield the pages of files anywhere on the drive that match `query` (Drive's `q`; see `calls.search`).

        Those in the trash match too, unless `query` excludes them. `sharing` fills in `File.owned` and `File.shared`.
        """
        async for page in self._pages(lambda token: calls.search(query, None, token, sharing=sharing)):
            yield page

    async def _pages(self, call: Callable[[str | None], Call[Page]], token: str | None = None) -> AsyncIterator[Page]:
        """Yield the page at `token` (None: the first) and all after it; `call` makes the request from a page token."""
        while True:
            page = await self.send(call(token))
            yield page
            if page.token is None:
                return
            token = page.token

    async def changes_token(self) -> str:
        """Return the start page token: the current end of the changes feed.

        Get it before you read metadata that the feed is to keep current; otherwise changes between the two are missed.
        """
        return await self.send(calls.changes_token())

    async def changes(self, token: str) -> AsyncIterator[Changes]:
        """Yield the pages of the changes feed from `token` on; continue later at the last page's `token`."""
        while True:
            page = await self.send(calls.changes(token))
            yield page
            if page.last:
                return
            token = page.token

    async def new_id(self) -> str:
        """Return an unused file id."""
        return (await self.new_ids(1))[0]

    async def new_ids(self, count: int) -> builtins.list[str]:
        """Return `count` unused file ids: from a stock in memory, which is refilled with up to 1,000 ids a request."""
        while len(self._ids) < count:
            missing = max(count - len(self._ids), _MIN_NEW_IDS)
            generated = await self.send(calls.new_ids(min(missing, _IDS_PER_CALL)))
            self._ids += generated
        taken, self._ids = self._ids[:count], self._ids[count:]
        return taken

    async def create_folder(self, parent: str, name: str) -> File:
        """Create a folder in the folder with the id `parent`, even if that holds one of this name, and return it."""
        file_id = await self.new_id()
        try:
            return await self.send(calls.create_folder(file_id, parent, name))
        except AlreadyExists:
            return await self.get(file_id)

    async def update(
        self, file: File, *, name: str | None = None, parent: str | None = None, modified: float | None = None
    ) -> File:
        """Rename a file, move it to the folder with the id `parent`, or set its modification time.

        `modified` is in seconds since 1970. None leaves a value unchanged. Returns the file's new metadata.
        """
        return await self.send(calls.update(file, name=name, parent=parent, modified=modified))

    async def copy(self, file: File, parent: str, name: str) -> File:
        """Copy a file on the server to `name` in the folder with the id `parent`; return the copy's metadata.

        What the folder has under that name stays.
        """
        file_id = await self.new_id()
        try:
            return await self.send(calls.copy(file, file_id, parent, name))
        except AlreadyExists:
            return await self.get(file_id)

    async def trash(self, file_id: str) -> None:
        """Move a file, or a folder with its content, to the trash. Does nothing if it does not exist."""
        await self.send(calls.trash(file_id))

    async def restore(self, file_id: str) -> File:
        """Restore a file from the trash to the folder it was in, and return it."""
        return await self.send(calls.restore(file_id))

    async def delete(self, file_id: str) -> None:
        """Delete a file permanently, bypassing the trash. Does nothing if it does not exist."""
        await self.send(calls.delete(file_id))

    async def empty_trash(self) -> None:
        """Permanently delete everything in the trash."""
        await self.send(calls.empty_trash())

    async def app_properties(self, file_id: str) -> dict[str, str]:
        """Return a file's `appProperties`: private key-value pairs that only this application can see and set."""
        return await self.send(calls.marks(file_id))

    async def quota(self) -> Quota:
        """Return the storage quota and the signed-in user."""
        return await self.send(calls.quota())

    def download(self, file_id: str, start: int, stop: int) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Open a stream of the bytes [start, stop) of a file, to be used as an asynchronous context manager.

        The response's status is 206, or 200 with the whole file if the server does not serve ranges. Retries end once
        the response begins: a body that breaks off raises `aiohttp.ClientError` or `TimeoutError`.
        """
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        return self.http.stream("GET", f"{FILES}/{file_id}", params={"alt": "media"}, headers=headers)

    async def upload(self, upload: ResumableUpload) -> File:
        """Upload a file, resuming `upload.session` if it is set; return the file's metadata afterwards.

        If an earlier attempt has created the file with the same MD5, nothing is sent again. Raises `IntegrityError` if
        the drive reports another MD5 than that of the bytes sent, `UploadSuperseded` if `upload.is_wanted` returned
        False, `AlreadyExists` if the id is in use by a file that cannot be read or, for an `exclusive` upload, that has
        another MD5, and `OSError` if the source cannot be read.
        """
        answer = await send(self.http, upload)
        if answer.status == 409:
            try:
                existing = await self.get(upload.file_id)
            except NotFound as error:
                raise upload.id_in_use() from error
            if existing.md5 != await upload.hash():
                if upload.exclusive:
                    raise upload.id_in_use()
                # An earlier attempt of this process or its predecessor stored older bytes: replace them.
                upload.exists = True
                return await self.upload(upload)
            return existing
        file = calls.parse_file(answer)
        if file.md5 != await upload.hash():
            raise IntegrityError(
                f"The drive stored different bytes of {upload.name} than were sent.",
                "Upload it again; a pending file is retried automatically.",
            )
        return file
