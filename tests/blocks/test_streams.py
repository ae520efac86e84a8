"""How many streams are repaid, by a clock of the tests' own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from haversack.blocks.streams import FIRST, StreamLimiter


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def after(rate: Callable[[int], float], seconds: float, most: int = 16) -> StreamLimiter:
    """Streams that were all in use so long, when that many brought `rate` bytes per second."""
    clock = Clock()
    streams = StreamLimiter(most, clock)
    asyncio.run(use(streams, clock, rate, seconds))
    return streams


async def use(streams: StreamLimiter, clock: Clock, rate: Callable[[int], float], seconds: float) -> None:
    async with AsyncExitStack() as running:
        count, end = 0, clock.now + seconds
        while clock.now < end:
            while count < streams.allowed:
                await running.enter_async_context(streams.slot())
                count += 1
            clock.now += 0.1
            streams.record_bytes(round(rate(streams.allowed) / 10))


def test_a_limit_for_each_connection_brings_more_of_them() -> None:
    assert after(lambda count: 5e6 * count, 6).allowed == 16


def test_the_setting_bounds_them() -> None:
    assert after(lambda count: 5e6 * count, 6, most=10).allowed == 10
    assert after(lambda count: 5e6 * count, 6, most=2).allowed == 2


def test_a_link_that_is_full_has_no_more() -> None:
    assert after(lambda count: 100e6, 8).allowed == FIRST


def test_a_link_that_fills_on_the_way_has_as_many_as_fill_it() -> None:
    assert after(lambda count: min(5e6 * count, 45e6), 8).allowed == 9


def test_what_does_not_pay_now_is_tried_again_later() -> None:
    clock = Clock()
    streams = StreamLimiter(16, clock)
    asyncio.run(use(streams, clock, lambda count: 100e6, 5))
    asyncio.run(use(streams, clock, lambda count: 5e6 * count, 20))
    assert streams.allowed > FIRST


@pytest.mark.parametrize(("trouble", "left"), [("record_refusal", FIRST // 2), ("record_break", FIRST - 1)])
def test_trouble_takes_some_away_once_for_a_burst(trouble: str, left: int) -> None:
    clock = Clock()
    streams = StreamLimiter(16, clock)
    clock.now = 100
    for _ in range(5):
        getattr(streams, trouble)()
    assert streams.allowed == left


def test_one_stream_is_always_left() -> None:
    clock = Clock()
    streams = StreamLimiter(16, clock)
    for second in range(10):
        clock.now = 2.0 * second
        streams.record_refusal()
    assert streams.allowed == 1


def test_a_stream_that_is_given_up_while_it_waits_takes_no_place() -> None:
    async def main() -> None:
        streams = StreamLimiter(1)

        async def have_a_turn() -> None:
            async with streams.slot():
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(have_a_turn()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(have_a_turn(), 5)

    asyncio.run(main())
