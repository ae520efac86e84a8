"""What `haversack env show` prints of a notebook's requirements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from haversack.errors import InputError
from haversack.packages.lock import Lock
from haversack.packages.requirements import Requirements


def as_json(found: Requirements, lock: Lock | None = None) -> dict[str, Any]:
    """Return `found` as JSON values, with `problem`: the message of `Requirements.check`, or "".

    `locked` has the name and version of every package in `lock`; None without one.
    """
    modules = [{**asdict(module), "missing": module.missing} for module in found.modules]
    return {**asdict(found), "modules": modules, "problem": problem(found), "locked": lock and lock.packages}


def as_text(found: Requirements, lock: Lock | None = None) -> str:
    """Return `found` as the lines of a report, with its `lock`, if there is one, and what is missing at its end."""
    modules = [(one.name, f"{_MARKS.get(one.state, '')}{one.why}", _where(one.cells)) for one in found.modules]
    wanted = [(one.text, one.why) for one in found.requirements]
    own = [
        (one.requirement, _where((one.cell,)) + ("" if one.certain else ", if it runs")) for one in found.installations
    ]
    parts = [
        _part("It imports", modules) or "It imports nothing but Python's standard library.",
        _part("It needs these packages, less those that its own pip cells install", wanted),
        _part("Its own pip cells install", own),
        _part("Options of its requirements.txt", [(option,) for option in found.options]),
        f"It asks for Python {found.python}." if found.python else "",
        "It carries a lock (uv.lock), which has the versions." if found.lock else "",
        _part(f"It is locked, for Python {lock.python}", sorted(lock.packages.items())) if lock else "",
        problem(found),
    ]
    return "\n\n".join(part for part in parts if part)


def problem(found: Requirements) -> str:
    """Return the message of the error that `found.check()` raises; "" if it raises none."""
    try:
        found.check()
    except InputError as error:
        return str(error)
    return ""


_MARKS = {"unknown": "unknown: ", "maybe": "unknown: "}


def _where(cells: Iterable[int]) -> str:
    numbers = [str(cell) for cell in cells]
    return f"cell{'s' if numbers[1:] else ''} {', '.join(numbers)}"


def _part(title: str, rows: Sequence[tuple[str, ...]]) -> str:
    """A title and the rows below it, as columns; "" without rows."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    shown = ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([f"{title}:", *shown])
