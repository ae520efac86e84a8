"""What callbacks and data sets remember from epoch to epoch: their plain attributes, taken and put back.

Keras keeps such things nowhere: the patience that EarlyStopping has used up, the best loss that ModelCheckpoint has
seen, the history, the order that a data set shuffled itself into. Here an object's attributes are its memory: numbers,
words, arrays, random generators, Keras layers, and lists, tuples and dicts of them. Files, functions, locks and what
else cannot be written down are left as the new session made them.

A setting is an attribute too, and somebody who changes one between two sessions means it. So each attribute is compared
with what it was when the run began: one that has not changed since, but is given another value in a new session, was
changed by its owner, and stays.
"""

from __future__ import annotations

import hashlib
import random
import weakref
from typing import Any

import keras
import numpy as np
from keras.src.callbacks.monitor_callback import MonitorCallback

_SMALL = 1 << 20
_HUGE = 64 << 20
_KIND = "\0kind"
_FLAT_FROM = 64
_NEVER = {"params", "_model", "model"}
# Set lazily from the model, and `min_delta` changes its sign as that is done: both are made anew.
_OF_THE_CLASS: dict[type, set[str]] = {
    MonitorCallback: {"monitor_op", "min_delta"},
    keras.callbacks.CSVLogger: {"append", "append_header"},
}
_seen: weakref.WeakSet[Any] = weakref.WeakSet()


class AttributeState:
    """What `things` remember. One that only shows something, such as the progress bar, remembers nothing."""

    def __init__(self, things: list[Any]) -> None:
        self._things = [thing for thing in things if not isinstance(thing, keras.callbacks.ProgbarLogger)]
        self._at_first: list[dict[str, str]] = []
        # In one process the same objects may come again, changed by what was repeated since the checkpoint.
        self._again = [thing in _seen for thing in self._things]
        _seen.update(self._things)

    def begin(self) -> None:
        """Take what they hold now for what the run begins with."""
        self._at_first = [{name: digest(value) for name, value in _attributes(one).items()} for one in self._things]

    def take(self) -> list[dict[str, Any]]:
        """A tree of what they remember now."""
        taken = []
        for thing, at_first in zip(self._things, self._at_first, strict=True):
            values = _attributes(thing)
            kept = {
                name: one for name, one in values.items() if _weight(one) <= _SMALL or digest(one) != at_first.get(name)
            }
            taken.append({"class": type(thing).__qualname__, "values": kept, "at first": at_first})
        return taken

    def put_back(self, taken: list[dict[str, Any]]) -> None:
        """Make them remember what was taken: the first of a class what the first of that class did, and so on."""
        waiting = list(taken)
        for place, thing in enumerate(self._things):
            found = next((one for one in waiting if one["class"] == type(thing).__qualname__), None)
            if found is not None:
                waiting.remove(found)
                self._at_first[place] = dict(found["at first"])
                _put_back(thing, found, self._again[place])


def _put_back(thing: Any, taken: dict[str, Any], again: bool) -> None:
    now = _attributes(thing)
    at_first = taken["at first"]
    for name, value in taken["values"].items():
        given_anew = name in now and digest(now[name]) != at_first.get(name)
        if again or not given_anew or digest(value) != at_first.get(name):
            _restore(thing, name, value)
    if isinstance(thing, MonitorCallback) and thing.monitor_op is None and taken["values"].get("best") is not None:
        # At the end of an epoch Keras would do so too; one that looks between batches needs it before.
        thing._set_monitor_op()


def _restore(thing: Any, name: str, value: Any) -> None:
    held = getattr(thing, name, None)
    if isinstance(held, keras.layers.Layer):
        for variable, number in zip(held.variables, value["values"], strict=True):
            variable.assign(number)
        return
    new = decode(value)
    if isinstance(held, dict) and type(held) is not dict and isinstance(new, dict):
        held.clear()
        held.update(new)  # a defaultdict stays one
    else:
        setattr(thing, name, new)


