"""What a training depends on besides its data and weights, as JSON: compilation, learning rate, validation and code.

A checkpoint records it. A session that resumes the run compares, so that no change in the notebook is silent:

============================================  ===================================================================
what the code says otherwise                  what happens
============================================  ===================================================================
loss, loss weights, metrics                   refused: history and loss would be of two kinds
the code of a custom layer, model, loss,      refused: the weights were trained with other code
activation or data set; a Lambda's function;
settings of a layer
learning rate, schedule, other settings of    put in force, and printed. A learning rate that a callback has moved
the optimizer                                 stays as it is, unless the code begins with another one now
validation data and its options               used, and printed
============================================  ===================================================================

An optimizer of another class, or with settings that need other variables, is another model: `fingerprint` refuses it.
A checkpoint of an earlier version of haversack lacks some of these facts; what it lacks is not compared.
"""

from __future__ import annotations

import hashlib
import math
import sys
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

from haversack.training import code_digest
from haversack.training.keras import fingerprint
from haversack.training.keras.data_kinds import kind_of

# Keys of configurations that differ from process to process, or that are compared elsewhere. The layers of a nested
# model are compared one by one.
_LEFT_OUT = {"name", "seed", "learning_rate", "registered_name", "module", "layers", "build_config", "compile_config"}
# Methods by which a layer, a model or a data set of the user's own takes part in a training.
_LAYER_METHODS = ("call",)
_MODEL_METHODS = ("call", "train_step", "test_step", "compute_loss", "compute_metrics")
_DATA_METHODS = ("__getitem__", "__len__", "on_epoch_begin", "on_epoch_end")
# Longer lists, such as a vocabulary, are compared by their number and hash.
_LONGEST_LIST = 64
_rates: weakref.WeakKeyDictionary[Any, tuple[Any, Any]] = weakref.WeakKeyDictionary()
"""By optimizer: the learning rate that the code gave it, and the one that the last training of this process left."""


def of_compilation(model: Any) -> dict[str, Any]:
    """Return what `model.compile` was given as loss and metrics; {} if this version of Keras does not tell."""
    given = getattr(getattr(model, "_compile_config", None), "config", {})
    losses = keras.tree.map_structure(_named_loss, given.get("loss"), none_is_leaf=True)
    return {
        "loss": describe(losses),
        "loss_weights": describe(given.get("loss_weights")),
        **{name: describe(given.get(name), named=True) for name in ("metrics", "weighted_metrics")},
    }


def of_optimizer(optimizer: Any) -> dict[str, Any]:
    """Return class and settings of `optimizer`, except its learning rate."""
    return {"class": type(optimizer).__name__, **describe(_configuration(optimizer))}


def of_rate(optimizer: Any) -> dict[str, Any]:
    """Return the learning rate that the code gave to `optimizer`: a schedule's settings, or a "value".

    A value comes with "index", that of its variable among the optimizer's variables. If a training of this process
    moved the value and nobody has set it since, it is the value from before that training.
    """
    rate = _rate(optimizer)
    if not isinstance(rate, keras.Variable):
        return {"schedule": describe(rate)}
    value = _number(rate)
    given, left = _rates.get(optimizer, (value, None))
    index = next((index for index, one in enumerate(optimizer.variables) if one is rate), None)
    return {"value": given if value == left else value, "index": index}


def set_rate(optimizer: Any, value: float) -> None:
    """Set the learning rate of `optimizer`, which has none of a schedule."""
    _rate(optimizer).assign(value)


def remember_rate(optimizer: Any, facts: Mapping[str, Any]) -> None:
    """Note the learning rate with which a training ends, that began with `facts`, a result of `of_rate`.

    Does nothing after an error in a compiled step, which leaves the variables without values.
    """
    rate = _rate(optimizer)
    if isinstance(rate, keras.Variable) and rate._value is not None:
        _rates[optimizer] = (facts.get("value"), _number(rate))


def of_validation(data: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a training validates on; arrays by their sketch. `options` are those of `fit` by name."""
    names = ("validation_steps", "validation_batch_size", "validation_freq")
    return {"data": _sketch(data), **{name: describe(options[name]) for name in names}}


def of_code(model: Any, data_set: Any) -> dict[str, Any]:
    """Return the digests of the user's code in the built `model` and in `data_set` (None for arrays), by name.

    Also the settings of layers that are not plain values, such as regularizers.
    """
    layers = {f"layers[{index}] {type(one).__name__}": one for index, one in enumerate(_layers(model))}
    digests: dict[str, str] = {}
    for name, layer in layers.items():
        digests |= _method_digests(name, layer, _LAYER_METHODS) | _attribute_digests(name, layer)
    digests |= _method_digests(f"model {type(model).__name__}", model, _MODEL_METHODS)
    if data_set is not None:
        digests |= _method_digests(f"data set {type(data_set).__name__}", data_set, _DATA_METHODS)
    settings = {name: _nested_settings(layer) for name, layer in layers.items()}
    return {"python": _python(), "digests": digests, "settings": {name: one for name, one in settings.items() if one}}


def describe(value: Any, *, named: bool = False) -> Any:
    """Return `value` as JSON without what differs from process to process.

    Functions and objects of the user's own come with a digest of their code. `named` says that the names of objects
    matter, as those of metrics, which name columns of the history.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, Mapping):
        return _describe_mapping(value, named)
    if isinstance(value, (list, tuple, set, frozenset)):
        return _describe_list([*value], named)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _sketch(value)
    if callable(value) and (hasattr(value, "__qualname__") or isinstance(value, partial)):
        return _describe_function(value)
    return _describe_object(value, named)


