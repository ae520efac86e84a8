"""When a training saves: how long it may wait for its next save, and when that is due.

Saving blocks the training while its state is copied, and work that is not saved is lost with the machine. So the
interval follows from what a save costs: a small model is saved every few seconds, and a large one as often as a
hundredth of the time allows, but at least once a minute. A cost is measured on memory that is ready, and on arrays that
are computed (`Buffers.copy_seconds`): the first save of a session, which allocates memory and may find a step in
progress, would otherwise set an interval many times too long. A busy machine delays single saves, so the cheapest of
the last ones counts.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass

from haversack.training import clock

_REMEMBERED = 5
"""The number of last saves of which the cheapest counts."""
# An interval is shortened by up to this share, each time by another one: epochs that take as long as the interval would
# else be saved at the same step each time, at worst at their first one only.
_JITTER = 0.1
_GOLDEN = (5**0.5 - 1) / 2  # its multiples modulo 1 are spread evenly
# The last save begins this share of the remaining time before the session's end, but at most so many seconds before.
_FINAL_SAVE_SHARE, _FINAL_SAVE_LEAD = 0.1, 30.0


@dataclass(frozen=True)
class Rhythm:
    """When to save.

    Attributes:
        first: seconds from the start of the session to its first save.
        share: the interval after a save, as a multiple of the time for which a save blocks the training.
        shortest: lower bound of the interval in seconds.
        longest: upper bound of the interval in seconds, and with it of the work that a kill repeats.
        largest_share: where `longest` would make the saves block more than one part in so many of the time, they are
            rarer. With copies of 1 GB/s that begins at 3 GB.
    """

    first: float = 2.0
    share: float = 100.0
    shortest: float = 2.0
    longest: float = 60.0
    largest_share: float = 20.0

    def interval(self, cost: float) -> float:
        """Return the seconds from the end of a save to the next one, if a save blocks the training for `cost` s."""
        return min(max(self.share * cost, self.shortest), max(self.longest, self.largest_share * cost))


class SaveTimer:
    """Tells when a save is due. The session that saves is its only user, and restarts it after each save.

    `_costs` are the last costs in seconds, `_saves` counts the saves, the others are monotonic times; `_final_at` is
    that of the save before the end of the machine's session, infinity if no end is known.
    """

    def __init__(self, rhythm: Rhythm) -> None:
        """Start the timer for the first save of a session that begins now."""
        self._rhythm = rhythm
        self._costs: deque[float] = deque(maxlen=_REMEMBERED)
        self._saves = 0
        self._final_at = _final_save_time()
        self._restarted_at = time.monotonic()
        self._next_at = min(self._restarted_at + rhythm.first, self._final_at)

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._next_at

    @property
    def is_affordable(self) -> bool:
        """Whether a save now would block no more of the time since the last one than `Rhythm.largest_share` allows."""
        return time.monotonic() - self._restarted_at >= self._rhythm.largest_share * min(self._costs, default=0.0)

    @property
    def remaining(self) -> float:
        """Seconds until the next save is due, at least 0. May be called by any thread."""
        return max(0.0, self._next_at - time.monotonic())

    def restart(self, cost: float | None) -> None:
        """Start the timer anew after a save that blocked the training for `cost` s; None for a save that failed."""
        if cost is not None:
            self._costs.append(cost)
        now = self._restarted_at = time.monotonic()
        self._saves += 1
        jitter = 1 - _JITTER * (self._saves * _GOLDEN % 1)
        due = now + jitter * self._rhythm.interval(min(self._costs, default=0.0))
        self._next_at = min(due, self._final_at) if now < self._final_at else due


def _final_save_time() -> float:
    """The monotonic time of a last save before the machine's session ends; infinity if no end is known."""
    left = clock.remaining()
    return math.inf if left is None else time.monotonic() + left - min(left * _FINAL_SAVE_SHARE, _FINAL_SAVE_LEAD)
