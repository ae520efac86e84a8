"""How a call's bytes travel: at once, or, when a bad network is rehearsed, slowly, cut off, or stalled in the middle.

Whoever reads a request's body takes it from `arriving`; whoever sends more than JSON asks `of` whether a `Wire` stands
between. What a call's wire does to it is decided in `faults`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

BLOCK = 1 << 18
_WIRE: web.RequestKey[CallTransport] = web.RequestKey("wire", object)  # type: ignore[arg-type]
_LOOK = 0.25


class SharedBandwidth:
    """What all calls share in one direction: `bandwidth` bytes per second, whoever comes first."""

    def __init__(self, bandwidth: float) -> None:
        self.bandwidth = bandwidth
        self._free_at = 0.0

    async def carry(self, count: int) -> None:
        """Wait as long as `count` bytes take behind those that are on their way."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + count / self.bandwidth
        await asyncio.sleep(self._free_at - now)


@dataclass(frozen=True)
class EarlyEnd:
    """A body comes to its end too early, after `share` of it."""

    how: Literal["cut", "stall"]
    where: Literal["request", "answer"]
    share: float


@dataclass(frozen=True)
class CallTransport:
    """One call's way to the hub and back; `down` is set once the hub ends."""

    down: asyncio.Event
    up: SharedBandwidth | None = None
    back: SharedBandwidth | None = None
    end: EarlyEnd | None = None

    def lay(self, request: web.Request) -> None:
        """The bytes of `request` and of its answer go this way."""
        request[_WIRE] = self

    async def arriving(self, request: web.Request) -> AsyncIterator[bytes]:
        """The body's bytes. Raises `ConnectionResetError` where it ends too early."""
        limit = self._limit("request", request.content_length or 0)
        passed = 0
        async for chunk in request.content.iter_any():
            if limit is not None and passed + len(chunk) > limit:
                yield chunk[: limit - passed]
                await self._fail(request)
            if self.up is not None:
                await self.up.carry(len(chunk))
            passed += len(chunk)
            yield chunk

    async def send(
        self, request: web.Request, response: web.StreamResponse, blocks: AsyncIterator[bytes], length: int
    ) -> None:
        """Write the `length` bytes of an answer's body. Raises `ConnectionResetError` where it ends too early."""
        limit = self._limit("answer", length)
        passed = 0
        async for block in blocks:
            if limit is not None and passed + len(block) > limit:
                await response.write(block[: limit - passed])
                await self._fail(request)
            if self.back is not None:
                await self.back.carry(len(block))
            await response.write(block)
            passed += len(block)

    async def send_whole(self, request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
        """An answer that was to go out in one piece, as this wire carries it."""
        if answer.prepared or not isinstance(answer, web.Response):
            return answer
        body = answer.body if isinstance(answer.body, bytes) else b""
        if self._limit("answer", len(body)) is None:
            if self.back is not None:
                await self.back.carry(len(body))
            return answer
        if not body:
            await self._fail(request)
        begun = web.StreamResponse(status=answer.status, headers=answer.headers)
        begun.content_length = len(body)
        await begun.prepare(request)
        await self.send(request, begun, _once(body), len(body))
        return begun

    def _limit(self, where: str, length: int) -> int | None:
        return None if self.end is None or self.end.where != where else int(self.end.share * length)

    async def _fail(self, request: web.Request) -> None:
        """Let go of the client, at once or when it has lost its patience."""
        assert self.end is not None
        while self.end.how == "stall" and request.transport is not None and not self.down.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self.down.wait(), _LOOK)
        raise ConnectionResetError("cut off, as rehearsed")


def of(request: web.Request) -> CallTransport | None:
    """The wire that was laid for `request`; None where its bytes travel at once."""
    return request.get(_WIRE)


def arriving(request: web.Request) -> AsyncIterator[bytes]:
    """The bytes of a request's body as they come in."""
    wire = of(request)
    return request.content.iter_any() if wire is None else wire.arriving(request)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), BLOCK):
        yield body[start : start + BLOCK]
