"""A bad network and a strict service, rehearsed: what a client meets at the real Drive, on this machine and on purpose.

    latency      each call waits this long before it is looked at; calls do not wait for one another
    bandwidth    bytes per second, shared by all calls, each direction by itself
    rate limit   calls per second; more are refused with 403, `rateLimitExceeded` and `userRateLimitExceeded` by turns
    failures     KIND:RATE, the share of calls that end badly:
                   500 … 599         a failing server; half of these calls were carried out all the same
                   429               refused, with Retry-After
                   403.REASON        refused for a reason of Drive's
                   cut, stall        the body, of the request or of the answer, breaks off or stands still
                 and in bursts: 429x8:0.002 is eight calls in a row, beginning at 2 calls of 1,000

What a batch holds meets limits and refusals call by call, as at Google's. Chance is seeded: the same calls in the same
order meet the same faults. The hub's own doors (`/haversack/…`) and its page are left in peace.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from aiohttp import web

from haversack.errors import InputError
from haversack.hub.refusal import Refusal
from haversack.hub.wire import CallTransport, EarlyEnd, SharedBandwidth

RETRY_AFTER = 1
_CONCERNED = ("/drive/", "/upload/", "/batch/", "/api/", "/v1/", "/storage/", "/blobs/")
_BATCH = "/batch/"
_RATE_REASONS = ("rateLimitExceeded", "userRateLimitExceeded")
# Google's sentences for its reasons; see https://developers.google.com/workspace/drive/api/guides/handle-errors
_SENTENCES = {
    "dailyLimitExceeded": "Daily Limit Exceeded",
    "rateLimitExceeded": "Rate Limit Exceeded",
    "sharingRateLimitExceeded": 'Rate limit exceeded. User message: "You\'ve exceeded your sharing quota"',
    "storageQuotaExceeded": "The user's Drive storage quota has been exceeded.",
    "userRateLimitExceeded": "User Rate Limit Exceeded",
}
_SECONDS = {"ms": 1e-3, "s": 1.0}
_PER = {"s": 1.0, "m": 60.0, "min": 60.0}


@dataclass(frozen=True)
class Failure:
    """`kind` is "500", "403.rateLimitExceeded", "cut" …; at `rate` of the calls, 0 to 1, `row` of them fail."""

    kind: str
    rate: float
    row: int = 1

    @property
    def of_server(self) -> bool:
        """Whether it befalls a batch as a whole: the service and the connection fail, a limit does not."""
        return self.kind[0] not in "4"

    @property
    def refusal(self) -> Refusal | None:
        """What the call is answered; None where the connection fails instead."""
        if self.kind in ("cut", "stall"):
            return None
        status, _, reason = self.kind.partition(".")
        if status == "429":
            headers = {"Retry-After": str(RETRY_AFTER)}
            return Refusal(429, "rateLimitExceeded", "Too many requests.", headers=headers)
        if status == "403":
            return Refusal(403, reason, _SENTENCES.get(reason, f"Refused, as rehearsed: {reason}."))
        return Refusal(int(status), "backendError", "Backend Error")


@dataclass(frozen=True)
class FaultRehearsal:
    """What is rehearsed: `latency` in seconds, `bandwidth` in bytes per second, `rate` in calls per second."""

    latency: float = 0.0
    bandwidth: float | None = None
    rate: float | None = None
    failures: tuple[Failure, ...] = ()
    seed: int = 0

    def __bool__(self) -> bool:
        return bool(self.latency or self.bandwidth or self.rate or self.failures)


def rehearsal(
    latency: str | None = None,
    bandwidth: str | None = None,
    rate_limit: str | None = None,
    failures: Iterable[str] = (),
    seed: int = 0,
) -> FaultRehearsal:
    """What the command line says. Raises `InputError` where it cannot be meant."""
    return FaultRehearsal(
        latency=_duration(latency) if latency else 0.0,
        bandwidth=size(bandwidth.removesuffix("/s"), "--bandwidth") if bandwidth else None,
        rate=_rate(rate_limit) if rate_limit else None,
        failures=tuple(_failure(text) for text in failures),
        seed=seed,
    )


class Faults:
    """The middleware that does to calls what a rehearsal says; `down` is set once the hub ends."""

    def __init__(self, rehearsed: FaultRehearsal, down: asyncio.Event) -> None:
        self.rehearsed = rehearsed
        self._down = down
        self._chance = random.Random(rehearsed.seed)
        self._left: Counter[Failure] = Counter()
        self._limit = _Limit(rehearsed.rate) if rehearsed.rate else None
        self._reasons = itertools.cycle(_RATE_REASONS)
        self._up, self._back = (SharedBandwidth(rehearsed.bandwidth) if rehearsed.bandwidth else None for _ in range(2))

    @web.middleware
    async def middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not request.path.startswith(_CONCERNED):
            return await handler(request)
        if self.rehearsed.latency:
            await asyncio.sleep(self.rehearsed.latency)
        if request.path.startswith(_BATCH):
            failure = self._drawn(failure for failure in self.rehearsed.failures if failure.of_server)
        else:
            self._check_rate()
            failure = self._drawn(self.rehearsed.failures)
        refusal = failure.refusal if failure else None
        if refusal is not None and not self._is_carried_out(request, refusal):
            raise refusal
        end = self._end(request, failure.kind) if failure and not refusal else None
        wire = CallTransport(self._down, self._up, self._back, end)
        wire.lay(request)
        answer = await handler(request)
        if refusal is not None:
            raise refusal
        return await wire.send_whole(request, answer)

    def meet(self) -> None:
        """One call of a batch: refuse it, if that is its lot. What befalls the batch as a whole did so before."""
        self._check_rate()
        failure = self._drawn(self.rehearsed.failures)
        if failure is not None and (refusal := failure.refusal) is not None:
            raise refusal

    def _check_rate(self) -> None:
        if self._limit is not None and not self._limit.take():
            reason = next(self._reasons)
            raise Refusal(403, reason, _SENTENCES[reason])

    def _drawn(self, failures: Iterable[Failure]) -> Failure | None:
        drawn = [failure for failure in failures if self._befalls(failure)]
        return drawn[0] if drawn else None

    def _befalls(self, failure: Failure) -> bool:
        if self._chance.random() < failure.rate:
            self._left[failure] = failure.row
        befalls = self._left[failure] > 0
        self._left[failure] -= befalls
        return befalls

    def _is_carried_out(self, request: web.Request, refusal: Refusal) -> bool:
        """Whether a call that is answered by a failure has its effect all the same."""
        return refusal.status >= 500 and request.method not in ("GET", "HEAD") and self._chance.random() < 0.5

    def _end(self, request: web.Request, kind: str) -> EarlyEnd:
        in_request = bool(request.content_length) and self._chance.random() < 0.5
        return EarlyEnd(
            "cut" if kind == "cut" else "stall", "request" if in_request else "answer", self._chance.random()
        )


class _Limit:
    """A bucket of one second's calls, filled again as time passes."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._left = self._most = max(1.0, rate)
        self._at = time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def size(text: str, option: str) -> int:
    """Bytes from a text like 15GB, in powers of ten as disks are sold, or 2GiB. Raises `InputError`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?)(i?)B?", text.strip().replace("K", "k"))
    if found is None or float(found[1]) == 0 or (found[3] and not found[2]):
        raise InputError(f"{option} does not take {text!r}.", "Give a size, for example 100MB or 15GB.")
    power = " kMGT".index(found[2]) if found[2] else 0
    return round(float(found[1]) * (1024 if found[3] else 1000) ** power)


def _duration(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(ms|s)", text.strip())
    if found is None:
        raise InputError(f"--latency does not take {text!r}.", "Give a time, for example 20ms or 1.5s.")
    return float(found[1]) * _SECONDS[found[2]]


def _rate(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)/(s|m|min)", text.strip())
    if found is None or float(found[1]) == 0:
        raise InputError(f"--rate-limit does not take {text!r}.", "Give calls per time, for example 10/s or 600/min.")
    return float(found[1]) / _PER[found[2]]


def _failure(text: str) -> Failure:
    kind, _, share = text.strip().rpartition(":")
    found = re.fullmatch(r"(5\d\d|429|403\.[A-Za-z]+|cut|stall)(?:x([1-9]\d{0,3}))?", kind)
    if found is None:
        raise InputError(
            f"--fail does not know the kind {kind or text!r}.",
            "The kinds are 500 to 599, 429, 403.REASON, cut and stall, for example --fail 500:0.01.",
        )
    try:
        rate = float(share)
    except ValueError:
        rate = -1.0
    if not 0 < rate <= 1:
        raise InputError(f"--fail does not take the rate {share!r}.", "It is a share of the calls, for example 0.01.")
    return Failure(found[1], rate, int(found[2] or 1))
