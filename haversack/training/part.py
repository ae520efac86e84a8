"""One object of a training that a checkpoint holds: a model, an optimizer, a random stream, a dict of counters.

A checkpoint of a loop is a dict of parts. Each part knows how to read its object's state as a tree and how to set it,
in place, so that whatever else refers to the object (an optimizer to its model's parameters, a scheduler to its
optimizer) still refers to it. The kinds of parts are in `loops.parts`, and those of PyTorch in the room `torch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Part:
    """The state of one object.

    Attributes:
        kind: the object's class, for people and to compare with that of the checkpoint.
        capture: returns the state between two steps as a tree that `Checkpoints` saves. Its arrays may be the object's
            own, since they are copied before the next step.
        restore: sets the state, in place, to a tree that `capture` returned in this or an earlier session; arrays in it
            are numpy's. Returns lines for the user about what it did not restore. Raises `TrainingError` if the tree
            does not fit the object.
        is_finite: whether the numbers that are trained are free of NaN and infinity.
    """

    kind: str
    capture: Callable[[], Any]
    restore: Callable[[Any], list[str]]
    is_finite: Callable[[], bool] = lambda: True


def capture_all(parts: Mapping[str, Part]) -> dict[str, Any]:
    """Return the state of each part by its name."""
    return {name: part.capture() for name, part in parts.items()}


def restore_all(parts: Mapping[str, Part], saved: Mapping[str, Any]) -> list[str]:
    """Restore each part that `saved` has; return the lines of all, each after the part's name."""
    return [f"{name}: {line}" for name, part in parts.items() if name in saved for line in part.restore(saved[name])]


def same(one: Any, other: Any) -> bool:
    """Whether two states that `capture_all` returned are equal."""
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "shape"):
        return np.array_equal(np.asarray(one), np.asarray(other))
    return bool(one == other)
