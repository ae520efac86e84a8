"""The pace that calls keep: none until calls are refused, then what the service takes."""

from __future__ import annotations

import asyncio
import math

import pytest

from haversack.errors import InputError
from haversack.rate_limit import RateLimiter, RateQuota


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that sleeping moves."""
    clock = Clock()

    async def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr("haversack.rate_limit.asyncio.sleep", sleep)
    return clock


def seconds(pace: RateLimiter, clock: Clock, calls: int, kind: str = "get") -> float:
    started = clock.now

    async def send() -> None:
        for _ in range(calls):
            await pace.acquire(kind)
            pace.accepted()

    asyncio.run(send())
    return clock.now - started


def refuse(pace: RateLimiter, calls: int, pause: float = 0.0) -> None:
    for _ in range(calls):
        pace.refused(pause)


def test_nothing_is_paced_that_was_not_refused(clock: Clock) -> None:
    assert seconds(RateLimiter(now=clock), clock, 10_000) == 0


def test_refusals_slow_everyone_to_what_was_accepted(clock: Clock) -> None:
    pace = RateLimiter(now=clock)
    seconds(pace, clock, 20)
    refuse(pace, 5)
    assert pace.rate == pytest.approx(16)


def test_one_burst_of_refusals_counts_once(clock: Clock) -> None:
    pace = RateLimiter(now=clock)
    seconds(pace, clock, 20)
    refuse(pace, 500)
    assert pace.rate == pytest.approx(16)


def test_the_pace_grows_by_steps_until_it_is_lifted(clock: Clock) -> None:
    pace = RateLimiter(now=clock)
    seconds(pace, clock, 20)
    refuse(pace, 5)
    clock.now += 2
    seconds(pace, clock, 1)
    assert pace.rate == pytest.approx(18)
    clock.now += 60
    seconds(pace, clock, 1)
    assert pace.rate == math.inf


def test_a_lone_refusal_among_many_slows_nobody(clock: Clock) -> None:
    pace = RateLimiter(now=clock)
    seconds(pace, clock, 100)
    refuse(pace, 4, pause=30)
    assert (pace.rate, seconds(pace, clock, 100)) == (math.inf, 0)


def test_two_refusals_are_no_limit_yet(clock: Clock) -> None:
    pace = RateLimiter(now=clock)
    refuse(pace, 1)
    clock.now += 0.1
    refuse(pace, 1)
    assert pace.rate == math.inf


def test_retry_after_holds_up_everyone(clock: Clock) -> None:
    pace = RateLimiter(now=clock)
    refuse(pace, 3, pause=30)
    assert seconds(pace, clock, 1) >= 30


def test_a_cut_takes_half_at_most(clock: Clock) -> None:
    pace = RateLimiter(now=clock)
    seconds(pace, clock, 100)
    refuse(pace, 50)
    clock.now += 3
    refuse(pace, 50)
    assert pace.rate == pytest.approx(80 / 2)


def test_a_service_of_ten_a_second_is_used_well_and_seldom_overrun(clock: Clock) -> None:
    pace, bucket, filled, refused, done = RateLimiter(now=clock), 10.0, clock.now, 0, 0
    while clock.now < 160:
        asyncio.run(pace.acquire("get"))
        clock.now += 0.001
        bucket, filled = min(10.0, bucket + (clock.now - filled) * 10), clock.now
        if bucket >= 1:
            bucket -= 1
            done += 1
            pace.accepted()
        else:
            refused += 1
            pace.refused()
    assert done > 0.85 * 10 * 60
    assert refused < 0.1 * done


def test_a_quota_that_is_said_is_never_overrun(clock: Clock) -> None:
    pace = RateLimiter(RateQuota.parse("600/min list=5"), now=clock)
    assert seconds(pace, clock, 300) == pytest.approx(30 - 10, abs=0.2)
    assert seconds(pace, clock, 20, "list") == pytest.approx(10, abs=0.2)


@pytest.mark.parametrize("text", ["", "12000", "0/min", "10/fortnight", "10/s get", "10/s reading=2", "10/s get=x"])
def test_what_is_no_quota_is_bad_input(text: str) -> None:
    with pytest.raises(InputError, match="is not a quota"):
        RateQuota.parse(text)
