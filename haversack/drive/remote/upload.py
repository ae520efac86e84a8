"""Bringing one state of a file onto the drive: in one call when it is small, else in a resumable upload.

Protocol: https://developers.google.com/workspace/drive/api/guides/manage-uploads. A resumable upload is a session with
a URI; after a break the drive is asked how far it has got (308 with `Range`), and only what it lacks is sent. Each call
that succeeds is followed by one that carries twice as much, so that round trips do not add up. The URI and the file's
hash are the journal's to keep on disk, so an upload goes on in another process too. A session that the drive has
forgotten (404, 410) is begun anew.

An upload may begin before the file has all its bytes (`growing`): its calls then say `bytes a-b/*` and carry multiples
of 256 KiB, and the one that names the total makes it a file.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haversack.answer import Answer, is_retryable
from haversack.drive.remote.calls import FILE_AND_PARENT, asking, rfc3339
from haversack.errors import AlreadyExists, ConnectionFailed, RemoteError
from haversack.http import Http

MULTIPART_LIMIT = 5 << 20
"""Up to this many bytes go up in one call (Google's own recommendation); more in a resumable upload."""
UNIT = 256 << 10
"""What a call that is not the last carries is a multiple of so many bytes, as the protocol asks."""
CHUNK = 8 << 20
"""Bytes in the first call of a resumable upload, and after a break."""
_LONGEST = 256 << 20
_PIECE = 2 << 20
_UPLOAD = "/upload/drive/v3/files"


@dataclass
class ResumableUpload:
    """One upload of one state of a file: the journal's view of it.

    `source` holds `size` bytes with hash `md5`, which may come later than the upload begins. `file_id` is the file to
    be made or, when `exists`, to get new content.
    `marks` become its `appProperties`. `exclusive` says that a file of that id with other bytes is somebody else's.
    `session` is the resumable upload's URI, a secret; its first call carries `first` bytes, where that is more than
    `CHUNK`. `on_session` is called when it is known; `moved` with the bytes that the drive has; `is_wanted` is asked
    before every call, and the upload ends with `Overtaken` when it says no, so that no state that was overtaken is ever
    completed.
    """

    source: Path
    size: int
    md5: str | Future[str]
    file_id: str
    exists: bool
    parent: str
    name: str
    modified: float
    marks: dict[str, str] = field(default_factory=dict)
    exclusive: bool = False
    session: str | None = field(default=None, repr=False)
    on_session: Callable[[str | None], None] = lambda session: None
    moved: Callable[[int], None] = lambda position: None
    is_wanted: Callable[[], bool] = lambda: True
    first: int = 0

    @property
    def total(self) -> int | None:
        """How many bytes it is going to be, where that is known by now."""
        return self.size

    @property
    def sent(self) -> int:
        """The drive can have no more bytes than these."""
        return self.size

    async def reach(self, position: int, most: int) -> int:
        """Where the call ends that begins at `position` and carries at most so many bytes."""
        return min(position + most, self.size)

    def read(self, position: int, size: int) -> bytes:
        with open(self.source, "rb", buffering=0) as file:
            return os.pread(file.fileno(), size, position)

    async def hash(self) -> str:
        return self.md5 if isinstance(self.md5, str) else await asyncio.wrap_future(self.md5)

    def metadata(self) -> dict[str, Any]:
        about: dict[str, Any] = {"modifiedTime": rfc3339(self.modified)}
        if not self.exists:
            about |= {"id": self.file_id, "name": self.name, "parents": [self.parent]}
            if self.marks:
                about["appProperties"] = self.marks
        return about

    def target(self) -> tuple[str, str]:
        """Method and path of the call that begins it."""
        return ("PATCH", f"{_UPLOAD}/{self.file_id}") if self.exists else ("POST", _UPLOAD)

    def check_wanted(self) -> None:
        if not self.is_wanted():
            raise Overtaken

    def in_use(self) -> AlreadyExists:
        return AlreadyExists(f"{self.name} is on the drive already, under the id that it was to get.", "Look at it.")


class Overtaken(Exception):
    """An upload ended early because what it uploads is no longer wanted; the journal's own word, never a user's."""


async def carry_out(http: Http, upload: ResumableUpload) -> Answer:
    """Send all of it; the answer is the file's JSON, or 409 when its id is in use. Raises `Overtaken` and as `Http`."""
    if upload.total is not None and upload.total <= MULTIPART_LIMIT and upload.session is None:
        return await _multipart(http, upload)
    return await _resumable(http, upload)


async def _multipart(http: Http, upload: ResumableUpload) -> Answer:
    content = await asyncio.to_thread(upload.source.read_bytes)
    upload.check_wanted()
    edge = secrets.token_hex(16)
    head = f"--{edge}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(upload.metadata())}\r\n"
    head += f"--{edge}\r\nContent-Type: application/octet-stream\r\n\r\n"
    method, path = upload.target()
    return await http.request(
        method,
        path,
        params=asking(FILE_AND_PARENT) | {"uploadType": "multipart"},
        data=head.encode() + content + f"\r\n--{edge}--\r\n".encode(),
        headers={"Content-Type": f"multipart/related; boundary={edge}"},
        accept=(409,),
        again=True,
    )


async def _resumable(http: Http, upload: ResumableUpload) -> Answer:
    failures = 0
    position: int | None = None  # None: the drive is asked first
    most = max(upload.first, CHUNK)
    while True:
        upload.check_wanted()
        if failures:
            await asyncio.sleep(http.delay(failures))
        if upload.session is None:
            if (refused := await _begin(http, upload)) is not None:
                return refused
            position = 0
        stop = await upload.reach(position, most) if position is not None else None
        try:
            answer = await _send_chunk(http, upload, position, stop)
        except (ConnectionFailed, RemoteError) as error:
            failures += 1
            most = CHUNK
            if failures >= http.attempts or (isinstance(error, RemoteError) and not is_retryable(error)):
                raise
            position = None
            continue
        if answer.status in (404, 410):
            upload.session = None
            upload.on_session(None)
            failures += 1
            if failures >= http.attempts:
                raise RemoteError(f"The drive forgot the upload of {upload.name} again and again.", "Try later.")
        elif answer.status != 308:
            return answer
        else:
            stored = min(_stored(answer), upload.sent)
            if position is not None:
                failures = 0 if stored > position else failures + 1
                most = min(most * 2, _LONGEST)
            if failures >= http.attempts:
                raise RemoteError(f"The drive takes no more of {upload.name}.", "Try later.", status=308)
            position = stored
            upload.moved(position)


async def _begin(http: Http, upload: ResumableUpload) -> Answer | None:
    """Open a session; returns the answer instead when the file is already there."""
    method, path = upload.target()
    about = {"X-Upload-Content-Type": "application/octet-stream"}
    if upload.total is not None:
        about["X-Upload-Content-Length"] = str(upload.total)
    answer = await http.request(
        method,
        path,
        params=asking(FILE_AND_PARENT) | {"uploadType": "resumable"},
        json=upload.metadata(),
        headers=about,
        accept=(409,),
        again=True,
    )
    if answer.status == 409:
        return answer
    upload.session = answer.headers.get("Location")
    if upload.session is None:
        raise RemoteError("The drive opened no session for an upload.", "Try again.", status=answer.status)
    upload.on_session(upload.session)
    return None


async def _send_chunk(http: Http, upload: ResumableUpload, start: int | None, stop: int | None) -> Answer:
    """Send the bytes from `start` to before `stop`; without them only ask how far the drive has got."""

    async def pieces(start: int, stop: int) -> AsyncIterator[bytes]:
        for at in range(start, stop, _PIECE):
            piece = await asyncio.to_thread(upload.read, at, min(_PIECE, stop - at))
            upload.check_wanted()
            yield piece

    if start is None or stop is None or start == stop:
        return await _put(http, upload, "*", 0, b"")
    return await _put(http, upload, f"{start}-{stop - 1}", stop - start, lambda: pieces(start, stop))


async def _put(http: Http, upload: ResumableUpload, sent: str, size: int, data: bytes | Callable[[], Any]) -> Answer:
    assert upload.session is not None
    total = "*" if upload.total is None else upload.total
    headers = {"Content-Range": f"bytes {sent}/{total}", "Content-Length": str(size)}
    return await http.request("PUT", upload.session, data=data, headers=headers, accept=(404, 409, 410), again=False)


def _stored(answer: Answer) -> int:
    """How many bytes the drive has, from a 308's `Range: bytes=0-N`; the header is absent when there are none."""
    last = answer.headers.get("Range", "").rpartition("-")[2]
    return int(last) + 1 if last.isascii() and last.isdigit() else 0
