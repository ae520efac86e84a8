"""Resumable uploads: Drive's sessions and Kaggle's blobs are one protocol.

    PUT …  Content-Range: bytes */N              how much is there?    308 with Range: bytes=0-K, or without Range
    PUT …  Content-Range: bytes A-B/N (or B/*)   store these bytes     308 with Range, or 200 at the end
    PUT …  without Content-Range                 the whole at once

as in https://developers.google.com/workspace/drive/api/guides/manage-uploads#resumable. What was received lies in a
file of its own whose size is the offset, so an upload goes on after the hub was killed. An upload nobody went on with
for a week is removed.
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

UNIT = 256 * 1024
_LARGEST = 5 * 2**40  # Drive's own limit of a file, in bytes
_LIFETIME_NS = 7 * 24 * 3600 * 10**9
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)")


@dataclass(frozen=True)
class ReceivedUpload:
    """`purpose` is "drive" or "blob", `details` what the one who opened it wants back, `total` bytes if it is known."""

    id: str
    purpose: str
    details: dict[str, Any]
    total: int | None
    result: Any


class Uploads:
    """The uploads under way; their bytes lie in `folder`."""

    def __init__(self, folder: Path, records: Records) -> None:
        self.folder = folder
        self.records = records
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        # Of what has been received in order: how many bytes, and their hash as far as that.
        self._hashes: dict[str, tuple[int, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._clear()

    def open(self, purpose: str, details: dict[str, Any], total: int | None) -> str:
        """Begin an upload; returns its id, which is a secret of its owner."""
        self._forget_old()
        upload_id = secrets.token_urlsafe(32)
        self.records.write(
            "INSERT INTO uploads (id, purpose, details, total, started) VALUES (?, ?, ?, ?, ?)",
            upload_id, purpose, json.dumps(details), total, time.time_ns(),
        )  # fmt: skip
        return upload_id

    def find(self, upload_id: str, purpose: str) -> ReceivedUpload:
        """Raises `Refusal` (404) for one that is not there."""
        row = self.records.row("SELECT * FROM uploads WHERE id = ? AND purpose = ?", upload_id, purpose)
        if row is None:
            raise Refusal(404, "notFound", "There is no such upload; start it again.", where="upload_id")
        result = json.loads(row["result"]) if row["result"] is not None else None
        return ReceivedUpload(row["id"], row["purpose"], json.loads(row["details"]), row["total"], result)

    def path(self, upload: ReceivedUpload) -> Path:
        return self._path(upload.id)

    def received(self, upload: ReceivedUpload) -> int:
        """How many bytes are there."""
        try:
            return self.path(upload).stat().st_size
        except FileNotFoundError:
            return 0

    def finish(self, upload: ReceivedUpload, result: Any) -> None:
        """Keep the answer, for a client that did not hear it."""
        self.records.write("UPDATE uploads SET result = ? WHERE id = ?", json.dumps(result), upload.id)

    def cancel(self, upload_id: str) -> None:
        self.records.write("DELETE FROM uploads WHERE id = ?", upload_id)
        self._path(upload_id).unlink(missing_ok=True)
        self._hashes.pop(upload_id, None)

    def lock(self, upload: ReceivedUpload) -> asyncio.Lock:
        """Held by the one request that adds to an upload."""
        lock = self._locks.get(upload.id)
        if lock is None:
            lock = self._locks[upload.id] = asyncio.Lock()
        return lock

    async def receive(self, request: web.Request, upload: ReceivedUpload) -> Staged | None:
        """Store what a request brings; returns the whole once it is there, None while more must come.

        Raises `Refusal` for bytes that do not follow those received, or that are not what was announced.
        """
        span, total = _announced(request)
        total = upload.total if total is None else total
        if upload.total is not None and total != upload.total:
            raise invalid(f"The upload was begun for {upload.total} bytes, not {total}.", "Content-Range")
        received = await asyncio.to_thread(self.received, upload)
        if span is None and "Content-Range" not in request.headers:
            await asyncio.to_thread(self.path(upload).unlink, missing_ok=True)
            self._hashes.pop(upload.id, None)
            received, span = 0, (0, None)
        if span is not None:
            received = await self._append(request, upload, received, span, total)
            total = received if span[1] is None else total
        if total is None or received < total:
            return None
        if received > total:
            raise invalid(f"The upload has {received} bytes, more than the {total} announced.", "Content-Range")
        return await asyncio.to_thread(self._staged, upload, total)

    async def _append(
        self,
        request: web.Request,
        upload: ReceivedUpload,
        received: int,
        span: tuple[int, int | None],
        total: int | None,
    ) -> int:
        """Add a request's body behind the `received` bytes; returns how many there are then."""
        start, stop = span
        if start > received:
            raise invalid(f"Byte {received} comes next, not byte {start}.", "Content-Range")
        if stop is not None and stop != total and (stop - start) % UNIT:
            raise invalid(f"A chunk that is not the last has a multiple of {UNIT} bytes.", "Content-Range")
        if stop is not None and request.content_length not in (None, stop - start):
            raise invalid("The body is not as long as Content-Range says.", "Content-Length")
        position, limit = start, min(size for size in (stop, total, _LARGEST) if size is not None)
        descriptor = await asyncio.to_thread(os.open, self.path(upload), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            async for block in content.blocks(wire.arriving(request)):
                if position + len(block) > limit:
                    raise invalid("The body is longer than was announced.", "Content-Length")
                await asyncio.to_thread(self._put, upload.id, descriptor, block, position)
                position += len(block)
        finally:
            # Also when the connection broke: what arrived whole need not be sent again.
            await asyncio.to_thread(os.ftruncate, descriptor, max(received, position))
            os.close(descriptor)
        if stop is not None and position != stop:
            raise invalid("The body is shorter than Content-Range says.", "Content-Range")
        if stop is None and total is not None and position != total:
            raise invalid(f"{position} bytes came of the {total} announced.", "Content-Length")
        return max(received, position)

    def _put(self, upload_id: str, descriptor: int, block: bytes, position: int) -> None:
        content.write_all(descriptor, block, position)
        hashed, hasher = self._hashes.get(upload_id) or (0, hashlib.md5(usedforsecurity=False))
        if hashed == position:
            hasher.update(block)
            self._hashes[upload_id] = (position + len(block), hasher)
        elif position < hashed:
            del self._hashes[upload_id]  # what was hashed has been written over

    def _staged(self, upload: ReceivedUpload, total: int) -> Staged:
        """The whole that was received, synced; read again where it came out of order, or in two lives of the hub."""
        path = self.path(upload)
        hashed, hasher = self._hashes.pop(upload.id, (0, None))
        if hasher is None or hashed != total:
            path.touch()
            return content.staged(path)
        with open(path, "rb") as file:
            content.sync(file.fileno())
        return Staged(path, total, hasher.hexdigest())

    def _clear(self) -> None:
        """Remove what was left by requests of an earlier life."""
        self._forget_old()
        known = {f"upload-{row['id']}" for row in self.records.rows("SELECT id FROM uploads")}
        for entry in self.folder.iterdir():
            if entry.is_file() and entry.name not in known:
                entry.unlink()

    def _path(self, upload_id: str) -> Path:
        return self.folder / f"upload-{upload_id}"

    def _forget_old(self) -> None:
        for row in self.records.rows("SELECT id FROM uploads WHERE started < ?", time.time_ns() - _LIFETIME_NS):
            self.cancel(row["id"])


def incomplete(received: int) -> web.Response:
    """308, with the bytes that need not be sent again."""
    headers = {"Range": f"bytes=0-{received - 1}"} if received else {}
    return web.Response(status=308, headers=headers)


def _announced(request: web.Request) -> tuple[tuple[int, int | None] | None, int | None]:
    """The first byte and the one behind the last of this request, and the total; None for what is not said."""
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
    # An empty file is announced as 0--1 by nobody and as */0 by all.
    if stop <= start or (size is not None and stop > size):
        raise invalid(f"The range {text} does not fit together.", "Content-Range")
    return (start, stop), size
