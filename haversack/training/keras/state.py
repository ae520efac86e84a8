"""All that a training is, as one tree, and back: the model's variables, the random streams, what callbacks remember.

In Keras on JAX the variables hold nothing while an epoch runs: their values travel through the compiled step, which
takes its arguments' memory for its results (donation). Between two steps the trainer keeps the latest in `_jax_state`;
outside of that the variables hold them. `values` reads whichever is true, at no cost; what it returns must be copied
before the next step runs. Seed generators, the optimizer's moments, accumulated gradients, moving averages, the loss
scale and the metrics are all variables, and therefore here; the one global seed generator belongs to no model.

Variables are matched by their order and shape, never by their names, which Keras counts up within a process.
"""

from __future__ import annotations

import json
import random
from typing import Any

import jax
import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random import seed_generator

from haversack.training.keras.attributes import decode, encode

WEIGHTS = ("trainable_variables", "non_trainable_variables")
OPTIMIZER = ("optimizer_variables",)
_GROUPS = (*WEIGHTS, *OPTIMIZER, "metrics_variables")
_GLOBAL_SEED = "global_seed_generator"


def values(model: Any) -> dict[str, list[Any]]:
    """The value of every variable of a compiled, built `model` between two steps, by Keras's groups, in their order."""
    travelling = getattr(model, "_jax_state", None)
    if travelling and not model._jax_state_synced:
        return {group: list(travelling[group]) for group in _GROUPS}
    return {group: [variable.value for variable in _variables(model, group)] for group in _GROUPS}


def assign(model: Any, saved: dict[str, list[Any]], groups: tuple[str, ...] = _GROUPS) -> None:
    """Give `model`'s variables the values that `values` returned, each in memory of its own, laid out as it is here.

    Raises `ValueError` when they are others, by their number or shapes.
    """
    for group in groups:
        variables = _variables(model, group)
        if len(variables) != len(saved[group]):
            raise ValueError(f"{len(variables)} {group.replace('_', ' ')} and not {len(saved[group])}")
        for variable, value in zip(variables, saved[group], strict=True):
            if tuple(variable.shape) != tuple(value.shape):
                raise ValueError(f"{variable.path} is of shape {variable.shape} and not {value.shape}")
            variable.assign(jax.numpy.array(value))


def unshare(model: Any) -> None:
    """Give each variable memory of its own.

    After a training with moving averages Keras leaves weights and averages in the same memory; the next training's
    first step would be asked to take it twice, and refuse.
    """
    seen: set[int] = set()
    for variable in (variable for group in _GROUPS for variable in _variables(model, group)):
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


def architecture(model: Any) -> np.ndarray[Any, Any] | None:
    """The configuration of `model` as JSON in a uint8 array, as Keras writes it into a `.keras` file.

    None if the model cannot be serialized: it needs no configuration to be trained.
    """
    try:
        text = json.dumps(keras.saving.serialize_keras_object(model))
    except Exception:  # noqa: BLE001 - users' layers may raise anything
        return None
    return np.frombuffer(text.encode(), np.uint8)


def _variables(model: Any, group: str) -> list[Any]:
    return list(model.optimizer.variables if group in OPTIMIZER else getattr(model, group))
