"""A tree of arrays and plain values, taken out of a running loop and put back: as arrays by name, and as a structure.

`Buffers.take` copies every array into memory of its own that is used again for the next snapshot, so the loop may go on
and overwrite, donate or delete what it gave. The structure is plain JSON; nothing is pickled, so a checkpoint from
elsewhere can be opened without running anything. `rebuild` gives the tree back, in the kinds of arrays, on the devices
and with the classes of namedtuples of a tree that is `like` it.

JAX and torch are known by the names of their modules and are not imported here unless their arrays are met.
"""

from __future__ import annotations

import base64
import math
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from haversack.errors import InputError, TrainingError

Arrays = dict[str, np.ndarray]
"""Name of an array, its path in the tree, to its values."""

_EXACT_IN_JSON = 1 << 53
_PIECE = 8 << 20
_NOT_NUMPYS = ("bfloat16", "float8")
"""How the names of kinds begin that numpy does not have of its own."""


@dataclass(frozen=True)
class Snapshot:
    """`structure` is JSON: the tree with a name where an array was. `arrays` by those names, each in one row."""

    structure: Any
    arrays: Arrays

    @property
    def size(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())


class Buffers:
    """Memory for one snapshot at a time, kept from one to the next where an array keeps its kind and shape."""

    def __init__(self) -> None:
        self._kept: Arrays = {}

    def take(self, tree: Any) -> Snapshot:
        """A snapshot of `tree` in these buffers, whose previous snapshot is overwritten.

        Raises `InputError` for a value that is neither an array nor plain.
        """
        leaves: dict[str, Any] = {}
        structure = _flatten(tree, "", leaves)
        for leaf in leaves.values():
            # Accelerators send all arrays at once, and not one after the other as each is asked for.
            if hasattr(leaf, "copy_to_host_async"):
                leaf.copy_to_host_async()
        sources = {name: _host(leaf, name) for name, leaf in leaves.items()}
        self._kept = {name: self._buffer(name, source) for name, source in sources.items()}
        _copy([(self._kept[name], source) for name, source in sources.items()])
        return Snapshot(structure, self._kept)

    def _buffer(self, name: str, source: np.ndarray) -> np.ndarray:
        kept = self._kept.get(name)
        if kept is not None and kept.shape == source.shape and kept.dtype == source.dtype:
            return kept
        return np.empty(source.shape, source.dtype)


def rebuild(structure: Any, arrays: Arrays, like: Any = None) -> Any:
    """The tree that a snapshot was taken of; its arrays are numpy's, or of the kinds and shardings of `like`.

    Raises `TrainingError` when `like` has other branches, or arrays of another shape or kind, than the tree had.
    """
    return _rebuild(structure, arrays, like, like is not None, "")


# Taking apart


def _flatten(value: Any, path: str, leaves: dict[str, Any]) -> Any:
    if isinstance(value, Mapping):
        items = [[_plain(key, path), _flatten(one, _join(path, key), leaves)] for key, one in value.items()]
        return {"dict": items}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_flatten(one, _join(path, place), leaves) for place, one in enumerate(value)]}
    if is_array(value) and hasattr(value, "__array__"):
        name = path or "value"
        while name in leaves:
            name += "'"
        leaves[name] = value
        return {"scalar" if isinstance(value, np.generic) else "array": name}
    return _plain(value, path)


def _plain(value: Any, path: str) -> Any:
    """A plain value as JSON that gives it back exactly; what JSON cannot say itself is a dict of one key."""
    if value is None or type(value) in (bool, str):
        return value
    if type(value) is int:
        return value if abs(value) < _EXACT_IN_JSON else {"int": hex(value)}
    if type(value) is float:
        return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": base64.b64encode(value).decode()}
    raise InputError(
        f"{_said(path)} is of type {type(value).__name__}, which a checkpoint cannot hold.",
        "Save arrays, None, bool, int, float, str, bytes, and dicts, lists and tuples of them.",
    )


def is_array(value: Any) -> bool:
    """Whether it is an array of numpy, JAX or torch, or the shape of one."""
    return isinstance(value, (np.ndarray, np.generic)) or _library(value) in ("jax", "torch")


def _library(value: Any) -> str:
    """The library whose array it is, "" for numpy's and for what is no array."""
    for name, kind in (("jax", "Array"), ("jax", "ShapeDtypeStruct"), ("torch", "Tensor")):
        module = sys.modules.get(name)
        if module is not None and isinstance(value, getattr(module, kind)):
            return name
    return ""


def _host(leaf: Any, path: str) -> np.ndarray:
    """The leaf's values on this host, without a copy where it has them there."""
    library = _library(leaf)
    if library == "torch":
        return _from_torch(leaf)
    if library == "jax":
        jax = sys.modules["jax"]
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if not leaf.is_fully_addressable:
            raise InputError(
                f"{_said(path)} lies partly in other processes.", "Save from each process what it holds, or gather it."
            )
    array = np.asarray(leaf)
    if array.dtype.hasobject or array.dtype.names:
        raise InputError(
            f"{_said(path)} is an array of {array.dtype}, which a checkpoint cannot hold.", "Save numbers."
        )
    return array


def _from_torch(tensor: Any) -> np.ndarray:
    torch = sys.modules["torch"]
    tensor = tensor.detach().cpu().contiguous()
    name = str(tensor.dtype).removeprefix("torch.")
    if not name.startswith(_NOT_NUMPYS):
        return tensor.numpy()
    import ml_dtypes

    # numpy knows these kinds only through ml_dtypes, and torch hands over their bits as integers.
    bits = torch.int16 if tensor.element_size() == 2 else torch.uint8
    return tensor.view(bits).numpy().view(getattr(ml_dtypes, name))


