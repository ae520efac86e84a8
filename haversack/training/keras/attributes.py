"""The plain attributes of callbacks and data sets, saved in a checkpoint and restored from it.

Keras saves no callback state: the patience that EarlyStopping has used up, the best loss that ModelCheckpoint has seen,
the history. Data sets keep state in attributes too, such as the order that they shuffled themselves into. This module
saves every attribute that consists of numbers, strings, arrays, random generators, and lists, tuples and dicts of them.
It skips all others (files, functions, locks): the new session has created its own. The variables of layers, metrics and
optimizers that an attribute holds are saved by `untracked`.

Settings are attributes as well, and a user may change one between two sessions. So each attribute is compared with its
value at the beginning of the run. An attribute that training has not changed, and that the new session sets to another
value, was changed by the user and is not restored.
"""

from __future__ import annotations

import hashlib
import random
import weakref
from typing import Any

import keras
import numpy as np
from keras.src.callbacks.monitor_callback import MonitorCallback

_SMALL_SIZE = 1 << 20
"""Attributes of up to this many bytes are saved whether they changed or not."""
_LARGEST_HASHED = 64 << 20
"""Arrays of more bytes are hashed by dtype and shape only."""
_KIND = "\0kind"
"""The key that tells the encoding of an object apart from an encoded dict."""
_SHORTEST_PACKED = 64
"""Lists of at least this many numbers are stored as an array."""
_EXCLUDED = {"params", "_model", "model"}
# Keras derives `monitor_op` and the sign of `min_delta` from the compiled model, and `append_header` from the file, so
# the new session derives its own. `log_files` sets `append`.
_EXCLUDED_BY_CLASS: dict[type, set[str]] = {
    MonitorCallback: {"monitor_op", "min_delta"},
    keras.callbacks.CSVLogger: {"append", "append_header"},
}
_seen: weakref.WeakSet[Any] = weakref.WeakSet()
"""Every object that an `AttributeState` of this process was given."""


class AttributeState:
    """Captures and restores the attributes of `objects` (callbacks and data sets).

    Progress bars are left out: they only display. Call `record_initial` once, before `capture` or `restore`. All
    attributes are restored for an object that an earlier `AttributeState` of this process was given, since training may
    have changed them.
    """

    def __init__(self, objects: list[Any]) -> None:
        self._objects = [one for one in objects if not isinstance(one, keras.callbacks.ProgbarLogger)]
        self._initial_digests: list[dict[str, str]] = []
        # An object that an earlier `fit` of this process trained with has attributes that training changed, not the
        # user: all of them are restored.
        self._trained_before = [one in _seen for one in self._objects]
        _seen.update(self._objects)

    def record_initial(self) -> None:
        """Record a digest of each attribute's current value as its value at the beginning of the run."""
        self._initial_digests = [
            {name: digest(value) for name, value in _encoded_attributes(one).items()} for one in self._objects
        ]

    def capture(self) -> list[dict[str, Any]]:
        """Return a dict for each object, in order: its "class", the encoded "values", the initial digests ("at first").

        An attribute of more than 1 MiB is included only if its digest differs from the initial one. So an array of more
        than 64 MiB is left out while its dtype and shape stay the same.
        """
        captured = []
        for one, initial in zip(self._objects, self._initial_digests, strict=True):
            values = {
                name: value
                for name, value in _encoded_attributes(one).items()
                if _approximate_size(value) <= _SMALL_SIZE or digest(value) != initial.get(name)
            }
            captured.append({"class": type(one).__qualname__, "values": values, "at first": initial})
        return captured

    def restore(self, captured: list[dict[str, Any]]) -> None:
        """Set the attributes to the values in `captured`, which `capture` returned in this or an earlier session.

        An attribute stays as it is if the user has set it to another value and training had not changed it; see the
        module. Objects are paired with captured ones by class name, in order; one without a partner stays as it is. The
        initial digests become the captured ones.
        """
        unpaired = list(captured)
        for index, one in enumerate(self._objects):
            found = next((candidate for candidate in unpaired if candidate["class"] == type(one).__qualname__), None)
            if found is not None:
                unpaired.remove(found)
                self._initial_digests[index] = dict(found["at first"])
                _restore_object(one, found, self._trained_before[index])


def _restore_object(target: Any, captured: dict[str, Any], trained_before: bool) -> None:
    """Set the attributes of `target` to the captured ones; with `trained_before` all of them.

    Otherwise an attribute stays as it is if this session gave it another value than the run began with and training
    did not change it.
    """
    current = _encoded_attributes(target)
    initial = captured["at first"]
    for name, value in captured["values"].items():
        changed_by_user = name in current and digest(current[name]) != initial.get(name)
        if trained_before or not changed_by_user or digest(value) != initial.get(name):
            _restore_attribute(target, name, value)
    if isinstance(target, MonitorCallback) and target.monitor_op is None and captured["values"].get("best") is not None:
        # Keras sets it at the end of an epoch only; a callback that compares between batches needs it earlier.
        target._set_monitor_op()


