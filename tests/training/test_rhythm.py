"""When a training saves."""

from __future__ import annotations

import time

import pytest

from haversack.training.rhythm import Rhythm, SaveTimer


@pytest.mark.parametrize(("cost", "interval"), [(0.0, 2.0), (0.01, 2.0), (0.1, 10.0), (1.3, 60.0), (2.9, 60.0)])
def test_a_hundredth_of_the_time_is_saved_and_a_minute_is_at_risk(cost: float, interval: float) -> None:
    assert Rhythm().interval(cost) == pytest.approx(interval)


def test_a_save_of_many_seconds_does_not_take_the_training_over() -> None:
    assert Rhythm().interval(10.0) == 200.0


def test_the_cheapest_of_the_last_saves_sets_the_interval() -> None:
    timer = SaveTimer(Rhythm(share=1000.0, longest=100_000.0))
    timer.restart(20.0)
    assert timer.remaining > 10_000
    timer.restart(0.1)
    timer.restart(20.0)
    assert timer.remaining <= 100
    for _ in range(5):
        timer.restart(20.0)
    assert timer.remaining > 10_000


def test_a_save_that_failed_does_not_change_what_a_save_costs() -> None:
    timer = SaveTimer(Rhythm(share=1000.0, longest=100_000.0))
    timer.restart(20.0)
    timer.restart(None)
    assert timer.remaining > 10_000


def test_an_early_save_is_affordable_if_saves_are_cheap() -> None:
    timer = SaveTimer(Rhythm())
    assert timer.is_affordable
    timer.restart(10_000.0)
    assert not timer.is_affordable


def test_a_save_is_due_before_the_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_SESSION_ENDS", str(time.time() + 1000))
    timer = SaveTimer(Rhythm(first=100_000.0, shortest=100_000.0, longest=100_000.0))
    assert timer.remaining <= 970
    monkeypatch.setenv("HAVERSACK_SESSION_ENDS", str(time.time()))
    timer = SaveTimer(Rhythm(first=100_000.0, shortest=100_000.0, longest=100_000.0))
    assert timer.is_due
    timer.restart(0.0)
    assert not timer.is_due


def test_saves_do_not_keep_step_with_epochs_that_take_as_long_as_the_interval() -> None:
    timer, intervals = SaveTimer(Rhythm(shortest=1000.0, longest=1000.0)), list[float]()
    for _ in range(5):
        timer.restart(0.0)
        intervals.append(timer.remaining)
    assert max(intervals) - min(intervals) > 20
    assert all(890 < interval <= 1000 for interval in intervals)
