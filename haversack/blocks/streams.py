"""How many ranges of a file are fetched in parallel: found by additive increase and multiplicative decrease.

The limiter begins with a few streams. It adds streams as long as that raises the throughput, else it returns to the
previous number and tries again after a pause. A refused connection, or a request refused for the server's load (429,
503), halves the number; a connection that breaks off early takes one away. Both start a pause as well. This is the
AIMD of TCP (RFC 5681, https://www.rfc-editor.org/rfc/rfc5681), applied to the number of streams.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

FIRST = 4
"""The number of streams at the beginning."""

_WINDOW = 0.5  # seconds over which the throughput is measured
_GAIN = 1.1  # factor by which more streams must raise the throughput
_PAUSE = 10.0  # seconds without more streams after a refusal, a break, or streams that did not help
_BURST = 1.0  # seconds within which several failures count as one, since streams started together fail together


class StreamLimiter:
    """Limits how many streams run at once: `allowed`, which is adjusted between 1 and `most`.

    `now` returns the time in seconds of a monotonic clock. A window is half a second, over which throughput is
    measured.

    Not thread-safe: all methods belong to the event loop's thread. `_running` of the allowed streams are in use and
    `_waiting` are queued. `_received` bytes came since `_window_start`. `_previous` is (number of streams, bytes per
    second) before streams were added, None outside of such a trial. `_settling` skips the window in which connections
    are new. Until `_paused_until` no streams are added. `_last_decrease` is when `allowed` was decreased.
    """

    def __init__(self, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.allowed = min(FIRST, most)
        self._now = now
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._received = 0
        self._window_start = now()
        self._settling = True
        self._previous: tuple[int, float] | None = None
        self._paused_until = self._last_decrease = -math.inf

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait in FIFO order until one more stream is allowed; it counts as running until the block ends."""
        admitted = asyncio.get_running_loop().create_future()
        self._waiting.append(admitted)
        self._admit()
        try:
            await admitted
            yield
        finally:
            if not admitted.cancelled():
                self._running -= 1
            self._admit()

    def record_bytes(self, count: int) -> None:
        """Record that `count` bytes were received; at the end of a window, adjust the number of streams."""
        self._received += count
        if (now := self._now()) - self._window_start >= _WINDOW:
            rate = self._received / (now - self._window_start)
            self._received, self._window_start = 0, now
            self._adjust(rate, now)

    def record_refusal(self) -> None:
        """Record that the server refused a connection or a request: halve the number of streams.

        Within a second of the last decrease this only restarts the pause.
        """
        self._decrease(self.allowed // 2)

    def record_break(self) -> None:
        """Record that a connection broke off early: allow one stream fewer.

        Within a second of the last decrease this only restarts the pause.
        """
        self._decrease(self.allowed - 1)

    def _adjust(self, rate: float, now: float) -> None:
        """Add streams, or take back those added last; `rate` is the throughput of the last window in bytes/second."""
        if self._settling:
            self._settling = False  # the window included new connections
        elif self._running < self.allowed or now < self._paused_until:
            self._previous = None
        elif self._previous is not None and rate < _GAIN * self._previous[1]:
            self.allowed, self._previous, self._paused_until = self._previous[0], None, now + _PAUSE
        elif self.allowed == self.most:
            self._previous = None
        else:
            self._previous = self.allowed, rate
            self.allowed = min(self.most, self.allowed + max(1, self.allowed // 2))
            self._settling = True
            self._admit()

    def _decrease(self, to: int) -> None:
        """Allow `to` streams, at least one, once in a burst of failures; start a pause."""
        now = self._now()
        self._previous, self._paused_until = None, now + _PAUSE
        if now - self._last_decrease >= _BURST:
            self._last_decrease = now
            self.allowed = max(1, to)

    def _admit(self) -> None:
        """Start waiting streams while more are allowed."""
        while self._waiting and self._running < self.allowed:
            admitted = self._waiting.popleft()
            if not admitted.done():
                admitted.set_result(None)
                self._running += 1