def _restore_attribute(target: Any, name: str, value: Any) -> None:
    """Set one attribute to an encoded value. A subclass of dict gets the items.

    A layer gets its variables' values, which versions before `untracked` saved here.
    """
    held = getattr(target, name, None)
    if isinstance(held, keras.layers.Layer):
        for variable, number in zip(held.variables, value["values"], strict=True):
            variable.assign(number)
        return
    new = decode(value)
    if isinstance(held, dict) and type(held) is not dict and isinstance(new, dict):
        held.clear()
        held.update(new)  # keeps a defaultdict's factory
    else:
        setattr(target, name, new)


def _encoded_attributes(target: Any) -> dict[str, Any]:
    """The attributes of `target` that can be encoded, by name."""
    excluded = _EXCLUDED.union(*(names for kind, names in _EXCLUDED_BY_CLASS.items() if isinstance(target, kind)))
    encoded = {}
    for name, value in vars(target).items():
        if name not in excluded:
            try:
                encoded[name] = encode(value)
            except TypeError:
                continue  # a file, a function, a thread: the new session has its own
    return encoded


def encode(value: Any) -> Any:
    """Encode `value` as a tree of numpy arrays and plain values that a checkpoint can hold. `decode` is the inverse.

    Arrays are copied. Raises `TypeError` for a type that the module does not list.
    """
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        return {_KIND: "words", "shape": list(value.shape), "values": value.ravel().tolist()}
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        return value.copy()
    if keras.ops.is_tensor(value):
        return np.array(value)
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return _encode_sequence(value)
    if isinstance(value, dict) and all(isinstance(key, (str, int)) for key in value):
        return {_KIND: "dict", "keys": list(value), "values": [encode(one) for one in value.values()]}
    if isinstance(value, np.random.Generator):
        name = type(value.bit_generator).__name__
        return {_KIND: "generator", "name": name, "values": encode(value.bit_generator.state)}
    if isinstance(value, np.random.RandomState):
        return {_KIND: "random state", "values": encode(value.get_state(legacy=False))}
    if isinstance(value, random.Random):
        return {_KIND: "random", "values": encode(value.getstate())}
    raise TypeError(f"{type(value).__name__} cannot be encoded")


def decode(tree: Any) -> Any:
    """Return the value that was encoded as `tree`.

    A tensor is returned as a numpy array. An encoded layer must not be passed: it has values only.
    """
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
    generator: Any = np.random.RandomState() if kind == "random state" else random.Random()
    (generator.set_state if kind == "random state" else generator.setstate)(decode(values))
    return generator


def digest(tree: Any) -> str:
    """Return a BLAKE2b hash of a tree that `encode` returned, as 24 hexadecimal digits.

    Of an array of more than 64 MiB only dtype and shape are hashed.
    """
    hasher = hashlib.blake2b(digest_size=12)
    _update_hash(hasher, tree)
    return hasher.hexdigest()


def _encode_sequence(value: list[Any] | tuple[Any, ...]) -> Any:
    """Encode a list or tuple. 64 or more numbers, all int or all float, become an array: smaller, and as exact."""
    kinds = {type(one) for one in value}
    if len(value) >= _SHORTEST_PACKED and kinds in ({int}, {float}):
        try:
            packed = np.array(value, np.int64 if kinds == {int} else np.float64)
        except OverflowError:
            return type(value)(value)
        return {_KIND: type(value).__name__, "values": packed}
    return type(value)(encode(one) for one in value)


def _approximate_size(tree: Any) -> int:
    """The size of an encoded tree in bytes, counting 16 for each number."""
    if isinstance(tree, dict):
        return sum(map(_approximate_size, tree.values()))
    if isinstance(tree, (list, tuple)):
        return sum(map(_approximate_size, tree))
    return tree.nbytes if isinstance(tree, np.ndarray) else 16 + len(tree) if isinstance(tree, (str, bytes)) else 16


def _update_hash(hasher: hashlib.blake2b, tree: Any) -> None:
    """Feed an encoded tree to `hasher`, with the types and lengths that tell equal bytes apart."""
    if isinstance(tree, dict):
        for key, one in tree.items():
            hasher.update(repr(key).encode())
            _update_hash(hasher, one)
    elif isinstance(tree, (list, tuple)):
        hasher.update(f"{type(tree).__name__}{len(tree)}".encode())
        for one in tree:
            _update_hash(hasher, one)
    elif isinstance(tree, np.ndarray):
        hasher.update(f"{tree.dtype}{tree.shape}".encode())
        if tree.nbytes <= _LARGEST_HASHED:
            hasher.update(np.ascontiguousarray(tree).tobytes())
    else:
        hasher.update(f"{type(tree).__name__}{tree!r}".encode())