def _copy(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Copy every source into its buffer, with as many threads as there are cores: memory is slower than one core."""
    pieces = [piece for target, source in pairs for piece in _pieces(target, source)]
    if sum(target.nbytes for target, _ in pieces) < 4 * _PIECE:
        for target, source in pieces:
            np.copyto(target, source)
        return
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        for _ in threads.map(lambda piece: np.copyto(*piece), pieces, chunksize=1):
            pass


def _pieces(target: np.ndarray, source: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Parts that threads may copy side by side; an array that does not lie in one row is one part."""
    if target.nbytes <= _PIECE or not source.flags.c_contiguous:
        yield target, source
        return
    flat, step = (target.reshape(-1), source.reshape(-1)), _PIECE // target.itemsize
    for start in range(0, flat[0].size, step):
        yield flat[0][start : start + step], flat[1][start : start + step]


# Putting together


def _rebuild(node: Any, arrays: Arrays, like: Any, alike: bool, path: str) -> Any:
    if not isinstance(node, dict):
        return node
    [(kind, inside)] = node.items()
    if kind == "dict":
        return _mapping(inside, arrays, like, alike, path)
    if kind in ("list", "tuple"):
        return _sequence(kind, inside, arrays, like, alike, path)
    if kind in ("array", "scalar"):
        if alike:
            return _in_kind_of(like, arrays[inside], path)
        return arrays[inside][()] if kind == "scalar" else arrays[inside]
    return _value(kind, inside)


def _value(kind: str, inside: str) -> Any:
    if kind == "int":
        return int(inside, 16)
    if kind == "float":
        return struct.unpack(">d", bytes.fromhex(inside))[0]
    return base64.b64decode(inside)


def _mapping(items: list[Any], arrays: Arrays, like: Any, alike: bool, path: str) -> dict[Any, Any]:
    keys = [_value(*next(iter(key.items()))) if isinstance(key, dict) else key for key, _ in items]
    if alike and (not isinstance(like, Mapping) or set(like) != set(keys)):
        raise _unlike(path, f"has the keys {sorted(map(str, keys))}", _shape_of(like))
    return {
        key: _rebuild(node, arrays, like[key] if alike else None, alike, _join(path, key))
        for key, (_, node) in zip(keys, items, strict=True)
    }


def _sequence(kind: str, nodes: list[Any], arrays: Arrays, like: Any, alike: bool, path: str) -> Any:
    if alike and (not isinstance(like, (list, tuple)) or len(like) != len(nodes)):
        raise _unlike(path, f"has {len(nodes)} parts", _shape_of(like))
    parts = [
        _rebuild(node, arrays, like[place] if alike else None, alike, _join(path, place))
        for place, node in enumerate(nodes)
    ]
    if alike and hasattr(like, "_fields"):
        return type(like)(*parts)
    return parts if kind == "list" else tuple(parts)


def _in_kind_of(like: Any, array: np.ndarray, path: str) -> Any:
    """The array as one of the library, on the devices and in the sharding of `like`."""
    if not is_array(like):
        raise _unlike(path, f"is an array of shape {array.shape}", _shape_of(like))
    library = _library(like)
    if library == "torch":
        return _to_torch(like, array, path)
    if library == "jax":
        return _to_jax(like, array, path)
    _check_alike(array, tuple(like.shape), like.dtype, path)
    return array[()] if isinstance(like, np.generic) else array


def _to_jax(like: Any, array: np.ndarray, path: str) -> Any:
    import jax

    if jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jax.numpy.asarray(array), impl=jax.random.key_impl(like))
    _check_alike(array, like.shape, like.dtype, path)
    # Never sharing memory: what JAX donates must be its own.
    return jax.device_put(array, getattr(like, "sharding", None), may_alias=False)


def _to_torch(like: Any, array: np.ndarray, path: str) -> Any:
    torch = sys.modules["torch"]
    if array.dtype.name.startswith(_NOT_NUMPYS):
        bits = np.int16 if array.dtype.itemsize == 2 else np.uint8
        tensor = torch.from_numpy(array.view(bits).copy()).view(getattr(torch, array.dtype.name))
    else:
        tensor = torch.from_numpy(array.copy())
    if tensor.shape != like.shape or tensor.dtype != like.dtype:
        raise _unlike(
            path, f"is {tensor.dtype} of shape {tuple(tensor.shape)}", f"{like.dtype} of shape {tuple(like.shape)}"
        )
    return tensor.to(like.device).requires_grad_(like.requires_grad)


def _check_alike(array: np.ndarray, shape: tuple[int, ...], dtype: Any, path: str) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise _unlike(path, f"is {array.dtype} of shape {array.shape}", f"{dtype} of shape {shape}")


def _unlike(path: str, saved: str, here: str) -> TrainingError:
    return TrainingError(
        f"{_said(path)} {saved} in the checkpoint, and here it is {here}.",
        "Restore into the model that was saved, or restore without `like` and take what fits.",
    )


def _shape_of(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict with the keys {sorted(map(str, value))}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"an array of shape {tuple(value.shape)}" if is_array(value) else f"of type {type(value).__name__}"


def _join(path: str, key: Any) -> str:
    return f"{path}/{key}" if path else str(key)


def _said(path: str) -> str:
    return path or "The tree"
