"""The facts of a run's checkpoints that the next session compares: what must not change, and what the user hears of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from haversack.errors import TrainingError
from haversack.training.console import print_line

_FIXED = {"data": "data", "parts": "objects"}


def refusal(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> TrainingError | None:
    """Return the error for other data or objects than those of the run `name`; None if they are the same."""
    for what, words in _FIXED.items():
        if changed := differences(before[what], now[what]):
            return TrainingError(
                f"The run {name} began with other {words}: {'; '.join(changed)}.",
                "Give this training another name, or begin again with restart=True, which renames the old run.",
            )
    return None


def report_changes(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Print what else is different: the settings and the machine, which decide the last digits only."""
    changed = [change for what in ("settings", "machine") for change in differences(before[what], now[what])]
    if changed:
        print_line(
            f"{name}: the order of the data and the random streams are unchanged; the last digits may differ, because "
            f"of {'; '.join(changed)}"
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two facts of one kind, in words."""
    return [
        f"{key} {before.get(key, 'none')}, now {now.get(key, 'none')}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]
