"""Bodies of several parts, read as they arrive (RFC 2046, section 5.1).

Google's Python client ends lines with LF alone, others with CRLF; both are read. aiohttp's own reader takes CRLF only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.message import Message
from email.parser import BytesHeaderParser

from aiohttp import web

from haversack.hub import wire
from haversack.hub.refusal import Refusal, invalid

_LONGEST_HEAD = 1 << 16
_READ = 1 << 18


def boundary(content_type: str) -> bytes:
    """The boundary that a Content-Type header names. Raises `Refusal` when there is none."""
    header = Message()
    header["Content-Type"] = content_type
    found = header.get_boundary()
    if not content_type.lower().startswith("multipart/") or not found:
        raise invalid("The body is not multipart: its Content-Type names no boundary.", "Content-Type")
    return found.encode()


class Parts:
    """One part after the other: `head()`, then everything of `body()`, then the next `head()`."""

    def __init__(self, request: web.Request) -> None:
        self._chunks = wire.arriving(request)
        # With the line break before it, which belongs to the delimiter and not to the body.
        self._delimiter = b"\n--" + boundary(request.headers.get("Content-Type", ""))
        self._buffer = b"\n"
        self._ended = False

    async def head(self) -> Message | None:
        """The next part's headers; None behind the last one."""
        if self._ended:
            return None
        if self._buffer == b"\n":
            async for _ in self.body():
                continue  # the preamble
        while b"\n" not in self._buffer and await self._more():
            self._check_length()
        if self._buffer.startswith(b"--"):
            self._ended = True
            return None
        while not (end := _end_of_head(self._buffer)):
            self._check_length()
            if not await self._more():
                raise _broken()
        head, self._buffer = self._buffer[:end], self._buffer[end:]
        return BytesHeaderParser().parsebytes(head.partition(b"\n")[2])

    async def body(self) -> AsyncIterator[bytes]:
        """The part's bytes."""
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
            if not await self._more():
                raise _broken()

    async def _more(self) -> bool:
        chunk = await anext(self._chunks, b"")
        self._buffer += chunk
        return bool(chunk)

    def _check_length(self) -> None:
        if len(self._buffer) > _LONGEST_HEAD + _READ:
            raise invalid("The headers of a part are too long.")


def _end_of_head(buffer: bytes) -> int:
    """Where the body begins, behind the first empty line; 0 when that has not arrived."""
    ends = [found + len(mark) for mark in (b"\n\r\n", b"\n\n") if (found := buffer.find(mark)) >= 0]
    return min(ends, default=0)


def _broken() -> Refusal:
    return invalid("The multipart body ends before its last boundary.")