def _attributes(thing: Any) -> dict[str, Any]:
    """The attributes that can be written down, as trees."""
    never = _NEVER.union(*(names for kind, names in _OF_THE_CLASS.items() if isinstance(thing, kind)))
    found = {}
    for name, value in vars(thing).items():
        if name not in never:
            try:
                found[name] = encode(value)
            except TypeError:
                continue  # a file, a function, a thread: the new session has its own
    return found


def encode(value: Any) -> Any:
    """`value` as a tree of arrays and plain values. Raises `TypeError` for what cannot be written down."""
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        return {_KIND: "words", "shape": list(value.shape), "values": value.ravel().tolist()}
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        return value.copy()
    if keras.ops.is_tensor(value):
        return np.array(value)
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return _encode_row(value)
    if isinstance(value, dict) and all(isinstance(key, (str, int)) for key in value):
        return {_KIND: "dict", "keys": list(value), "values": [encode(one) for one in value.values()]}
    if isinstance(value, np.random.Generator):
        name = type(value.bit_generator).__name__
        return {_KIND: "generator", "name": name, "values": encode(value.bit_generator.state)}
    if isinstance(value, np.random.RandomState):
        return {_KIND: "random state", "values": encode(value.get_state(legacy=False))}
    if isinstance(value, random.Random):
        return {_KIND: "random", "values": encode(value.getstate())}
    if isinstance(value, keras.layers.Layer):
        return {_KIND: "layer", "values": [np.array(variable.value) for variable in value.variables]}
    raise TypeError(f"{type(value).__name__} cannot be written down")


def decode(tree: Any) -> Any:
    """What `encode` made `tree` of."""
    if isinstance(tree, (list, tuple)):
        return type(tree)(decode(one) for one in tree)
    if not isinstance(tree, dict):
        return tree.copy() if isinstance(tree, np.ndarray) else tree
    kind, values = tree[_KIND], tree["values"]
    if kind == "words":
        return np.array(values).reshape(tree["shape"])
    if kind in ("list", "tuple"):
        return (list if kind == "list" else tuple)(values.tolist())
    if kind == "dict":
        return dict(zip(tree["keys"], map(decode, values), strict=True))
    if kind == "generator":
        bits = getattr(np.random, tree["name"])()
        bits.state = decode(values)
        return np.random.Generator(bits)
    made: Any = np.random.RandomState() if kind == "random state" else random.Random()
    (made.set_state if kind == "random state" else made.setstate)(decode(values))
    return made


def digest(tree: Any) -> str:
    """A short hash of a tree; arrays of more than 64 MB count by their shape alone."""
    seen = hashlib.blake2b(digest_size=12)
    _feed(seen, tree)
    return seen.hexdigest()


def _encode_row(value: list[Any] | tuple[Any, ...]) -> Any:
    """A list or tuple; many numbers of one kind become an array, which is smaller and as exact."""
    kinds = {type(one) for one in value}
    if len(value) >= _FLAT_FROM and kinds in ({int}, {float}):
        try:
            flat = np.array(value, np.int64 if kinds == {int} else np.float64)
        except OverflowError:
            return type(value)(value)
        return {_KIND: type(value).__name__, "values": flat}
    return type(value)(encode(one) for one in value)


def _weight(tree: Any) -> int:
    """Its size in bytes, roughly."""
    if isinstance(tree, dict):
        return sum(map(_weight, tree.values()))
    if isinstance(tree, (list, tuple)):
        return sum(map(_weight, tree))
    return tree.nbytes if isinstance(tree, np.ndarray) else 16 + len(tree) if isinstance(tree, (str, bytes)) else 16


def _feed(seen: Any, tree: Any) -> None:
    if isinstance(tree, dict):
        for key, one in tree.items():
            seen.update(repr(key).encode())
            _feed(seen, one)
    elif isinstance(tree, (list, tuple)):
        seen.update(f"{type(tree).__name__}{len(tree)}".encode())
        for one in tree:
            _feed(seen, one)
    elif isinstance(tree, np.ndarray):
        seen.update(f"{tree.dtype}{tree.shape}".encode())
        if tree.nbytes <= _HUGE:
            seen.update(np.ascontiguousarray(tree).tobytes())
    else:
        seen.update(f"{type(tree).__name__}{tree!r}".encode())
