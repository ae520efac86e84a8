"""When this session ends, and why: the limit of the place (Colab, Kaggle) or of the job that runs here.

A session here is the time for which a notebook's machine, or a job's kernel, is lent. Colab and Kaggle end it after a
fixed time, whatever runs in it, and do not tell the code how much is left. So it is counted from the start of the
machine's first process. `haversack run --session` ends its sessions in the same way; it sets `HAVERSACK_SESSION_ENDS`
(seconds since 1970), which takes precedence over all else. `HAVERSACK_SESSION_LIMIT` (such as `9h`) overrides the table
`LIMITS`, whose figures are the published ones and change with plans and accelerators.

Ends for other reasons are not known in advance: idleness, a quota that is used up, a lack of machines.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from haversack import place
from haversack.errors import InputError

# The longest session in seconds. Colab: research.google.com/colaboratory/faq.html; Kaggle: kaggle.com/docs/notebooks.
LIMITS: dict[place.Place, float] = {"colab": 12 * 3600, "kaggle": 12 * 3600}

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")


@dataclass(frozen=True)
class SessionEnd:
    """The end of this session.

    Attributes:
        at: when it ends, in seconds since 1970.
        by: the limit that ends it, for people, such as "Colab's limit of 12 h".
    """

    at: float
    by: str

    @property
    def remaining(self) -> float:
        """Seconds until the end, at least 0."""
        return max(0.0, self.at - time.time())

    def __str__(self) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.at))
        return f"This session ends in {words(self.remaining)}, at {at}, by {self.by}."


def end() -> SessionEnd | None:
    """Return when this session ends and why, from the sources that the module lists; None if no limit is known.

    Raises `InputError` if `HAVERSACK_SESSION_ENDS` or `HAVERSACK_SESSION_LIMIT` cannot be parsed.
    """
    if deadline := os.environ.get("HAVERSACK_SESSION_ENDS"):
        try:
            return SessionEnd(float(deadline), "the limit of `haversack run --session`")
        except ValueError:
            raise InputError(
                f"HAVERSACK_SESSION_ENDS is {deadline!r}, which is not a time.", "Set it in seconds since 1970."
            ) from None
    where = place.here()
    if limit := os.environ.get("HAVERSACK_SESSION_LIMIT"):
        return SessionEnd(_machine_start() + seconds(limit), f"HAVERSACK_SESSION_LIMIT={limit}")
    if where not in LIMITS:
        return None
    return SessionEnd(_machine_start() + LIMITS[where], f"{where.capitalize()}'s limit of {words(LIMITS[where])}")


def remaining() -> float | None:
    """Return the seconds until this session ends, at least 0; None if no end is known.

    Raises `InputError` if `HAVERSACK_SESSION_ENDS` or `HAVERSACK_SESSION_LIMIT` cannot be parsed.
    """
    found = end()
    return None if found is None else found.remaining


def seconds(text: str) -> float:
    """Parse a duration such as `60s`, `1.5h`, `2d` or `1h30m` (s, m, h, d); return it in seconds.

    Raises `InputError` for any other text and for a duration of 0.
    """
    text = text.strip().lower()
    amount = 0.0
    if _DURATION.fullmatch(text):
        amount = sum(float(part[:-1]) * _UNITS[part[-1]] for part in re.findall(r"[\d.]+[smhd]", text))
    if amount <= 0:
        raise InputError(f"{text!r} is not a duration.", "Write it with its unit, for example 60s, 30m, 12h or 1h30m.")
    return amount


def words(duration: float) -> str:
    """Format a duration in seconds for people: "0.5 s", "1 min 30 s", "2 h 5 min"."""
    whole = round(duration)
    if whole < 60:
        return f"{whole} s" if duration >= 1 or not duration else f"{duration:.1f} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def _machine_start() -> float:
    """When this machine's or container's first process started, in seconds since 1970; now if that cannot be read."""
    try:
        # Field 22 is the start in ticks after boot (proc(5)). The process name before it may contain spaces and
        # parentheses, so fields are counted from the last ")".
        ticks = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return time.time()
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
