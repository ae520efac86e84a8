"""How many ranges of a file are fetched side by side: as many as the server, and the way to it, repay.

It begins with a few. While more of them bring more bytes a second, more are added; where they do not, it goes back to
as many as did, and looks again a while later. A server that refuses for its load halves them, a connection that breaks
off before it brought much takes one away, and none is added for some seconds after that: additive increase,
multiplicative decrease, as in TCP (RFC 5681), over streams.

All methods are called on the loop's thread.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

FIRST = 4
"""Streams to begin with."""

_WINDOW = 0.5  # seconds that the bytes are counted over
_GAIN = 1.1  # streams that were added have to bring so many times what came without them
_REST = 10.0  # seconds without a try to add any, after a refusal or when more did not help
_BURST = 1.0  # seconds in which streams that were begun together fail together


class Streams:
    """At most `most` streams at once, `allowed` at present."""

    def __init__(self, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.allowed = min(FIRST, most)
        self._now = now
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._count = 0
        self._begun = now()
        self._settling = True
        self._before: tuple[int, float] | None = None
        self._resting = self._cut = -math.inf

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Be one of the streams, once that is allowed."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            await turn
            yield
        finally:
            if not turn.cancelled():
                self._running -= 1
            self._admit()

    def arrived(self, count: int) -> None:
        """So many bytes came."""
        self._count += count
        if (now := self._now()) - self._begun >= _WINDOW:
            rate = self._count / (now - self._begun)
            self._count, self._begun = 0, now
            self._judge(rate, now)

    def refused(self) -> None:
        """The server takes no more for now."""
        self._lower(self.allowed // 2)

    def broke(self) -> None:
        """A stream broke off before it brought much."""
        self._lower(self.allowed - 1)

    def _judge(self, rate: float, now: float) -> None:
        """Add streams while that helps; `rate` is in bytes per second."""
        if self._settling:
            self._settling = False  # new connections were being made
        elif self._running < self.allowed or now < self._resting:
            self._before = None
        elif self._before is not None and rate < _GAIN * self._before[1]:
            self.allowed, self._before, self._resting = self._before[0], None, now + _REST
        elif self.allowed == self.most:
            self._before = None
        else:
            self._before = self.allowed, rate
            self.allowed = min(self.most, self.allowed + max(1, self.allowed // 2))
            self._settling = True
            self._admit()

    def _lower(self, to: int) -> None:
        now = self._now()
        self._before, self._resting = None, now + _REST
        if now - self._cut >= _BURST:
            self._cut = now
            self.allowed = max(1, to)

    def _admit(self) -> None:
        while self._waiting and self._running < self.allowed:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._running += 1
