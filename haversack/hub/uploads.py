"""Resumable uploads: Drive's upload sessions and Kaggle's blobs use one protocol.

    PUT …  Content-Range: bytes */N              status query           308 with Range: bytes=0-K, or without Range
    PUT …  Content-Range: bytes A-B/N (or B/*)   a chunk                308 with Range, or 200 when complete
    PUT …  without Content-Range                 the complete content

See https://developers.google.com/workspace/drive/api/guides/manage-uploads#resumable. Each upload is a file whose size
is the number of bytes received, so it can be resumed after the hub is killed. An upload is deleted a week after it was
opened.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import secrets
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from haversack.hub import content, wire
from haversack.hub.content import Staged
from haversack.hub.records import Records
from haversack.hub.refusal import Refusal, invalid

CHUNK_UNIT = 256 * 1024
_MAX_SIZE = 5 * 2**40  # Drive's own limit of a file, in bytes
_LIFETIME_NS = 7 * 24 * 3600 * 10**9
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)")


@dataclass(frozen=True)
class ReceivedUpload:
    """An upload as recorded in the database.

    Attributes:
        id: its secret id, part of its URI.
        purpose: "drive" for a Drive upload session, "blob" for a file of a Kaggle data set.
        details: what the code that opened the upload stored with it, such as the new file's metadata.
        total: the size in bytes; None if it is not known yet.
        result: the JSON of the response once the upload is complete; None before.
    """

    id: str
    purpose: str
    details: dict[str, Any]
    total: int | None
    result: dict[str, Any] | None


class Uploads:
    """The uploads that were opened and not cancelled; the received bytes of each are a file in `folder`.

    The requests of one upload are serialized by the lock that `lock` returns; `_locks` belongs to the event loop.
    `_hashes` is modified by the request that holds the upload's lock. The constructor deletes expired uploads, and
    files without one.
    """

    def __init__(self, folder: Path, records: Records) -> None:
        self.folder = folder
        self.records = records
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        # By upload id: how many bytes were received in order, and the MD5 of these.
        self._hashes: dict[str, tuple[int, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._delete_leftovers()

    def open(self, purpose: str, details: dict[str, Any], total: int | None) -> str:
        """Open an upload and return its secret id. Uploads that were opened more than a week ago are deleted.

        Args:
            purpose: "drive" or "blob"; only `find` with the same purpose returns the upload.
            details: JSON to store with the upload.
            total: the size in bytes; None if it is not known.
        """
        self._delete_expired()
        upload_id = secrets.token_urlsafe(32)
        self.records.write(
            "INSERT INTO uploads (id, purpose, details, total, started) VALUES (?, ?, ?, ?, ?)",
            upload_id, purpose, json.dumps(details), total, time.time_ns(),
        )  # fmt: skip
        return upload_id

    def find(self, upload_id: str, purpose: str) -> ReceivedUpload:
        """Return the upload with this id and purpose ("drive" or "blob"). Raises `Refusal` (404) if there is none."""
        row = self.records.row("SELECT * FROM uploads WHERE id = ? AND purpose = ?", upload_id, purpose)
        if row is None:
            raise Refusal(404, "notFound", "There is no such upload; start a new one.", where="upload_id")
        result = json.loads(row["result"]) if row["result"] is not None else None
        return ReceivedUpload(row["id"], row["purpose"], json.loads(row["details"]), row["total"], result)

    def path(self, upload: ReceivedUpload) -> Path:
        """Return the path of the file with the received bytes; before the first bytes it does not exist."""
        return self._path(upload.id)

    def received(self, upload: ReceivedUpload) -> int:
        """Return how many bytes of the upload have been received, counted from its start without gaps."""
        try:
            return self.path(upload).stat().st_size
        except FileNotFoundError:
            return 0

    def save_result(self, upload: ReceivedUpload, result: Any) -> None:
        """Store the JSON of the response that completes an upload.

        It is sent again to a client that repeats its last request because the response was lost.
        """
        self.records.write("UPDATE uploads SET result = ? WHERE id = ?", json.dumps(result), upload.id)

    def cancel(self, upload_id: str) -> None:
        """Delete an upload and its received bytes, if it exists."""
        self.records.write("DELETE FROM uploads WHERE id = ?", upload_id)
        self._path(upload_id).unlink(missing_ok=True)
        self._hashes.pop(upload_id, None)

    def lock(self, upload: ReceivedUpload) -> asyncio.Lock:
        """Return the lock of an upload; the caller holds it during `receive` and `save_result`."""
        lock = self._locks.get(upload.id)
        if lock is None:
            lock = self._locks[upload.id] = asyncio.Lock()
        return lock

    async def receive(self, request: web.Request, upload: ReceivedUpload) -> Staged | None:
        """Store the bytes of a request (a status query has none); return the content, or None until it is complete.

        A request without Content-Range replaces what was received. After a broken connection (`ConnectionError` or
        aiohttp's `RequestPayloadError`) the bytes that arrived are kept. Raises `Refusal` (400) if Content-Range is
        malformed, or the bytes leave a gap, are not aligned to 256 KiB, or do not match the announced length or total.
        The caller holds the upload's lock.
        """
        byte_range, total = _parse_content_range(request)
        total = upload.total if total is None else total
        if upload.total is not None and total != upload.total:
            raise invalid(f"The upload was opened for {upload.total} bytes, not {total}.", "Content-Range")
        received = await asyncio.to_thread(self.received, upload)
        if byte_range is None and "Content-Range" not in request.headers:
            await asyncio.to_thread(self.path(upload).unlink, missing_ok=True)
            self._hashes.pop(upload.id, None)
            received, byte_range = 0, (0, None)
        if byte_range is not None:
            received = await self._append(request, upload, received, byte_range, total)
            total = received if byte_range[1] is None else total
        if total is None or received < total:
            return None
        if received > total:
            raise invalid(f"The upload has {received} bytes, more than the {total} announced.", "Content-Range")
        return await asyncio.to_thread(self._stage, upload, total)

    async def _append(
        self,
        request: web.Request,
        upload: ReceivedUpload,
        received: int,
        byte_range: tuple[int, int | None],
        total: int | None,
    ) -> int:
        """Write a request's body at the start of `byte_range`; return how many bytes there are then."""
        start, stop = byte_range
        if start > received:
            raise invalid(f"The next byte must be {received}, not {start}.", "Content-Range")
        if stop is not None and stop != total and (stop - start) % CHUNK_UNIT:
            raise invalid(
                f"The size of a chunk, except the last, must be a multiple of {CHUNK_UNIT} bytes.", "Content-Range"
            )
        if stop is not None and request.content_length not in (None, stop - start):
            raise invalid("The length of the body differs from Content-Range.", "Content-Length")
        position, limit = start, min(size for size in (stop, total, _MAX_SIZE) if size is not None)
        descriptor = await asyncio.to_thread(os.open, self.path(upload), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            async for block in content.rechunked(wire.read_body(request)):
                if position + len(block) > limit:
                    raise invalid("The body is longer than announced.", "Content-Length")
                await asyncio.to_thread(self._write_block, upload.id, descriptor, block, position)
                position += len(block)
        finally:
            # Also after a broken connection: complete blocks are kept, so the client need not send them again.
            await asyncio.to_thread(os.ftruncate, descriptor, max(received, position))
            os.close(descriptor)
        if stop is not None and position != stop:
            raise invalid("The body is shorter than Content-Range.", "Content-Range")
        if stop is None and total is not None and position != total:
            raise invalid(f"Received {position} of the {total} bytes announced.", "Content-Length")
        return max(received, position)

    def _write_block(self, upload_id: str, descriptor: int, block: bytes, position: int) -> None:
        """Write a block at `position`, and hash it if it follows what is hashed; overwriting drops the hash."""
        content.write_all(descriptor, block, position)
        hashed, hasher = self._hashes.get(upload_id) or (0, hashlib.md5(usedforsecurity=False))
        if hashed == position:
            hasher.update(block)
            self._hashes[upload_id] = (position + len(block), hasher)
        elif position < hashed:
            del self._hashes[upload_id]  # hashed bytes were overwritten

    def _stage(self, upload: ReceivedUpload, total: int) -> Staged:
        """Fsync and return the complete content.

        It is read again for its hash if it was not received in order by this process.
        """
        path = self.path(upload)
        hashed, hasher = self._hashes.pop(upload.id, (0, None))
        if hasher is None or hashed != total:
            path.touch()
            return content.stage_file(path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        return Staged(path, total, hasher.hexdigest())

    def _delete_leftovers(self) -> None:
        """Delete expired uploads, and files that no upload in the database owns."""
        self._delete_expired()
        known = {f"upload-{row['id']}" for row in self.records.rows("SELECT id FROM uploads")}
        for entry in self.folder.iterdir():
            if entry.is_file() and entry.name not in known:
                entry.unlink()

    def _path(self, upload_id: str) -> Path:
        return self.folder / f"upload-{upload_id}"

    def _delete_expired(self) -> None:
        """Delete the uploads that were opened more than a week ago."""
        for row in self.records.rows("SELECT id FROM uploads WHERE started < ?", time.time_ns() - _LIFETIME_NS):
            self.cancel(row["id"])


def incomplete_response(received: int) -> web.Response:
    """Return the response 308 with the range of the `received` bytes; without a Range header if there are none."""
    headers = {"Range": f"bytes=0-{received - 1}"} if received else {}
    return web.Response(status=308, headers=headers)


def _parse_content_range(request: web.Request) -> tuple[tuple[int, int | None] | None, int | None]:
    """Parse Content-Range: ((first byte, byte after the last), total), each None if it is not given.

    Raises `Refusal` (400) if the header is malformed or inconsistent.
    """
    text = request.headers.get("Content-Range")
    if text is None:
        return None, None
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is None:
        raise invalid(f"{text[:100]!r} is not a Content-Range like bytes 0-524287/2000000.", "Content-Range")
    first, last, total = found.groups()
    size = None if total == "*" else int(total)
    if first is None:
        return None, size
    start, stop = int(first), int(last) + 1
    # An empty file is announced as `*/0`, never as an empty range.
    if stop <= start or (size is not None and stop > size):
        raise invalid(f"The range {text} is inconsistent.", "Content-Range")
    return (start, stop), size
