"""Upload one version of a file: in a single multipart request if it is small, otherwise by a resumable upload.

Protocol: https://developers.google.com/workspace/drive/api/guides/manage-uploads. A resumable upload has an upload
session with a URI. After an interruption the drive is asked how many bytes it has (308 with `Range`), and only the rest
is sent. Each chunk is twice as long as the one before, up to 256 MiB, so that round trips do not add up. The journal
stores the session URI and the file's MD5 on disk, so that another process can resume. A session that the drive no
longer knows (404, 410) is replaced by a new one.

An upload may start before the file is complete (`writeback.streaming`). Its chunks are then multiples of 256 KiB and
say `bytes a-b/*`; the chunk that names the total size completes the file.
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
from haversack.drive.remote.calls import FILE_AND_PARENT, fields_params, rfc3339
from haversack.errors import AlreadyExists, ConnectionFailed, RemoteError
from haversack.http import Http

MULTIPART_LIMIT = 5 << 20
"""Files of up to this many bytes are uploaded in one request, as Google recommends; larger ones in chunks."""
CHUNK_MULTIPLE = 256 << 10
"""The length of every chunk but the last must be a multiple of this many bytes, by the protocol."""
CHUNK = 8 << 20
"""Bytes in the first chunk of a resumable upload, and in the first one after a failure."""
_MAX_CHUNK = 256 << 20
_READ_SIZE = 2 << 20
_UPLOAD_PATH = "/upload/drive/v3/files"


@dataclass
class ResumableUpload:
    """One upload of one version of a file, which `send` carries out; not to be reused for another.

    Args:
        source: The local file with the content; it must not change while `is_wanted` returns True.
        size: The file's size in bytes.
        md5: The MD5 of the content in hex, or a future of it, which is awaited once all bytes are sent.
        file_id: The id of the file to create or, with `exists`, to replace the content of.
        exists: Whether the file exists on the drive.
        parent: The id of the folder to create the file in; not sent with `exists`.
        name: The name to create the file with; not sent with `exists`.
        modified: The file's modification time, in seconds since 1970.
        marks: The `appProperties` to create the file with; not sent with `exists`.
        exclusive: Whether an existing file with this id but another MD5 is an error rather than to be replaced.
        session: The URI of the upload session to resume, which is a secret; None opens a new one.
        on_session: Called with the URI of each new session, and with None when the drive has dropped the session.
        moved: Called with the number of bytes that the drive has stored, whenever it reports that.
        is_wanted: Called before every request; the upload raises `UploadSuperseded` once this returns False, so that an
            outdated version of a file is never completed on the drive.
        first_chunk: The length of the first chunk in bytes, if it is more than `CHUNK`.
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
    first_chunk: int = 0

    @property
    def total(self) -> int | None:
        """The final size in bytes; None while it is unknown."""
        return self.size

    @property
    def max_stored(self) -> int:
        """How many bytes the drive can have at most; if it reports more, this number is used instead."""
        return self.size

    async def chunk_end(self, position: int, max_size: int) -> int:
        """Return the offset at which the chunk ends that starts at `position` and has at most `max_size` bytes."""
        return min(position + max_size, self.size)

    def read(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes of the source at `position`, fewer only at its end. Raises `OSError`."""
        with open(self.source, "rb", buffering=0) as file:
            return os.pread(file.fileno(), size, position)

    async def hash(self) -> str:
        """Return the MD5 in hex; wait for it if it is still being computed."""
        return self.md5 if isinstance(self.md5, str) else await asyncio.wrap_future(self.md5)

    def metadata(self) -> dict[str, Any]:
        """Return the `files` resource to send as JSON: the time only, for a file that exists."""
        resource: dict[str, Any] = {"modifiedTime": rfc3339(self.modified)}
        if not self.exists:
            resource |= {"id": self.file_id, "name": self.name, "parents": [self.parent]}
            if self.marks:
                resource["appProperties"] = self.marks
        return resource

    def start_request(self) -> tuple[str, str]:
        """Return the HTTP method and path of the first request: for a new file, or to replace one that exists."""
        return ("PATCH", f"{_UPLOAD_PATH}/{self.file_id}") if self.exists else ("POST", _UPLOAD_PATH)

    def check_wanted(self) -> None:
        """Raise `UploadSuperseded` if `is_wanted` returns False."""
        if not self.is_wanted():
            raise UploadSuperseded

    def id_in_use(self) -> AlreadyExists:
        """Return, not raise, the error for an upload whose `file_id` another file on the drive has."""
        return AlreadyExists(
            f"The id that was reserved for {self.name} is in use by another file on the drive.",
            "Compare the two files before you upload it again.",
        )


class UploadSuperseded(Exception):
    """An upload stopped because its content is outdated. Only the code that set `is_wanted` sees this, never a user."""


async def send(http: Http, upload: ResumableUpload) -> Answer:
    """Send the whole file, or what the drive does not have yet of `upload.session`; return the last response.

    It holds the file's metadata as JSON, or has the status 409 if the file's id is in use. The MD5 is not compared
    here. Raises `UploadSuperseded` if `upload.is_wanted` returned False, `OSError` if the source cannot be read,
    `ConnectionFailed`, `SignInError`, or `RemoteError` (such as `QuotaExceeded`).
    """
    if upload.total is not None and upload.total <= MULTIPART_LIMIT and upload.session is None:
        return await _multipart(http, upload)
    return await _resumable(http, upload)


async def _multipart(http: Http, upload: ResumableUpload) -> Answer:
    """Send metadata and content in one request (`uploadType=multipart`)."""
    content = await asyncio.to_thread(upload.source.read_bytes)
    upload.check_wanted()
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(upload.metadata())}\r\n"
    head += f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
    method, path = upload.start_request()
    return await http.request(
        method,
        path,
        params=fields_params(FILE_AND_PARENT) | {"uploadType": "multipart"},
        data=head.encode() + content + f"\r\n--{boundary}--\r\n".encode(),
        headers={"Content-Type": f"multipart/related; boundary={boundary}"},
        accept=(409,),
        repeatable=True,
    )


async def _resumable(http: Http, upload: ResumableUpload) -> Answer:
    """Send the file in chunks, and resume after failures until `http.attempts` in a row brought no progress."""
    failures = 0
    position: int | None = None  # None: unknown, so the next request asks the drive
    max_size = max(upload.first_chunk, CHUNK)
    while True:
        upload.check_wanted()
        if failures:
            await asyncio.sleep(http.delay(failures))
        if upload.session is None:
            if (refusal := await _open_session(http, upload)) is not None:
                return refusal
            position = 0
        stop = await upload.chunk_end(position, max_size) if position is not None else None
        try:
            answer = await _send_chunk(http, upload, position, stop)
        except (ConnectionFailed, RemoteError) as error:
            failures += 1
            max_size = CHUNK
            if failures >= http.attempts or (isinstance(error, RemoteError) and not is_retryable(error)):
                raise
            position = None
            continue
        if answer.status in (404, 410):
            upload.session = None
            upload.on_session(None)
            failures += 1
            if failures >= http.attempts:
                raise RemoteError(
                    f"The drive dropped the upload session of {upload.name} on every attempt.", "Try again later."
                )
        elif answer.status != 308:
            return answer
        else:
            stored = min(_stored_bytes(answer), upload.max_stored)
            if position is not None:
                failures = 0 if stored > position else failures + 1
                max_size = min(max_size * 2, _MAX_CHUNK)
            if failures >= http.attempts:
                raise RemoteError(
                    f"The drive stopped accepting bytes of {upload.name}.", "Try again later.", status=308
                )
            position = stored
            upload.moved(position)


async def _open_session(http: Http, upload: ResumableUpload) -> Answer | None:
    """Open an upload session, set `upload.session` and return None; if the id is in use, return the 409 instead.

    Raises `RemoteError` if the response has no session URI.
    """
    method, path = upload.start_request()
    headers = {"X-Upload-Content-Type": "application/octet-stream"}
    if upload.total is not None:
        headers["X-Upload-Content-Length"] = str(upload.total)
    answer = await http.request(
        method,
        path,
        params=fields_params(FILE_AND_PARENT) | {"uploadType": "resumable"},
        json=upload.metadata(),
        headers=headers,
        accept=(409,),
        repeatable=True,
    )
    if answer.status == 409:
        return answer
    upload.session = answer.headers.get("Location")
    if upload.session is None:
        raise RemoteError(
            f"The drive returned no session URI for the upload of {upload.name}.",
            "Try again later.",
            status=answer.status,
        )
    upload.on_session(upload.session)
    return None


async def _send_chunk(http: Http, upload: ResumableUpload, start: int | None, stop: int | None) -> Answer:
    """Send the bytes [start, stop); if either is None, or there are none, ask how many bytes the drive has stored."""

    async def pieces(start: int, stop: int) -> AsyncIterator[bytes]:
        for at in range(start, stop, _READ_SIZE):
            piece = await asyncio.to_thread(upload.read, at, min(_READ_SIZE, stop - at))
            upload.check_wanted()
            yield piece

    if start is None or stop is None or start == stop:
        return await _put(http, upload, "*", 0, b"")
    return await _put(http, upload, f"{start}-{stop - 1}", stop - start, lambda: pieces(start, stop))


async def _put(
    http: Http, upload: ResumableUpload, span: str, size: int, data: bytes | Callable[[], AsyncIterator[bytes]]
) -> Answer:
    """Send a PUT of the session with `Content-Range: bytes span/total` and `size` bytes of `data`, without retries."""
    assert upload.session is not None
    total = "*" if upload.total is None else upload.total
    headers = {"Content-Range": f"bytes {span}/{total}", "Content-Length": str(size)}
    return await http.request(
        "PUT", upload.session, data=data, headers=headers, accept=(404, 409, 410), repeatable=False
    )


def _stored_bytes(answer: Answer) -> int:
    """Return how many bytes the drive has, from a 308's `Range: bytes=0-N`; 0 if the header is missing."""
    last = answer.headers.get("Range", "").rpartition("-")[2]
    return int(last) + 1 if last.isascii() and last.isdigit() else 0
