"""Multipart bodies, parsed as they arrive (RFC 2046, section 5.1).

Google's Python client ends lines with LF, other clients with CRLF; both are accepted. aiohttp's reader accepts CRLF
only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.message import Message
from email.parser import BytesHeaderParser

from aiohttp import web

from haversack.hub import wire
from haversack.hub.refusal import Refusal, invalid

_MAX_HEADERS = 1 << 16
_READ = 1 << 18


def boundary(content_type: str) -> bytes:
    """Return the boundary in a Content-Type header. Raises `Refusal` (400) if there is none."""
    header = Message()
    header["Content-Type"] = content_type
    found = header.get_boundary()
    if not content_type.lower().startswith("multipart/") or not found:
        raise invalid("The body is not multipart: its Content-Type names no boundary.", "Content-Type")
    return found.encode()


class PartReader:
    """Reads a request's parts in order: `next_headers()`, then `body()` to its end, then `next_headers()` again.

    The constructor raises `Refusal` (400) if the request's Content-Type names no boundary.
    """

    def __init__(self, request: web.Request) -> None:
        self._chunks = wire.read_body(request)
        # The line break before the boundary is part of the delimiter, not of the body.
        self._delimiter = b"\n--" + boundary(request.headers.get("Content-Type", ""))
        self._buffer = b"\n"
        self._ended = False

    async def next_headers(self) -> Message | None:
        """Return the headers of the next part; None after the last one.

        Raises `Refusal` (400) if the headers are longer than about 320 KiB or the request's body ends before them.
        """
        if self._ended:
            return None
        if self._buffer == b"\n":
            async for _ in self.body():
                continue  # the preamble
        while b"\n" not in self._buffer and await self._read_more():
            self._check_length()
        if self._buffer.startswith(b"--"):
            self._ended = True
            return None
        while not (end := _end_of_headers(self._buffer)):
            self._check_length()
            if not await self._read_more():
                raise _truncated()
        head, self._buffer = self._buffer[:end], self._buffer[end:]
        return BytesHeaderParser().parsebytes(head.partition(b"\n")[2])

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the part whose headers were read last.

        Raises `Refusal` (400) if the request's body ends before the next boundary.
        """
        while True:
            found = self._buffer.find(self._delimiter)
            if found >= 0:
                yield self._buffer[:found].removesuffix(b"\r")
                self._buffer = self._buffer[found + len(self._delimiter) :]
                return
            keep = len(self._delimiter) + 1
            if len(self._buffer) > keep:
                yield self._buffer[:-keep]
                self._buffer = self._buffer[-keep:]
            if not await self._read_more():
                raise _truncated()

    async def _read_more(self) -> bool:
        chunk = await anext(self._chunks, b"")
        self._buffer += chunk
        return bool(chunk)

    def _check_length(self) -> None:
        if len(self._buffer) > _MAX_HEADERS + _READ:
            raise invalid("The headers of a part are too long.")


def _end_of_headers(buffer: bytes) -> int:
    """Return where the part's body starts, after the first empty line; 0 if that has not arrived."""
    ends = [found + len(mark) for mark in (b"\n\r\n", b"\n\n") if (found := buffer.find(mark)) >= 0]
    return min(ends, default=0)


def _truncated() -> Refusal:
    return invalid("The multipart body ends before its last boundary.")
