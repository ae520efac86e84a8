"""The state that a functional training step returns anew: a pytree, as in JAX, that the loop holds for the user.

    run = haversack.resumable(batches, name="digits", state=(parameters, moments))
    for epoch in run.epochs(10):
        for x, y in run:
            run.state = step(run.state, x, y)

With JAX a pytree has leaves and a structure. Only leaves are saved; the structure, with the functions that it may hold
(flax's `TrainState`), is that of this session's first state. Arrays get the device and sharding of their counterpart in
it. Without JAX, nested dicts, lists and tuples of numpy arrays and plain values can be held.
"""

from __future__ import annotations

import sys
from typing import Any

from haversack.errors import TrainingError
from haversack.training.checkpoints import snapshot
from haversack.training.part import Part


class HeldState:
    """Holds the state; `value` is the current one, which the user's loop assigns through `ResumableLoop.state`."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def part(self) -> Part:
        return Part("state", self._capture, self._restore, self._is_finite)

    def _is_finite(self) -> bool:
        """Whether no array of JAX has NaN. Infinity is allowed: it is what a smallest loss begins with."""
        jax = sys.modules.get("jax")
        if jax is None:
            return True
        floats = [
            leaf
            for leaf in jax.tree_util.tree_leaves(self.value)
            if isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
        ]
        return not any(bool(jax.numpy.isnan(leaf).any()) for leaf in floats)

    def _capture(self) -> Any:
        jax = sys.modules.get("jax")
        return self.value if jax is None else jax.tree_util.tree_leaves(self.value)

    def _restore(self, saved: Any) -> list[str]:
        jax = sys.modules.get("jax")
        if jax is None:
            self.value = snapshot.convert(saved, self.value, "state")
            return []
        likes, structure = jax.tree_util.tree_flatten(self.value)
        if len(likes) != len(saved):
            raise TrainingError(
                f"The state has {len(likes)} leaves, and began with {len(saved)}.",
                "Give this training another name, or begin again with restart=True, which renames the old run.",
            )
        self.value = structure.unflatten(snapshot.convert(saved, likes, "state"))
        return []
