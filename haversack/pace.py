"""How fast a service is asked: no slower than it takes, as its own answers tell.

There is no pace until a service refuses calls for their rate. Then every call of this process to it keeps one pace:
four fifths of what was accepted lately, but no less than half of what it was (multiplicative decrease), a little more
each second (additive increase), and none at all after a minute without refusals. Where many are refused, `Retry-After`
holds up everyone. A lone refusal among many calls slows nobody but its own.

Google's quota differs with a project's age (12,000 calls a minute, or units of which each kind of call costs some), so
what it is can be said in the setting `quota`, and then it is never overrun on purpose: see `Model`.
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
_GROWTH = 0.05  # of the rate at which refusals began, per second, and at least a call more
_DROP = 0.5  # the most that one cut takes away
_SLOWEST = 8.0  # calls per second; the Drive of one user takes ten for hours
_FEWEST = 2.0  # refusals that are taken for a limit, when they come within a second or so
_SHARE = 0.05
_MEMORY = 1.0  # seconds that what was answered is remembered for
_FORGIVEN = 60.0
_BURST = 1.0  # seconds' worth of calls that may go at once
_PERIODS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "day": 86400.0}


@dataclass(frozen=True)
class Model:
    """A service's quota: units per second, and what calls of each kind cost, one unit where nothing is said."""

    rate: float
    costs: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Model:
        """`12000/min`, or with the units that calls cost: `325000/min list=100 upload=50`. Raises `InputError`."""
        first, *rest = text.split() or [""]
        found = re.fullmatch(r"(\d+(?:\.\d+)?)/(\w+)", first)
        costs = dict(part.partition("=")[::2] for part in rest)
        fits = found is not None and float(found[1]) > 0 and found[2] in _PERIODS
        if not fits or any(kind not in KINDS or not _is_number(cost) for kind, cost in costs.items()):
            raise InputError(
                f"{text!r} is no quota.", f"Give it like 12000/min or 325000/min list=100; kinds: {', '.join(KINDS)}."
            )
        assert found is not None
        return cls(float(found[1]) / _PERIODS[found[2]], {kind: float(cost) for kind, cost in costs.items()})


class _Bucket:
    """Calls at `rate` per second, `burst` seconds' worth of them at once (a leaky bucket as a meter, ITU-T I.371)."""

    def __init__(self, rate: float, burst: float, due: float = -math.inf) -> None:
        self.rate = rate
        self.burst = burst
        self._due = due

    def take(self, amount: float, now: float) -> float:
        """Take as much as that; returns the seconds to wait first."""
        self._due = max(self._due, now - self.burst) + amount / self.rate
        return max(0.0, self._due - now)


class Pace:
    """The pace of one service; all its methods are called on the loop's thread."""

    def __init__(self, model: Model | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._model = model
        self._quota = _Bucket(model.rate, 10.0) if model else None
        self._bucket: _Bucket | None = None
        self._queue = asyncio.Lock()
        self._limit = math.inf
        self._accepted = self._refused = 0.0
        self._counted = self._grown = now()
        self._cut = -math.inf
        self._closed = -math.inf

    @property
    def rate(self) -> float:
        """Calls per second at present; infinite where there is no pace."""
        return self._bucket.rate if self._bucket else math.inf

    async def turn(self, kind: str, calls: int = 1) -> None:
        """Wait until `calls` more calls of that kind may be sent."""
        if self._bucket is None and self._quota is None and self._now() >= self._closed:
            return
        # One after the other, so that who waits longer profits from a pace that has grown meanwhile.
        async with self._queue:
            now = self._now()
            self._grow(now)
            wait = self._bucket.take(calls, now) if self._bucket else 0.0
            if self._quota and self._model:
                wait = max(wait, self._quota.take(calls * self._model.costs.get(kind, 1.0), now))
            wait = max(wait, self._closed - now)
            while wait > 0:
                await asyncio.sleep(wait)
                wait = self._closed - self._now()

    def accepted(self, calls: int = 1) -> None:
        self._count(self._now())
        self._accepted += calls

    def refused(self, pause: float = 0.0, calls: int = 1) -> None:
        """Calls were refused for their rate; `pause` is what `Retry-After` said, in seconds."""
        now = self._now()
        self._count(now)
        self._refused += calls
        if self._refused < _FEWEST or self._refused < _SHARE * (self._refused + self._accepted):
            return
        self._closed = max(self._closed, now + pause)
        if now - self._cut < _MEMORY:
            return  # the same burst
        self._cut = self._grown = now
        self._limit = max(_SLOWEST, min(self.rate, self._accepted / _MEMORY))
        least = _DROP * self.rate if self._bucket else _SLOWEST
        # What was just refused for coming too fast does not begin with a burst.
        self._bucket = _Bucket(max(_SLOWEST, least, _CUT * self._limit), _BURST, due=now)

    def _grow(self, now: float) -> None:
        if self._bucket is None:
            return
        if now - self._cut > _FORGIVEN:
            self._bucket = None
            return
        self._bucket.rate += max(1.0, _GROWTH * self._limit) * (now - self._grown)
        self._grown = now

    def _count(self, now: float) -> None:
        """What was answered fades away."""
        fading = math.exp((self._counted - now) / _MEMORY)
        self._accepted, self._refused, self._counted = self._accepted * fading, self._refused * fading, now


_paces: dict[tuple[str, str], Pace] = {}


def of(service: str, quota: str | None = None) -> Pace:
    """The pace that all clients of this process keep with a service. Raises `InputError` for a quota that is none."""
    key = (service, quota or "")
    if key not in _paces:
        _paces[key] = Pace(Model.parse(quota) if quota else None)
    return _paces[key]


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None
