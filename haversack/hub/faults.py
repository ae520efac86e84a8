"""Fault injection: latency, bandwidth and rate limits, and failures, as clients meet them at the real Drive.

    latency      each call waits this long before it is handled; concurrent calls wait concurrently
    bandwidth    bytes per second, shared by all calls, separately for each direction
    rate limit   calls per second; further calls get 403, `rateLimitExceeded` and `userRateLimitExceeded` alternately
    failures     KIND:RATE, the share of calls that fail:
                   500 … 599         a server error; half of the calls that write are carried out nevertheless
                   429               refused, with Retry-After
                   403.REASON        refused with a reason of Drive's
                   cut, stall        the body of the request or of the response is cut off, or stops in the middle
                 bursts: 429x8:0.002 fails eight calls in a row, starting at 2 of 1,000 calls

A batch as a whole can meet server errors and broken connections. Each call inside a batch meets the rate limit,
refusals and server errors, as at Google's, and is then not carried out. Failures are drawn from a seed: the same calls
in the same order meet the same faults. `/haversack/…`, the web page and signed links to the drive's files are exempt.
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
from haversack.settings import parse_size

RETRY_AFTER = 1
_AFFECTED_PREFIXES = ("/drive/", "/upload/", "/batch/", "/api/", "/v1/", "/storage/", "/blobs/")
_BATCH = "/batch/"
_RATE_REASONS = ("rateLimitExceeded", "userRateLimitExceeded")
# Google's messages for its reasons; see https://developers.google.com/workspace/drive/api/guides/handle-errors
_MESSAGES = {
    "dailyLimitExceeded": "Daily Limit Exceeded",
    "rateLimitExceeded": "Rate Limit Exceeded",
    "sharingRateLimitExceeded": 'Rate limit exceeded. User message: "You\'ve exceeded your sharing quota"',
    "storageQuotaExceeded": "The user's Drive storage quota has been exceeded.",
    "userRateLimitExceeded": "User Rate Limit Exceeded",
}
_SECONDS = {"ms": 1e-3, "s": 1.0}
_SECONDS_PER = {"s": 1.0, "m": 60.0, "min": 60.0}


@dataclass(frozen=True)
class Failure:
    """A kind of failure that calls meet at random, alone or in bursts.

    Attributes:
        kind: "500" to "599", "429", "403.REASON" with a reason of Drive's, "cut" or "stall".
        rate: the probability (above 0, up to 1) that a call starts a burst.
        burst: how many consecutive calls fail.
    """

    kind: str
    rate: float
    burst: int = 1

    @property
    def hits_whole_batch(self) -> bool:
        """Whether it can fail a whole batch (server errors, broken connections); 429 and 403 hit only calls inside."""
        return self.kind[0] not in "4"

    @property
    def refusal(self) -> Refusal | None:
        """The error response that the call gets; None for `cut` and `stall`, which break the connection instead."""
        if self.kind in ("cut", "stall"):
            return None
        status, _, reason = self.kind.partition(".")
        if status == "429":
            headers = {"Retry-After": str(RETRY_AFTER)}
            return Refusal(429, "rateLimitExceeded", "Too many requests.", headers=headers)
        if status == "403":
            return Refusal(403, reason, _MESSAGES.get(reason, f"Injected failure: {reason}."))
        return Refusal(int(status), "backendError", "Backend Error")


@dataclass(frozen=True)
class FaultPlan:
    """The faults to inject; as a condition, it is false if there are none.

    Attributes:
        latency: how long each call waits before it is handled, in seconds.
        bandwidth: bytes per second in each direction; None for no limit.
        rate: calls per second; None for no limit.
        failures: the failures to draw for each call; the first that occurs is used.
        seed: the start of the random numbers.
    """

    latency: float = 0.0
    bandwidth: float | None = None
    rate: float | None = None
    failures: tuple[Failure, ...] = ()
    seed: int = 0

    def __bool__(self) -> bool:
        return bool(self.latency or self.bandwidth or self.rate or self.failures)


def parse_fault_plan(
    latency: str | None = None,
    bandwidth: str | None = None,
    rate_limit: str | None = None,
    failures: Iterable[str] = (),
    seed: int = 0,
) -> FaultPlan:
    """Parse the options of `haversack hub` that inject faults.

    Args:
        latency: a time such as "20ms" or "1.5s".
        bandwidth: bytes per second, such as "100MB".
        rate_limit: calls per time, such as "10/s" or "600/min".
        failures: each KIND:RATE, such as "500:0.01", or KINDxCOUNT:RATE for bursts.
        seed: the start of the random numbers.

    Raises `InputError` for a value that does not follow the format.
    """
    return FaultPlan(
        latency=_duration(latency) if latency else 0.0,
        bandwidth=parse_size(bandwidth.removesuffix("/s"), "--bandwidth") if bandwidth else None,
        rate=_rate(rate_limit) if rate_limit else None,
        failures=tuple(_failure(text) for text in failures),
        seed=seed,
    )


class Faults:
    """A middleware that injects the faults of `plan` into calls.

    Setting `hub_ended` (the hub shuts down) ends stalled calls. Used from the event loop only.
    """

    def __init__(self, plan: FaultPlan, hub_ended: asyncio.Event) -> None:
        self.plan = plan
        self._hub_ended = hub_ended
        self._random = random.Random(plan.seed)
        self._remaining_in_burst: Counter[Failure] = Counter()
        self._limit = _TokenBucket(plan.rate) if plan.rate else None
        self._reasons = itertools.cycle(_RATE_REASONS)
        self._upload, self._download = (SharedBandwidth(plan.bandwidth) if plan.bandwidth else None for _ in range(2))

    @web.middleware
    async def middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Let `handler` answer `request` under the plan: with a delay, limited bandwidth, or a body that breaks off.

        Returns the response. Raises `Refusal` for an injected error response, before or after `handler` ran, and
        `ConnectionResetError` where an injected failure breaks off the body.
        """
        if not request.path.startswith(_AFFECTED_PREFIXES):
            return await handler(request)
        if self.plan.latency:
            await asyncio.sleep(self.plan.latency)
        if request.path.startswith(_BATCH):
            failure = self._draw(failure for failure in self.plan.failures if failure.hits_whole_batch)
        else:
            self._check_rate()
            failure = self._draw(self.plan.failures)
        refusal = failure.refusal if failure else None
        if refusal is not None and not self._has_effect(request, refusal):
            raise refusal
        end = self._early_end(request, failure.kind) if failure and not refusal else None
        transport = CallTransport(self._hub_ended, self._upload, self._download, end)
        transport.attach(request)
        answer = await handler(request)
        if refusal is not None:
            raise refusal
        return await transport.send_whole(request, answer)

    def apply_to_batched_call(self) -> None:
        """Apply the rate limit and the failures to one call inside a batch, before it is carried out.

        Raises `Refusal` if the call fails. `cut` and `stall` have no effect here; they break the connection of the
        whole batch.
        """
        self._check_rate()
        failure = self._draw(self.plan.failures)
        if failure is not None and (refusal := failure.refusal) is not None:
            raise refusal

    def _check_rate(self) -> None:
        if self._limit is not None and not self._limit.try_acquire():
            reason = next(self._reasons)
            raise Refusal(403, reason, _MESSAGES[reason])

    def _draw(self, failures: Iterable[Failure]) -> Failure | None:
        """Draw every failure, so that each consumes the same random numbers; return the first that occurs."""
        drawn = [failure for failure in failures if self._occurs(failure)]
        return drawn[0] if drawn else None

    def _occurs(self, failure: Failure) -> bool:
        if self._random.random() < failure.rate:
            self._remaining_in_burst[failure] = failure.burst
        occurs = self._remaining_in_burst[failure] > 0
        self._remaining_in_burst[failure] -= occurs
        return occurs

    def _has_effect(self, request: web.Request, refusal: Refusal) -> bool:
        """Whether a call that is answered with a server error is carried out nevertheless."""
        return refusal.status >= 500 and request.method not in ("GET", "HEAD") and self._random.random() < 0.5

    def _early_end(self, request: web.Request, kind: str) -> EarlyEnd:
        in_request = bool(request.content_length) and self._random.random() < 0.5
        return EarlyEnd(
            "cut" if kind == "cut" else "stall", "request" if in_request else "answer", self._random.random()
        )


