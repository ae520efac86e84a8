"""All that a training is, as one tree, and back: the model's variables, the random streams, what callbacks remember.

In Keras on JAX the variables hold nothing while an epoch runs: their values travel through the compiled step, which
takes its arguments' memory for its results (donation). Between two steps the trainer keeps the latest in `_jax_state`;
outside of that the variables hold them. `values` reads whichever is true, at no cost; what it returns must be copied
before the next step runs. Seed generators, the optimizer's moments, accumulated gradients, moving averages, the loss
scale and the metrics are all variables, and therefore here; the one global seed generator belongs to no model.

Variables are matched by their order and shape, never by their names, which Keras counts up within a process.
"""

from __future__ import annotations

import random
from typing import Any

import jax
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random import seed_generator

from haversack.training.memory import decode, encode

_GROUPS = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")
_GLOBAL_SEED = "global_seed_generator"


def values(model: Any) -> dict[str, list[Any]]:
    """The value of every variable of a compiled, built `model` between two steps, by Keras's groups, in their order."""
    travelling = getattr(model, "_jax_state", None)
    if travelling and not model._jax_state_synced:
        return {group: list(travelling[group]) for group in _GROUPS}
    return {group: [variable.value for variable in variables] for group, variables in _variables(model).items()}


def assign(model: Any, saved: dict[str, list[Any]]) -> None:
    """Give `model`'s variables the values that `values` returned, each in memory of its own, laid out as it is here."""
    for group, variables in _variables(model).items():
        for variable, value in zip(variables, saved[group], strict=True):
            variable.assign(jax.numpy.array(value))


def unshare(model: Any) -> None:
    """Give each variable memory of its own.

    After a training with moving averages Keras leaves weights and averages in the same memory; the next training's
    first step would be asked to take it twice, and refuse.
    """
    seen: set[int] = set()
    for variable in (variable for group in _variables(model).values() for variable in group):
        if id(variable.value) in seen:
            variable.assign(jax.numpy.array(variable.value))
        seen.add(id(variable.value))


def streams() -> dict[str, Any]:
    """The random streams that belong to no model: Keras's global one, numpy's and Python's."""
    shared = global_state.get_global_attribute(_GLOBAL_SEED)
    return {
        "keras": None if shared is None else np.array(shared.state.value),
        "numpy": encode(np.random.get_state(legacy=False)),
        "python": encode(random.getstate()),
    }


def put_back_streams(saved: dict[str, Any]) -> None:
    """Let the random streams go on where `streams` saw them."""
    if saved["keras"] is not None:
        seed_generator.global_seed_generator().state.assign(jax.numpy.array(saved["keras"]))
    # Only now: making the global seed generator draws from Python's stream.
    np.random.set_state(decode(saved["numpy"]))
    random.setstate(decode(saved["python"]))


def _variables(model: Any) -> dict[str, list[Any]]:
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    return dict(zip(_GROUPS, groups, strict=True))
