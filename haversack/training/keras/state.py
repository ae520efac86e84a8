"""The state of a training as a tree, captured and restored: model variables and random streams.

In Keras on JAX the variables are empty while an epoch runs: their values pass through the compiled step, which reuses
its arguments' memory for its results (donation). Between two steps the trainer holds the current values in
`_jax_state`; at all other times the variables hold them. `values` reads whichever is current, without a copy, so the
caller must copy what it returns before the next step runs.

Seed generators, the optimizer's learning rate and moments, accumulated gradients, moving averages, the loss scale and
the metrics are all variables of the model, and therefore included. The global seed generator belongs to no model;
`streams` captures it.

Variables are matched by order and shape. Their names do not serve: Keras numbers them per process.
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
    """Return the value of every variable of a compiled, built `model`, as lists of JAX arrays by group.

    The groups are `trainable_variables`, `non_trainable_variables`, `optimizer_variables` and `metrics_variables`. Call
    it between two steps or outside of `fit`, and copy the arrays before the next step, which reuses their memory.
    """
    in_flight = getattr(model, "_jax_state", None)
    if in_flight and not model._jax_state_synced:
        return {group: list(in_flight[group]) for group in _GROUPS}
    return {group: [variable.value for variable in _variables(model, group)] for group in _GROUPS}


def largest_weight(model: Any) -> float:
    """Return the largest absolute value of the trainable weights of `model`; NaN if one is NaN.

    Call it where `values` may be called.
    """
    return float(np.max([0.0, *map(_largest, values(model)["trainable_variables"])]))


def _largest(value: Any) -> float:
    """The largest absolute value in a JAX array; on the CPU without a copy, elsewhere computed on the device."""
    if not jax.numpy.issubdtype(value.dtype, jax.numpy.floating) or not value.size:
        return 0.0
    shards = value.addressable_shards
    parts = [shard.data for shard in (shards[:1] if value.is_fully_replicated else shards)]
    if value.dtype not in (np.float32, np.float64) or any(device.platform != "cpu" for device in value.devices()):
        return float(np.max([jax.numpy.abs(part).max() for part in parts]))
    return float(np.max([(-np.min(part), np.max(part)) for part in map(np.asarray, parts)]))


def assign(model: Any, saved: dict[str, list[Any]], groups: tuple[str, ...] = _GROUPS) -> None:
    """Set the variables of `groups`, by default of all, to copies of what `values` returned, in their own sharding.

    Raises `ValueError` if the number of variables or a shape differs.
    """
    for group in groups:
        variables = _variables(model, group)
        if len(variables) != len(saved[group]):
            raise ValueError(f"{len(variables)} {group.replace('_', ' ')} instead of {len(saved[group])}")
        for variable, value in zip(variables, saved[group], strict=True):
            if tuple(variable.shape) != tuple(value.shape):
                raise ValueError(f"{variable.path} has shape {variable.shape} instead of {value.shape}")
            variable.assign(jax.numpy.array(value))


def unshare(model: Any) -> None:
    """Copy the values that several variables of `model` share, so that each variable has memory of its own.

    After a training with moving averages, Keras leaves weights and averages in the same arrays. The first step of the
    next training would donate such an array twice, which JAX refuses.
    """
    seen: set[int] = set()
    for variable in (variable for group in _GROUPS for variable in _variables(model, group)):
        if id(variable.value) in seen:
            variable.assign(jax.numpy.array(variable.value))
        seen.add(id(variable.value))


def streams() -> dict[str, Any]:
    """Return the state of the random streams that belong to no model: Keras's global one, numpy's and Python's."""
    shared = global_state.get_global_attribute(_GLOBAL_SEED)
    return {
        "keras": None if shared is None else np.array(shared.state.value),
        "numpy": encode(np.random.get_state(legacy=False)),
        "python": encode(random.getstate()),
    }


def restore_streams(saved: dict[str, Any]) -> None:
    """Set the random streams to the state that `streams` returned in this or an earlier session."""
    if saved["keras"] is not None:
        seed_generator.global_seed_generator().state.assign(jax.numpy.array(saved["keras"]))
    # After Keras's: creating the global seed generator draws from Python's stream.
    np.random.set_state(decode(saved["numpy"]))
    random.setstate(decode(saved["python"]))


def architecture(model: Any) -> np.ndarray[Any, Any] | None:
    """Return the configuration of `model` as UTF-8 JSON in a uint8 array, as Keras writes it into a `.keras` file.

    None if the model cannot be serialized: training does not need the configuration.
    """
    try:
        text = json.dumps(keras.saving.serialize_keras_object(model))
    except Exception:  # noqa: BLE001 - users' layers may raise anything
        return None
    return np.frombuffer(text.encode(), np.uint8)


def _variables(model: Any, group: str) -> list[Any]:
    return list(model.optimizer.variables if group in OPTIMIZER else getattr(model, group))
