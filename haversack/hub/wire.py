"""How the bytes of a call are transferred: directly, or, under fault injection, slowly, cut off or stalled.

Code that reads a request's body calls `read_body`; code that streams a response asks `transport_of` whether the call
has a faulty transport. `faults` decides what each call's transport does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

BLOCK = 1 << 18
_POLL = 0.25


class SharedBandwidth:
    """A limit of `bandwidth` bytes per second that all calls share in one direction, first come, first served."""

    def __init__(self, bandwidth: float) -> None:
        self.bandwidth = bandwidth
        self._free_at = 0.0

    async def wait_for(self, count: int) -> None:
        """Sleep until `count` more bytes may be regarded as transferred, after those of earlier callers."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + count / self.bandwidth
        await asyncio.sleep(self._free_at - now)


@dataclass(frozen=True)
class EarlyEnd:
    """Where and how one body of a call breaks off.

    Attributes:
        how: "cut" drops the connection at once; "stall" sends nothing more until the client disconnects or the hub
            ends.
        where: whose body it is: the request's or the response's ("answer").
        share: the part of the body (0 to 1) that is transferred before.
    """

    how: Literal["cut", "stall"]
    where: Literal["request", "answer"]
    share: float


@dataclass(frozen=True)
class CallTransport:
    """The faulty transport of one call, made by fault injection.

    Attributes:
        hub_ended: set when the hub shuts down; a stalled body then breaks off.
        upload: the bandwidth limit of requests' bodies; None for no limit.
        download: the bandwidth limit of responses' bodies; None for no limit.
        end: where the body of the request or response breaks off; None if neither does.
    """

    hub_ended: asyncio.Event
    upload: SharedBandwidth | None = None
    download: SharedBandwidth | None = None
    end: EarlyEnd | None = None

    def attach(self, request: web.Request) -> None:
        """Make this the transport of `request` and its response, which `transport_of` and `read_body` then use."""
        request[_TRANSPORT] = self

    async def read_body(self, request: web.Request) -> AsyncIterator[bytes]:
        """Yield the bytes of the request's body as they arrive, at the upload bandwidth.

        Raises `ConnectionResetError` where fault injection breaks the body off on purpose (the attribute `end`).
        """
        limit = self._limit("request", request.content_length or 0)
        done = 0
        async for chunk in request.content.iter_any():
            if limit is not None and done + len(chunk) > limit:
                yield chunk[: limit - done]
                await self._break_off(request)
            if self.upload is not None:
                await self.upload.wait_for(len(chunk))
            done += len(chunk)
            yield chunk

    async def send(
        self, request: web.Request, response: web.StreamResponse, blocks: AsyncIterator[bytes], length: int
    ) -> None:
        """Write the body of a prepared response, `length` bytes in total, at the download bandwidth.

        Raises `ConnectionResetError` if the client disconnects, or where fault injection breaks the body off on purpose
        (the attribute `end`).
        """
        limit = self._limit("answer", length)
        done = 0
        async for block in blocks:
            if limit is not None and done + len(block) > limit:
                await response.write(block[: limit - done])
                await self._break_off(request)
            if self.download is not None:
                await self.download.wait_for(len(block))
            await response.write(block)
            done += len(block)

    async def send_whole(self, request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
        """Apply the download bandwidth and `end` to a response whose body is in memory; return the response to use.

        If `end` breaks off responses, the body is sent here, and the response that streamed it is returned; else
        `answer` is returned for aiohttp to send. A response that is already being sent is returned unchanged. Raises
        `ConnectionResetError` where the body breaks off.
        """
        if answer.prepared or not isinstance(answer, web.Response):
            return answer
        body = answer.body if isinstance(answer.body, bytes) else b""
        if self._limit("answer", len(body)) is None:
            if self.download is not None:
                await self.download.wait_for(len(body))
            return answer
        if not body:
            await self._break_off(request)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_length = len(body)
        await response.prepare(request)
        await self.send(request, response, _in_blocks(body), len(body))
        return response

    def _limit(self, where: str, length: int) -> int | None:
        return None if self.end is None or self.end.where != where else int(self.end.share * length)

    async def _break_off(self, request: web.Request) -> None:
        """Wait until the client disconnects if the body stalls, then raise `ConnectionResetError`."""
        assert self.end is not None
        while self.end.how == "stall" and request.transport is not None and not self.hub_ended.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self.hub_ended.wait(), _POLL)
        raise ConnectionResetError("cut off by fault injection")


_TRANSPORT = web.RequestKey("wire", CallTransport)


def transport_of(request: web.Request) -> CallTransport | None:
    """Return the faulty transport of `request`; None if its bytes are transferred directly."""
    return request.get(_TRANSPORT)


def read_body(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the bytes of a request's body as they arrive, through the call's faulty transport if it has one.

    Raises aiohttp's `RequestPayloadError` or `ConnectionError` if the client disconnects, `ConnectionResetError` where
    fault injection breaks the body off.
    """
    transport = transport_of(request)
    return request.content.iter_any() if transport is None else transport.read_body(request)


async def _in_blocks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), BLOCK):
        yield body[start : start + BLOCK]
