"""What ends a session, and when."""

from __future__ import annotations

import time

import pytest

from haversack.errors import InputError
from haversack.training import clock


def test_nothing_is_known_to_end_a_terminal() -> None:
    assert clock.remaining() is None


def test_a_jobs_session_says_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_SESSION_ENDS", str(time.time() + 100))
    remaining = clock.remaining()
    assert remaining is not None
    assert 0 < remaining <= 100


def test_an_end_that_has_passed_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_SESSION_ENDS", "1")
    assert clock.remaining() == 0


def test_kaggle_has_a_limit_and_the_user_may_know_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    found = clock.end()
    assert found is not None
    assert found.by == "Kaggle's limit of 12 h"
    monkeypatch.setenv("HAVERSACK_SESSION_LIMIT", "9h")
    shorter = clock.end()
    assert shorter is not None
    assert found.at - shorter.at == pytest.approx(3 * 3600, abs=5)


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("30m", 1800), ("12h", 43200), ("1h30m", 5400), ("0.5s", 0.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert clock.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "12", "h", "0s", "-3m", "1.2.3h", "soon"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a duration"):
        clock.seconds(text)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.5, "0.5 s"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (5400, "1 h 30 min")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert clock.words(seconds) == words
