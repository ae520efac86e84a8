"""Drive v3, the part of it that haversack speaks: thin, typed, asynchronous.

`calls` describes each call, `batch` puts many into one, `upload` brings bytes up; this is what carries them out.
Creating is repeatable, because the id is generated beforehand: a second attempt meets its own file and compares the
hash. Every upload's MD5 is compared with what the drive says it stored.

This module keeps no state between calls but a stock of generated ids; what is known of the drive stands in `index`.
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
from haversack.drive.remote.upload import Overtaken, ResumableUpload, carry_out
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
    "Overtaken",
    "Page",
    "Quota",
    "ResumableUpload",
]

T = TypeVar("T")
_IDS_AT_ONCE = 1000
_STOCK = 50


class DriveApi:
    """Calls of Drive v3 on one server. Every method raises what `http.error_of` and `Http.request` say."""

    def __init__(self, server: Server, http: Http | None = None) -> None:
        self.server = server
        self.http = http or Http(server)
        self._ids: list[str] = []
        self._shared_drive: str | None = None if server.root != "root" else ""

    async def do(self, call: Call[T]) -> T:
        """Carry out one call."""
        return await self._do(await self._placed(call))

    async def _do(self, call: Call[T]) -> T:
        answer = await self.http.request(
            call.method, call.path, params=call.params, json=call.json, accept=call.accept, again=True
        )
        return call.read(answer)

    async def batch(self, wanted: Sequence[Call[T]]) -> list[T | HaversackError]:
        """Carry out many calls, a hundred at a time: what each gives or its own error, in their order.

        Parts that fail for a reason that passes are tried again, without the others. Raises only when the drive does
        not answer a batch as a whole.
        """
        found: dict[int, T | HaversackError] = {}
        waiting, attempt = list(range(len(wanted))), 0
        while waiting:
            attempt += 1
            size = int(max(1, min(batch.LIMIT, self.http.tempo.rate)))
            pieces = [waiting[start : start + size] for start in range(0, len(waiting), size)]
            answers = await asyncio.gather(*(self._batch([wanted[number] for number in piece]) for piece in pieces))
            again: dict[int, float] = {}
            for number, answer in zip(waiting, (one for piece in answers for one in piece), strict=True):
                if answer.status < 400 or answer.status in wanted[number].accept:
                    found[number] = wanted[number].read(answer)
                elif (pause := self.http.pause_after(answer, attempt)) is not None:
                    again[number] = pause
                else:
                    found[number] = error_of(answer, self.server.name)
            waiting = list(again)
            await asyncio.sleep(max(again.values(), default=0.0))
        return [found[number] for number in range(len(wanted))]

    async def _placed(self, call: Call[T]) -> Call[T]:
        """A call for the drive that is meant: where a folder stands for My Drive, it may lie in a shared drive."""
        if self._shared_drive is None:
            self._shared_drive = await self._do(calls.shared_drive(self.server.root))
        return calls.within(call, self._shared_drive) if self._shared_drive else call

    async def _batch(self, wanted: Sequence[Call[Any]]) -> list[Answer]:
        kind, body = batch.encoded([await self._placed(call) for call in wanted])
        answer = await self.http.request(
            "POST", batch.PATH, data=body, headers={"Content-Type": kind}, again=True, calls=len(wanted)
        )
        # A part without an answer is tried again like one that the server lost.
        parts = [part or Answer(503) for part in batch.decoded(answer, len(wanted))]
        limited = [part for part in parts if isinstance(error_of(part, self.server.name), RateLimited)]
        if limited:
            self.http.tempo.refused(max(part.retry_after for part in limited), len(limited))
        self.http.tempo.accepted(len(parts) - len(limited))
        return parts

    async def get(self, file_id: str) -> File:
        """The file of that id; `root` is My Drive."""
        return await self.do(calls.get(file_id))

    async def lookup(self, parent: str, name: str) -> list[File]:
        """The files called exactly `name` in the folder `parent`, newest first: one call, whatever the folder's size.

        Drive compares names without case, so they are compared again here.
        """
        return (await self.lookups([(parent, name)]))[0]

    async def lookups(self, wanted: Sequence[tuple[str, str]]) -> list[list[File]]:
        """Many lookups of (parent, name) at once, a hundred to a call; each as `lookup` gives it."""
        asked: Sequence[Call[Page]] = [calls.named(parent, name) for parent, name in wanted]
        pages: Sequence[Page | HaversackError] = (
            [await self.do(asked[0])] if len(asked) == 1 else await self.batch(asked)
        )
        found = []
        for (parent, name), page in zip(wanted, pages, strict=True):
            if isinstance(page, HaversackError):
                raise page
            files = list(page.files)
            while page.token is not None:  # Drive may cut a page anywhere, also before the first file
                page = await self.do(calls.named(parent, name, page.token))
                files += page.files
            same = [file for file in files if file.name == name]
            found.append(sorted(same, key=lambda file: (-file.modified, file.id)))
        return found

    async def list(self, parent: str) -> AsyncIterator[File]:
        """The files and folders in the folder `parent`, in the server's own order."""
        async for page in self.list_of([parent]):
            for file in page.files:
                yield file

    async def list_of(
        self, parents: Sequence[str], token: str | None = None, *, sharing: bool = False
    ) -> AsyncIterator[Page]:
        """What lies in up to `PARENTS_PER_QUERY` folders, page by page; `token` goes on behind an earlier page.

        Drive has been seen to answer such a query with nothing where there is something: ask for each folder alone
        when none of them gave a file. With `sharing`, `File.owned` and `File.shared` are filled in.
        """
        async for page in self.pages(lambda token: calls.listing(parents, token, sharing=sharing), token):
            yield page

    async def search(self, query: str, *, sharing: bool = False) -> AsyncIterator[Page]:
        """The files anywhere on the drive that `query` describes, page by page."""
        async for page in self.pages(lambda token: calls.search(query, None, token, sharing=sharing)):
            yield page

    async def pages(self, call: Callable[[str | None], Call[Page]], token: str | None = None) -> AsyncIterator[Page]:
        while True:
            page = await self.do(call(token))
            yield page
            if page.token is None:
                return
            token = page.token

    async def changes_token(self) -> str:
        """Where the list of changes ends now. Take it before anything is looked at that changes are to keep true."""
        return await self.do(calls.changes_token())

    async def changes(self, token: str) -> AsyncIterator[Changes]:
        """What changed since `token`, page by page; the last page's token is where to go on later."""
        while True:
            page = await self.do(calls.changes(token))
            yield page
            if page.last:
                return
            token = page.token

    async def new_id(self) -> str:
        """An id that no file has yet."""
        return (await self.new_ids(1))[0]

    async def new_ids(self, count: int) -> builtins.list[str]:
        """Ids that no file has yet: a call for each thousand, none while the stock lasts."""
        while len(self._ids) < count:
            missing = max(count - len(self._ids), _STOCK)
            made = await self.do(calls.new_ids(min(missing, _IDS_AT_ONCE)))
            self._ids += made
        taken, self._ids = self._ids[:count], self._ids[count:]
        return taken

    async def create_folder(self, parent: str, name: str) -> File:
        file_id = await self.new_id()
        try:
            return await self.do(calls.create_folder(file_id, parent, name))
        except AlreadyExists:
            return await self.get(file_id)

    async def update(
        self, file: File, *, name: str | None = None, parent: str | None = None, modified: float | None = None
    ) -> File:
        """Rename a file, move it, or set its time; only what is given changes."""
        return await self.do(calls.update(file, name=name, parent=parent, modified=modified))

    async def copy(self, file: File, parent: str, name: str) -> File:
        """A copy of a file made by the drive itself."""
        file_id = await self.new_id()
        try:
            return await self.do(calls.copy(file, file_id, parent, name))
        except AlreadyExists:
            return await self.get(file_id)

    async def trash(self, file_id: str) -> None:
        """Put a file, or a folder with all it holds, into the trash; nothing to do when it is gone."""
        await self.do(calls.trash(file_id))

    async def restore(self, file_id: str) -> File:
        """Take a file out of the trash."""
        return await self.do(calls.restore(file_id))

    async def delete(self, file_id: str) -> None:
        """Delete for good, past the trash."""
        await self.do(calls.delete(file_id))

    async def empty_trash(self) -> None:
        """Delete for good what the trash holds."""
        await self.do(calls.empty_trash())

    async def marks(self, file_id: str) -> dict[str, str]:
        """The `appProperties` of a file: what this application noted on it, which no other can see or set."""
        return await self.do(calls.marks(file_id))

    async def about(self) -> Quota:
        return await self.do(calls.quota())

    def download(self, file_id: str, start: int, stop: int) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """The bytes from `start` to before `stop` as a stream; the answer's status is 206, or 200 with the whole."""
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        return self.http.stream("GET", f"{FILES}/{file_id}", params={"alt": "media"}, headers=headers)

    async def upload(self, upload: ResumableUpload) -> File:
        """Carry out an upload, going on with its session where there is one, and return the file as it then is.

        Raises `IntegrityError` when the drive stored other bytes, `Overtaken` when it is no longer wanted, and
        `AlreadyExists` when it is exclusive and the id is another's.
        """
        answer = await carry_out(self.http, upload)
        if answer.status == 409:
            try:
                made = await self.get(upload.file_id)
            except NotFound as error:
                raise upload.in_use() from error
            if made.md5 != await upload.hash():
                if upload.exclusive:
                    raise upload.in_use()
                # Ours, from an attempt with older bytes: give it the new ones.
                upload.exists = True
                return await self.upload(upload)
            return made
        file = calls.as_file(answer)
        if file.md5 != await upload.hash():
            raise IntegrityError(
                f"The drive stored other bytes of {upload.name} than were sent.", "The upload is tried again."
            )
        return file