@dataclass(frozen=True)
class CodeChanges:
    """What the code says otherwise than in the session before, and that is put in force.

    Attributes:
        optimizer: each change of the optimizer's settings in words, such as "learning rate 0.01 → 0.0001".
        validation: each change of what is validated on, in words.
        rate: the learning rate to set after the state is restored; None to leave the restored one.
    """

    optimizer: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    rate: float | None = None

    def __str__(self) -> str:
        return "; ".join((*self.optimizer, *self.validation))


def changes(before: Mapping[str, Any], now: Mapping[str, Any], variables: list[Any]) -> CodeChanges:
    """Return the changes between the facts of a checkpoint and those of this session that are put in force.

    `variables` are the values of the optimizer's variables in the checkpoint.
    """
    optimizer, rate = _changed_rate(before.get("rate", {}), now["rate"], variables)
    if "optimizer" in before and before["optimizer"]["class"] == now["optimizer"]["class"]:
        settings = _changed(before["optimizer"], now["optimizer"])
        optimizer += _in_words(settings, " → ")
    validation = fingerprint.differences(before["validation"], now["validation"]) if "validation" in before else []
    return CodeChanges(tuple(optimizer), tuple(f"validation {one}" for one in validation), rate)


def differences(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe what must not change and differs between the facts of a checkpoint and those of this session.

    `what` is "data", "model", "compilation" or "code". What the checkpoint does not have is not compared.
    """
    old, new = before.get(what), now.get(what)
    if old is None or new is None:
        return []
    if what == "data":
        return fingerprint.differences(old, new)
    if what == "model":
        return _differences_of_models(before, now)
    found = _in_words(_changed(*(facts["settings"] if what == "code" else facts for facts in (old, new))), ", now ")
    if what == "code" and old["python"] == new["python"]:
        digests = {**old["digests"], **new["digests"]}
        found += [f"other code in {name}" for name in digests if old["digests"].get(name) != new["digests"].get(name)]
    return found


def _differences_of_models(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs in the models; settings of an optimizer do not, if it has the same class and variables."""
    old, new = dict(before["model"]), dict(now["model"])
    if "rate" in before:
        for model, facts in ((old, before), (new, now)):
            model["optimizer variables"] = without_rate(model["optimizer variables"], facts["rate"])
    same = old["optimizer"].get("class") == new["optimizer"].get("class")
    if same and old["optimizer variables"] == new["optimizer variables"]:
        old["optimizer"] = new["optimizer"]
    elif old["optimizer"] != new["optimizer"]:
        old["optimizer variables"] = new["optimizer variables"]  # the settings tell why they differ
    return fingerprint.differences(old, new)


def without_rate(values: list[Any], rate: Mapping[str, Any]) -> list[Any]:
    """Return a list that has an entry for each variable of an optimizer, without that of its learning rate."""
    index = rate.get("index")
    return values if index is None else [*values[:index], *values[index + 1 :]]


def with_rate_of(values: list[Any], before: Mapping[str, Any], now: Mapping[str, Any], optimizer: Any) -> list[Any]:
    """Return saved `values` of an optimizer's variables in the order of `optimizer`.

    A float and a schedule differ by one variable, that of the learning rate; `before` and `now` are results of
    `of_rate`.
    """
    index = now.get("index")
    if before.get("index") == index or not before:
        return values
    kept = without_rate(values, before)
    return kept if index is None else [*kept[:index], optimizer.variables[index].value, *kept[index:]]


def _changed_rate(
    before: Mapping[str, Any], now: Mapping[str, Any], variables: list[Any]
) -> tuple[list[str], float | None]:
    """The change of the learning rate in words ([] for none), and the value to set."""
    if not before or before.get("value", now.get("schedule")) == now.get("value", before.get("schedule")):
        return [], None
    if "schedule" in before and "schedule" in now and _title(before["schedule"]) == _title(now["schedule"]):
        settings = _changed(before["schedule"], now["schedule"])
        return [f"learning rate: {one}" for one in _in_words(settings, " → ")], None
    index = before.get("index")
    old = _title(before.get("schedule") if index is None else float(variables[index]))
    return [f"learning rate {old} → {_title(now.get('schedule', now.get('value')))}"], now.get("value")


def _changed(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield the path of each difference between two descriptions, and what was and is there in a word or two.

    Digests of code of two versions of Python are not compared.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping) and _title(before) == _title(now):
        left_out = {"code", "python"} if before.get("python") != now.get("python") else set()
        for key in {**before, **now}:
            if key not in left_out and before.get(key) != now.get(key):
                yield from _changed(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            yield from _changed(*pair, f"{path}[{index}]")
    elif before != now:
        yield path, _title(before), _title(now)


def _in_words(changed: Iterator[tuple[str, str, str]], to: str) -> list[str]:
    return [
        f"other code in {path.removesuffix('.code')}" if path.endswith(".code") else f"{path} {before}{to}{now}"
        for path, before, now in changed
    ]


def _title(value: Any) -> str:
    """A description in a word or two."""
    if isinstance(value, Mapping):
        return str(value.get("function") or value.get("class") or value.get("class_name") or "")
    if isinstance(value, list):
        return f"[{', '.join(map(_title, value))}]"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _describe_mapping(value: Mapping[Any, Any], named: bool) -> Any:
    kind = value.get("class_name")
    if isinstance(kind, str) and kind.endswith("DTypePolicy"):
        return value["config"]["name"]
    if kind == "__lambda__":
        return "lambda"  # marshalled, with the name of its file; the function itself is digested
    left_out = _LEFT_OUT - {"name"} if named else _LEFT_OUT
    return {str(key): describe(one, named=named) for key, one in value.items() if key not in left_out}


def _describe_list(value: list[Any], named: bool) -> Any:
    described = [describe(one, named=named) for one in value]
    if len(value) <= _LONGEST_LIST:
        return described
    return f"{len(value)} values {hashlib.blake2b(repr(described).encode(), digest_size=8).hexdigest()}"


def _describe_function(function: Any) -> dict[str, Any]:
    name = getattr(function, "__qualname__", None) or type(function).__name__
    code = {"code": code_digest.of(function), "python": _python()} if code_digest.is_own(function) else {}
    return {"function": name, **code}


def _describe_object(value: Any, named: bool) -> dict[str, Any]:
    """An object by class and configuration; one of the user's own class with a digest of its methods."""
    found = {"class": type(value).__name__, **_describe_mapping(_configuration(value), False)}
    if named and isinstance(name := getattr(value, "name", None), str):
        found["name"] = name.rstrip("0123456789").rstrip("_") or name  # Keras numbers names per process
    if code_digest.is_own(type(value)):
        found |= {"code": code_digest.of(type(value)), "python": _python()}
    return found


def _named_loss(loss: Any) -> Any:
    """A loss that was given by name as its function: "mse" and "mean_squared_error" are one."""
    try:
        return keras.losses.get(loss) if isinstance(loss, str) else loss
    except ValueError:
        return loss  # a name that `compile` alone understands, such as "crossentropy"


def _configuration(value: Any) -> dict[str, Any]:
    try:
        return dict(value.get_config())
    except Exception:  # noqa: BLE001 - users' classes may raise anything here, and many have no configuration
        return {}


def _number(variable: Any) -> Any:
    return describe(float(np.asarray(variable.value)))


def _rate(optimizer: Any) -> Any:
    """The learning rate of `optimizer`, or of the one that it wraps: a variable, a schedule or a function."""
    return getattr(getattr(optimizer, "inner_optimizer", optimizer), "_learning_rate", None)


def _layers(model: Any) -> list[Any]:
    return list(model._flatten_layers(include_self=False))


def _nested_settings(layer: Any) -> dict[str, Any]:
    """The settings of `layer` that are not plain; initializers are left out, since a run has its weights."""
    kept = {
        key: one
        for key, one in _configuration(layer).items()
        if isinstance(one, (dict, list, tuple)) and not key.endswith("initializer")
    }
    return {key: one for key, one in _describe_mapping(kept, False).items() if one not in ({}, [], None)}


def _method_digests(name: str, part: Any, methods: tuple[str, ...]) -> dict[str, str]:
    """The digests of those of the `methods` that the user wrote for the class of `part`."""
    kind = type(part)
    found: dict[str, Any] = {method: getattr(kind, method, None) for method in methods}
    return {
        f"{name}.{method}": code_digest.of(function, kind)
        for method, function in found.items()
        if code_digest.is_own(function)
    }


def _attribute_digests(name: str, layer: Any) -> dict[str, str]:
    """The digests of functions of the user's own that `layer` holds, such as a Lambda's or an activation.

    Also of objects of the user's own that can be called, such as a regularizer.
    """
    found: dict[str, str] = {}
    for attribute, one in vars(layer).items():
        if attribute.startswith("_") or isinstance(one, type):
            continue
        if code_digest.is_own(one):
            found[f"{name}.{attribute}"] = code_digest.of(one)
        else:
            found |= _method_digests(f"{name}.{attribute}", one, ("__call__",))
    return found


def _sketch(data: Any) -> Any:
    """The sketches of the arrays in `data`, a nest of them; a data set by what a user calls it."""
    if data is None:
        return None
    if isinstance(data, (list, tuple)):
        return [_sketch(one) for one in data]
    if isinstance(data, Mapping):
        return {str(name): _sketch(one) for name, one in data.items()}
    try:
        return fingerprint.sketch(data)
    except Exception:  # noqa: BLE001 - it may be anything that Keras validates on
        return {"class": kind_of(data)}


def _python() -> str:
    return ".".join(map(str, sys.version_info[:2]))
