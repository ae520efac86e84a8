"""What ends this session and when: the place's own limit, or that of the job that runs here.

Colab and Kaggle end a session after a fixed time, whatever runs. Nobody tells the code how much of it is left, so it is
counted from the start of the machine's first process. `haversack run --session` ends its sessions in the same way and
says when in `HAVERSACK_SESSION_ENDS` (seconds since 1970), which comes first. `HAVERSACK_SESSION_LIMIT` (`9h`) stands
in for the table, whose figures are the places' published ones and change with plans and accelerators.

It does not know of sessions that a place ends for other reasons: idleness, a used-up quota, lack of machines.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from haversack import place
from haversack.errors import InputError

# Longest sessions in seconds. Colab: research.google.com/colaboratory/faq.html; Kaggle: kaggle.com/docs/notebooks.
LIMITS: dict[place.Place, float] = {"colab": 12 * 3600, "kaggle": 12 * 3600}

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")


@dataclass(frozen=True)
class SessionEnd:
    """The end of this session: `at` in seconds since 1970, and what brings it about."""

    at: float
    by: str

    @property
    def remaining(self) -> float:
        """Seconds until then, never below 0."""
        return max(0.0, self.at - time.time())

    def __str__(self) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.at))
        return f"This session ends in {words(self.remaining)}, at {at}, by {self.by}."


def end() -> SessionEnd | None:
    """What ends this session; None where nothing is known to.

    Raises `InputError` when `HAVERSACK_SESSION_ENDS` or `HAVERSACK_SESSION_LIMIT` cannot be read.
    """
    if told := os.environ.get("HAVERSACK_SESSION_ENDS"):
        try:
            return SessionEnd(float(told), "the limit of `haversack run --session`")
        except ValueError:
            raise InputError(
                f"HAVERSACK_SESSION_ENDS is {told!r}, which is no time.", "It is in seconds since 1970."
            ) from None
    where = place.here()
    if own := os.environ.get("HAVERSACK_SESSION_LIMIT"):
        return SessionEnd(_machine_began() + seconds(own), f"HAVERSACK_SESSION_LIMIT={own}")
    if where not in LIMITS:
        return None
    return SessionEnd(_machine_began() + LIMITS[where], f"{where.capitalize()}'s limit of {words(LIMITS[where])}")


def remaining() -> float | None:
    """Seconds until this session is ended; None where nothing is known to end it. Raises like `end`."""
    found = end()
    return None if found is None else found.remaining


def seconds(text: str) -> float:
    """A duration such as `60s`, `30m`, `12h` or `1h30m` in seconds. Raises `InputError` for anything else and for 0."""
    text = text.strip().lower()
    amount = 0.0
    if _DURATION.fullmatch(text):
        amount = sum(float(part[:-1]) * _UNITS[part[-1]] for part in re.findall(r"[\d.]+[smhd]", text))
    if amount <= 0:
        raise InputError(f"{text!r} is no duration.", "Write it with its unit, for example 60s, 30m, 12h or 1h30m.")
    return amount


def words(duration: float) -> str:
    """A duration in seconds as people read it."""
    whole = round(duration)
    if whole < 60:
        return f"{whole} s" if duration >= 1 or not duration else f"{duration:.1f} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def _machine_began() -> float:
    """When the first process of this machine or container started, in seconds since 1970; now where nobody says."""
    try:
        # Field 22 counts ticks since the boot (proc(5)); the name before it may hold anything, so it is cut off.
        ticks = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return time.time()
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
