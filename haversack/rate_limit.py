"""Client-side rate limiting: calls are sent as fast as the service accepts them, learned from its answers.

Nothing is limited until a service refuses calls for their rate. Then all calls of this process to it share one limit:
four fifths of the rate that was accepted in the last second, but at least half of the limit before (multiplicative
decrease). The limit grows a little each second (additive increase) and is lifted after a minute without refusals.
`Retry-After` pauses all calls if many were refused; a lone refusal among many calls delays only the call itself.

Google's quota differs with a project's age (12,000 calls a minute, or units of which a call of each kind costs some).
The setting `quota` names it, and then calls never exceed it: see `RateQuota`.

This module only delays calls that were not sent yet; a call that was refused is retried by `http`.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from haversack.errors import InputError

KINDS = ("batch", "download", "get", "list", "upload", "write")
_CUT = 0.8
_GROWTH = 0.05  # per second, of the rate at which calls were refused; at least one call per second
_DROP = 0.5  # one cut leaves at least this share of the limit
_SLOWEST = 8.0  # calls per second; one user's Drive accepts ten for hours
_FEWEST = 2.0  # refusals within about a second that mean a rate limit
_SHARE = 0.05  # of the calls within about a second, refused: also a condition for a cut
_MEMORY = 1.0  # seconds; time constant of the decaying counts of answers
_FORGIVEN = 60.0  # seconds without a cut after which the limit is lifted
_BURST = 1.0  # seconds of calls at the limit that may be sent at once
_PERIODS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "day": 86400.0}


@dataclass(frozen=True)
class RateQuota:
    """A service's quota.

    Attributes:
        rate: units per second.
        costs: kind of call → its units; 1 for a kind that is not listed.
    """

    rate: float
    costs: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> RateQuota:
        """Parse `12000/min`, or with the units of calls by kind: `325000/min list=100 upload=50`.

        The period is s, min, h or day. Raises `InputError` for anything else.
        """
        first, *rest = text.split() or [""]
        found = re.fullmatch(r"(\d+(?:\.\d+)?)/(\w+)", first)
        costs = dict(part.partition("=")[::2] for part in rest)
        fits = found is not None and float(found[1]) > 0 and found[2] in _PERIODS
        if not fits or any(kind not in KINDS or not _is_number(cost) for kind, cost in costs.items()):
            raise InputError(
                f"{text!r} is not a quota.",
                f"Give it like 12000/min or 325000/min list=100; kinds: {', '.join(KINDS)}.",
            )
        assert found is not None
        return cls(float(found[1]) / _PERIODS[found[2]], {kind: float(cost) for kind, cost in costs.items()})


class _LeakyBucket:
    """Admits `rate` calls per second, `burst` seconds of them at once (a leaky bucket as a meter, ITU-T I.371).

    `due` is the time at which the bucket is empty, on the clock of `reserve`'s `now`.
    """

    def __init__(self, rate: float, burst: float, due: float = -math.inf) -> None:
        self.rate = rate
        self.burst = burst
        self._due = due

    def reserve(self, amount: float, now: float) -> float:
        """Reserve `amount` calls at the time `now`, in seconds; return the seconds to wait before they may be sent."""
        self._due = max(self._due, now - self.burst) + amount / self.rate
        return max(0.0, self._due - now)


class RateLimiter:
    """Limits the calls of this process to one service. Not thread-safe: call it on the event loop's thread only.

    Args:
        quota: the service's quota, which calls never exceed; None if unknown.
        now: the clock, in seconds.
    """

    def __init__(self, quota: RateQuota | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._costs = quota.costs if quota else {}
        self._quota = _LeakyBucket(quota.rate, 10.0) if quota else None
        self._bucket: _LeakyBucket | None = None
        self._queue = asyncio.Lock()
        self._limit = math.inf
        self._accepted = self._refused = 0.0
        self._counted = self._grown = now()
        self._cut = -math.inf
        self._closed = -math.inf

    @property
    def rate(self) -> float:
        """The present limit in calls per second, as learned from refusals; infinite if there is none."""
        return self._bucket.rate if self._bucket else math.inf

    async def acquire(self, kind: str, calls: int = 1) -> None:
        """Wait until `calls` more calls of `kind` may be sent, and count them as sent.

        `kind` is one of `KINDS`: "batch", "download", "get", "list", "upload" or "write". It matters for the quota's
        costs only.
        """
        if self._bucket is None and self._quota is None and self._now() >= self._closed:
            return
        # One waiter at a time reserves, so that later ones reserve at the limit as it has grown by then.
        async with self._queue:
            now = self._now()
            self._grow(now)
            wait = self._bucket.reserve(calls, now) if self._bucket else 0.0
            if self._quota:
                wait = max(wait, self._quota.reserve(calls * self._costs.get(kind, 1.0), now))
            wait = max(wait, self._closed - now)
            while wait > 0:
                await asyncio.sleep(wait)
                wait = self._closed - self._now()

    def accepted(self, calls: int = 1) -> None:
        """Record that the service accepted `calls` calls."""
        self._count(self._now())
        self._accepted += calls

    def refused(self, pause: float = 0.0, calls: int = 1) -> None:
        """Record that `calls` calls were refused for their rate; `pause` is their `Retry-After` in seconds, 0 if none.

        If at least two calls, and 5 % of all, were refused within about a second, all calls pause for `pause`, and the
        limit is cut to four fifths of the accepted rate, once for each burst of refusals. One cut never goes below half
        of the limit before it, nor below 8 calls per second.
        """
        now = self._now()
        self._count(now)
        self._refused += calls
        if self._refused < _FEWEST or self._refused < _SHARE * (self._refused + self._accepted):
            return
        self._closed = max(self._closed, now + pause)
        if now - self._cut < _MEMORY:
            return  # the limit was cut for this burst of refusals already
        self._cut = self._grown = now
        self._limit = max(_SLOWEST, min(self.rate, self._accepted / _MEMORY))
        least = _DROP * self.rate if self._bucket else _SLOWEST
        # due=now: calls that were refused for their rate must not start again with a burst.
        self._bucket = _LeakyBucket(max(_SLOWEST, least, _CUT * self._limit), _BURST, due=now)

    def _grow(self, now: float) -> None:
        if self._bucket is None:
            return
        if now - self._cut > _FORGIVEN:
            self._bucket = None
            return
        self._bucket.rate += max(1.0, _GROWTH * self._limit) * (now - self._grown)
        self._grown = now

    def _count(self, now: float) -> None:
        """Decay the counts of answers to the time `now`."""
        fading = math.exp((self._counted - now) / _MEMORY)
        self._accepted, self._refused, self._counted = self._accepted * fading, self._refused * fading, now


_limiters: dict[tuple[str, str], RateLimiter] = {}


def of(service: str, quota: str | None = None) -> RateLimiter:
    """The rate limiter of this process for the URL `service` and the quota: the same object for the same pair.

    `quota` is as `RateQuota.parse` reads it, None if unknown. Raises `InputError` if it cannot be parsed.
    """
    key = (service, quota or "")
    if key not in _limiters:
        _limiters[key] = RateLimiter(RateQuota.parse(quota) if quota else None)
    return _limiters[key]


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None