class _TokenBucket:
    """A token bucket: `rate` calls per second, with a capacity of one second's calls."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._tokens = self._capacity = max(1.0, rate)
        self._updated_at = time.monotonic()

    def try_acquire(self) -> bool:
        """Take a token and return True; return False if there is none."""
        now = time.monotonic()
        self._tokens = min(self._capacity, self._tokens + (now - self._updated_at) * self.rate)
        self._updated_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _duration(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(ms|s)", text.strip())
    if found is None:
        raise InputError(f"--latency does not accept {text!r}.", "Give a time, for example 20ms or 1.5s.")
    return float(found[1]) * _SECONDS[found[2]]


def _rate(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)/(s|m|min)", text.strip())
    if found is None or float(found[1]) == 0:
        raise InputError(f"--rate-limit does not accept {text!r}.", "Give calls per time, for example 10/s or 600/min.")
    return float(found[1]) / _SECONDS_PER[found[2]]


def _failure(text: str) -> Failure:
    kind, _, share = text.strip().rpartition(":")
    found = re.fullmatch(r"(5\d\d|429|403\.[A-Za-z]+|cut|stall)(?:x([1-9]\d{0,3}))?", kind)
    if found is None:
        raise InputError(
            f"--fail does not accept the kind {kind or text!r}.",
            "The kinds are 500 to 599, 429, 403.REASON, cut and stall, for example --fail 500:0.01.",
        )
    try:
        rate = float(share)
    except ValueError:
        rate = -1.0
    if not 0 < rate <= 1:
        raise InputError(
            f"--fail does not accept the rate {share!r}.",
            "Give a share of the calls above 0 and up to 1, for example 0.01.",
        )
    return Failure(found[1], rate, int(found[2] or 1))
