"""State that takes part in a training and that `model.variables` does not list.

Keras tracks the layers, metrics, variables and seed generators of a model, but no optimizer besides that of `compile`:
a GAN's second optimizer is a plain attribute, and so is what a callback or a data set holds. This module finds such
objects among the attributes of the model, its layers of the user's own, the callbacks and the data set: variables,
optimizers, metrics, layers and seed generators, also in lists, dicts and objects of the user's own classes. Each is
named by its path, such as `model.d_opt` or `callbacks[0].metrics["f1"]`.

An optimizer that was built after the training began is built again for the same variables before its state is restored,
and a layer from its build configuration. What cannot be restored is refused by name. A variable that no attribute leads
to (one in a closure, a global of the notebook, or a list of more than 1,000) is not found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras.src.random.seed_generator import SeedGenerator

from haversack.errors import TrainingError
from haversack.training import code_digest

# Attributes of Keras's own that lead back to the model or hold nothing of their own.
_LEFT_OUT = {"_model", "model", "params", "_tracker", "_jax_state", "_compiled_trainable_state", "_inbound_nodes"}
_LONGEST = 1000
"""Longer lists and dicts, such as the file names of a data set, are not looked through at every save."""
_HOLDERS = (keras.Variable, keras.optimizers.Optimizer, keras.metrics.Metric, keras.layers.Layer, SeedGenerator)


def capture(model: Any, others: list[Any]) -> list[dict[str, Any]]:
    """Return the state that `model` does not list, as a tree for a checkpoint: one dict for each object.

    `others` are the callbacks and data sets. Call it between two steps; the caller must copy the values.
    """
    known, found = _variable_ids(model), _find(model, others)
    pool = _pool(model, found)
    captured = []
    for path, holder in found.items():
        values = [one.value for one in _variables(holder) if id(one) not in known]
        if values:
            captured.append({"path": path, "values": values, "built": _how_built(holder, pool)})
    return captured


def restore(model: Any, others: list[Any], captured: list[dict[str, Any]]) -> None:
    """Set the state that `capture` returned in this or an earlier session.

    Raises `TrainingError` if an object is not there any more, or cannot be built as it was.
    """
    # Layers come first: optimizers may be built for their variables.
    for one in sorted(captured, key=lambda one: isinstance(one["built"], list)):
        found = _find(model, others)
        if one["path"] not in found:
            raise _refused(one["path"], "is not there")
        holder = found[one["path"]]
        _build(holder, one, _pool(model, found))
        _assign(holder, one, _variable_ids(model))


def _find(model: Any, others: list[Any]) -> dict[str, Any]:
    """The objects with variables of their own by path, those that the model lists included."""
    seen: set[int] = {id(model), id(model.optimizer)}
    found = dict(_walk_attributes(model, "model", seen))
    for index, layer in enumerate(model._flatten_layers(include_self=False)):
        if code_digest.is_own(type(layer)):
            found |= dict(_walk_attributes(layer, f"layers[{index}]", seen))
    for index, other in enumerate(others):
        found |= dict(_walk_attributes(other, f"{type(other).__name__}[{index}]", seen))
    return found


def _walk_attributes(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    for name, one in list(vars(value).items()):
        if name not in _LEFT_OUT:
            yield from _walk(one, f"{path}.{name}", seen)


def _walk(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if value is None or isinstance(value, (bool, int, float, str, bytes, np.ndarray)) or id(value) in seen:
        return
    if isinstance(value, (list, tuple, Mapping)) and len(value) > _LONGEST:
        return
    if isinstance(value, _HOLDERS):
        seen.add(id(value))
        yield path, value
    elif isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            yield from _walk(one, f"{path}[{index}]", seen)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            if isinstance(key, (str, int)):
                yield from _walk(one, f"{path}[{key!r}]", seen)
    elif code_digest.is_own(type(value)) and hasattr(value, "__dict__"):
        seen.add(id(value))
        yield from _walk_attributes(value, path, seen)


def _variables(holder: Any) -> list[Any]:
    if isinstance(holder, keras.Variable):
        return [holder]
    return [holder.state] if isinstance(holder, SeedGenerator) else list(holder.variables)


def _variable_ids(model: Any) -> set[int]:
    listed = (model.variables, model.optimizer.variables, model.metrics_variables)
    return {id(variable) for variables in listed for variable in variables}


def _pool(model: Any, found: dict[str, Any]) -> list[Any]:
    """All variables that an optimizer may be built for, in an order that is the same in each session."""
    pool = list(model.variables)
    for holder in found.values():
        if not isinstance(holder, (keras.optimizers.Optimizer, SeedGenerator)):
            pool += _variables(holder)
    return list({id(variable): variable for variable in pool}.values())


def _how_built(holder: Any, pool: list[Any]) -> Any:
    """How to build `holder`: an optimizer by its variables' places in `pool`, a layer by its configuration as JSON."""
    if isinstance(holder, keras.optimizers.Optimizer) and holder.built:
        places = {id(variable): index for index, variable in enumerate(pool)}
        return [places.get(id(variable), -1) for variable in holder._trainable_variables]
    if isinstance(holder, keras.layers.Layer) and holder.built:
        try:
            return json.dumps(holder.get_build_config())
        except Exception:  # noqa: BLE001 - users' layers may raise anything; then the user builds it
            return None
    return None


def _build(holder: Any, captured: dict[str, Any], pool: list[Any]) -> None:
    """Build `holder` as it was, if it was built and is not now. Raises `TrainingError`."""
    how = captured["built"]
    if how is None or getattr(holder, "built", True):
        return
    if isinstance(how, list):
        if not all(0 <= index < len(pool) for index in how):
            raise _refused(captured["path"], "was built for variables that no attribute of the model leads to")
        holder.build([pool[index] for index in how])
    else:
        holder.build_from_config(json.loads(how))


def _assign(holder: Any, captured: dict[str, Any], known: set[int]) -> None:
    variables = [one for one in _variables(holder) if id(one) not in known]
    shapes = [tuple(value.shape) for value in captured["values"]]
    if [tuple(variable.shape) for variable in variables] != shapes:
        raise _refused(captured["path"], f"has {len(variables)} variables instead of {len(shapes)}, or of other shapes")
    for variable, value in zip(variables, captured["values"], strict=True):
        variable.assign(value)


def _refused(path: str, reason: str) -> TrainingError:
    return TrainingError(
        f"The run's checkpoint has the state of {path}, which {reason}.",
        "Make it before the training as it was then, or begin again with restart=True.",
    )
