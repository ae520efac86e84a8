"""A tree of arrays and plain values: copied out of a running loop, and rebuilt from its copy.

`Buffers.copy` copies every array into buffers that are used again for the next snapshot, so the loop may overwrite,
donate or delete its own arrays at once. The rest of the tree becomes JSON. Nothing is pickled, so a checkpoint from
somebody else can be opened without running code from it. `rebuild` makes the tree again; with `like`, arrays get the
library, device and sharding of that tree, and namedtuples their classes.

JAX and torch are recognized by their modules in `sys.modules`; this module imports neither on its own.
"""

from __future__ import annotations

import base64
import math
import os
import struct
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import xxhash

from haversack.errors import InputError, TrainingError

Arrays = dict[str, np.ndarray]
"""Name of an array (its path in the tree, such as "layers/0/kernel") -> its values on the host."""

_ARRAY_KINDS = ("array", "scalar", "jax", "torch")
"""What the structure of a tree calls its arrays: numpy's, numpy's scalars, and those of JAX and torch."""
_EXACT_IN_JSON = 1 << 53
_CHUNK = 8 << 20
_PAGE = 4096
_ML_DTYPES = ("bfloat16", "float8")
"""Prefixes of the names of dtypes that numpy has only through ml_dtypes."""


@dataclass(frozen=True)
class Snapshot:
    """A copy of a tree: `structure` is JSON with a name in place of each array, `arrays` maps names to the copies.

    The arrays are C-contiguous. The next `Buffers.copy` overwrites them.
    """

    structure: Any
    arrays: Arrays


Form = tuple[tuple[int, ...], np.dtype]
"""Shape and dtype of an array on the host."""


class Buffers:
    """Memory for one snapshot at a time; a buffer is reused if the next array of its name has the same dtype and shape.

    Not thread-safe: the caller must not call `copy` or `prepare` while another thread does, or reads the previous
    snapshot.

    Attributes:
        copy_seconds: how long the last `copy` took to copy, without the time for which it waited for computations in
            progress and for new memory. So it is what the next copy of the same tree costs.
    """

    def __init__(self) -> None:
        self._buffers: Arrays = {}
        self.copy_seconds = 0.0

    def prepare(self, forms: Mapping[str, Form]) -> None:
        """Make memory ready for a tree of these arrays, by name; see `forms`. It overwrites the previous snapshot.

        Linux gives a page of memory when it is first written, which takes several times as long as copying into it.
        """
        self._buffers = {name: self._ready(name, shape, dtype) for name, (shape, dtype) in forms.items()}

    def copy(self, tree: Any) -> Snapshot:
        """Return a snapshot of `tree` in these buffers; it overwrites the previous snapshot.

        Raises `InputError` for a value that is neither an array (of numbers, strings or times) nor a plain value (None,
        bool, int, float, str, bytes), and for a JAX array of which other processes hold a part.
        """
        leaves: dict[str, Any] = {}
        structure = _flatten(tree, "", leaves)
        for leaf in leaves.values():
            # Start all transfers from an accelerator before waiting for the first one.
            if hasattr(leaf, "copy_to_host_async"):
                leaf.copy_to_host_async()
        _wait_until_computed(leaves.values())
        begun = time.monotonic()
        sources = {name: _to_host(leaf, name) for name, leaf in leaves.items()}
        transferred = time.monotonic() - begun
        self.prepare({name: (source.shape, source.dtype) for name, source in sources.items()})
        begun = time.monotonic()
        _copy_all([(self._buffers[name], source) for name, source in sources.items()])
        self.copy_seconds = transferred + time.monotonic() - begun
        return Snapshot(structure, self._buffers)

    def _ready(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return the buffer of this name if it fits, else a new one, each page of which has been written once."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != shape or buffer.dtype != dtype:
            buffer = np.empty(shape, dtype)
            buffer.reshape(-1).view(np.uint8)[::_PAGE] = 0
        return buffer


def forms(tree: Any) -> dict[str, Form]:
    """Return shape and dtype of each array in `tree`, by the name that `Buffers.copy` gives it.

    No value is read, so nothing waits for computations in progress. Arrays whose dtype on the host is not known without
    their values, such as random keys of JAX, are left out. Raises `InputError` as `Buffers.copy` does.
    """
    leaves: dict[str, Any] = {}
    _flatten(tree, "", leaves)
    dtypes = {name: _host_dtype(leaf) for name, leaf in leaves.items()}
    return {name: (tuple(leaves[name].shape), dtype) for name, dtype in dtypes.items() if dtype is not None}


def digest(tree: Any) -> str:
    """Return an XXH3 hash, 32 hexadecimal digits, of the values of all arrays in `tree`, in its order.

    What is not an array does not count: it may be a time, or a path. Raises `InputError` as `Buffers.copy` does.
    """
    leaves: dict[str, Any] = {}
    _flatten(tree, "", leaves)
    hasher = xxhash.xxh3_128()
    for name, leaf in leaves.items():
        hasher.update(np.ascontiguousarray(_to_host(leaf, name)).reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()


def rebuild(structure: Any, arrays: Arrays, like: Any = None) -> Any:
    """Return the tree of a snapshot; `structure` and `arrays` are its fields.

    Without `like` the tree has the arrays in `arrays`, not copies, and tuples in place of namedtuples. With `like`, a
    tree of the same form, each array gets the library, device and sharding of its counterpart there. An empty dict in
    `like` stands for a dict of any form, such as the state of an optimizer before its first step: arrays in it get the
    library that they were saved from, on the CPU or JAX's default device.

    Raises `TrainingError` if `like` has other keys, lengths, shapes or dtypes than the snapshot, or no array where the
    snapshot has one.
    """
    return _rebuild(structure, arrays, _AS_NUMPY if like is None else like, "")


# Copying


def _flatten(value: Any, path: str, leaves: dict[str, Any]) -> Any:
    """Return the structure of `value` as JSON, and add its arrays to `leaves` by name. Raises `InputError`."""
    if isinstance(value, Mapping):
        items = [[_encode_plain(key, path), _flatten(one, _join(path, key), leaves)] for key, one in value.items()]
        return {"dict": items}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_flatten(one, _join(path, index), leaves) for index, one in enumerate(value)]}
    if is_array(value) and hasattr(value, "__array__"):
        name = path or "value"
        while name in leaves:
            name += "'"
        leaves[name] = value
        return {"scalar" if isinstance(value, np.generic) else _library(value) or "array": name}
    return _encode_plain(value, path)


def _encode_plain(value: Any, path: str) -> Any:
    """Return a plain value as JSON, from which `_decode_plain` makes an equal value.

    A value that JSON has no exact form of becomes a dict of one key. Raises `InputError` for a value that is not plain.
    """
    if value is None or type(value) in (bool, str):
        return value
    if type(value) is int:
        return value if abs(value) < _EXACT_IN_JSON else {"int": hex(value)}
    if type(value) is float:
        return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": base64.b64encode(value).decode()}
    raise InputError(
        f"{_label(path)} is of type {type(value).__name__}, which a checkpoint cannot hold.",
        "Save arrays, None, bool, int, float, str, bytes, and dicts, lists and tuples of them.",
    )


def is_array(value: Any) -> bool:
    """Whether `value` is an array or scalar of numpy, an array of JAX or torch, or a `jax.ShapeDtypeStruct`."""
    return isinstance(value, (np.ndarray, np.generic)) or _library(value) in ("jax", "torch")


def _library(value: Any) -> str:
    """Return "jax" or "torch" for their arrays (and `jax.ShapeDtypeStruct`), "" for everything else."""
    for name, kind in (("jax", "Array"), ("jax", "ShapeDtypeStruct"), ("torch", "Tensor")):
        module = sys.modules.get(name)
        if module is not None and isinstance(value, getattr(module, kind)):
            return name
    return ""


def _wait_until_computed(leaves: Collection[Any]) -> None:
    """Wait for the steps in progress that compute these arrays, of JAX or on torch's accelerators."""
    for leaf in leaves:
        if hasattr(leaf, "block_until_ready"):
            leaf.block_until_ready()
    if any(getattr(leaf, "is_cuda", False) for leaf in leaves):
        sys.modules["torch"].cuda.synchronize()


def _host_dtype(leaf: Any) -> np.dtype | None:
    try:
        return np.dtype(str(leaf.dtype).removeprefix("torch."))
    except TypeError:
        return None


def _to_host(leaf: Any, path: str) -> np.ndarray:
    """Return the values of an array on the host, without a copy if they are there. Raises `InputError`."""
    library = _library(leaf)
    if library == "torch":
        return _from_torch(leaf)
    if library == "jax":
        jax = sys.modules["jax"]
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if not leaf.is_fully_addressable:
            raise InputError(
                f"{_label(path)} is held by other processes in part.",
                "Save in each process the arrays that it holds, or gather this one first.",
            )
    array = np.asarray(leaf)
    if array.dtype.hasobject or array.dtype.names:
        raise InputError(
            f"{_label(path)} is an array of {array.dtype}, which a checkpoint cannot hold.",
            "Save arrays of numbers, strings or times.",
        )
    return array


def _from_torch(tensor: Any) -> np.ndarray:
    torch = sys.modules["torch"]
    tensor = tensor.detach().cpu().contiguous()
    name = str(tensor.dtype).removeprefix("torch.")
    if not name.startswith(_ML_DTYPES):
        return np.asarray(tensor.numpy())
    import ml_dtypes

    # torch has no conversion to ml_dtypes, so the bits pass through an integer dtype of the same width.
    bits = torch.int16 if tensor.element_size() == 2 else torch.uint8
    return np.asarray(tensor.view(bits).numpy().view(getattr(ml_dtypes, name)))


def _copy_all(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Copy each (target, source) pair; large amounts with up to 4 threads, since one core cannot saturate memory."""
    chunks = [chunk for target, source in pairs for chunk in _chunks(target, source)]
    if sum(target.nbytes for target, _ in chunks) < 4 * _CHUNK:
        for target, source in chunks:
            np.copyto(target, source)
        return
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        for _ in threads.map(lambda chunk: np.copyto(*chunk), chunks, chunksize=1):
            pass


def _chunks(target: np.ndarray, source: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield parts of (target, source) that threads may copy in parallel; one part if `source` is not contiguous."""
    if target.nbytes <= _CHUNK or not source.flags.c_contiguous:
        yield target, source
        return
    flat, step = (target.reshape(-1), source.reshape(-1)), _CHUNK // target.itemsize
    for start in range(0, flat[0].size, step):
        yield flat[0][start : start + step], flat[1][start : start + step]


# Rebuilding. In place of a part of `like`: there is no `like`; or `like` has an empty dict here, which fits every dict.

_AS_NUMPY, _AS_SAVED = object(), object()


def _rebuild(node: Any, arrays: Arrays, like: Any, path: str) -> Any:
    if not isinstance(node, dict):
        return node
    [(kind, content)] = node.items()
    if kind == "dict":
        return _rebuild_dict(content, arrays, like, path)
    if kind in ("list", "tuple"):
        return _rebuild_sequence(kind, content, arrays, like, path)
    if kind in _ARRAY_KINDS:
        return _rebuild_array(kind, arrays[content], like, path)
    return _decode_plain(kind, content)


def _rebuild_array(kind: str, array: np.ndarray, like: Any, path: str) -> Any:
    if like is _AS_SAVED and kind == "torch":
        return to_torch(array)
    if like is _AS_SAVED and kind == "jax" and "jax" in sys.modules:
        return sys.modules["jax"].numpy.array(array)
    if like is _AS_NUMPY or like is _AS_SAVED:
        return array[()] if kind == "scalar" else array
    return _convert(array, like, path)


def _decode_plain(kind: str, content: str) -> Any:
    if kind == "int":
        return int(content, 16)
    if kind == "float":
        return struct.unpack(">d", bytes.fromhex(content))[0]
    return base64.b64decode(content)


def _rebuild_dict(items: list[Any], arrays: Arrays, like: Any, path: str) -> dict[Any, Any]:
    keys = [_decode_plain(*next(iter(key.items()))) if isinstance(key, dict) else key for key, _ in items]
    if isinstance(like, Mapping) and not like:
        like = _AS_SAVED
    if _is_given(like) and (not isinstance(like, Mapping) or set(like) != set(keys)):
        _raise_mismatch(path, f"has the keys {sorted(map(str, keys))}", _describe(like))
    return {
        key: _rebuild(node, arrays, like[key] if _is_given(like) else like, _join(path, key))
        for key, (_, node) in zip(keys, items, strict=True)
    }


def _rebuild_sequence(kind: str, nodes: list[Any], arrays: Arrays, like: Any, path: str) -> Any:
    if _is_given(like) and (not isinstance(like, (list, tuple)) or len(like) != len(nodes)):
        _raise_mismatch(path, f"has {len(nodes)} parts", _describe(like))
    parts = [
        _rebuild(node, arrays, like[index] if _is_given(like) else like, _join(path, index))
        for index, node in enumerate(nodes)
    ]
    if _is_given(like) and hasattr(like, "_fields"):
        return type(like)(*parts)
    return parts if kind == "list" else tuple(parts)


def _is_given(like: Any) -> bool:
    return like is not _AS_NUMPY and like is not _AS_SAVED


def convert(tree: Any, like: Any, path: str = "") -> Any:
    """Return `tree`, which was rebuilt without a `like`, as if it had been rebuilt with this one; arrays are copied.

    Raises `TrainingError` as `rebuild` does; `path` names the tree in it.
    """
    if isinstance(like, Mapping):
        if not isinstance(tree, dict) or set(tree) != set(like):
            _raise_mismatch(path, f"is {_describe(tree)}", _describe(like))
        return {key: convert(one, like[key], _join(path, key)) for key, one in tree.items()}
    if isinstance(like, (list, tuple)):
        if not isinstance(tree, (list, tuple)) or len(tree) != len(like):
            _raise_mismatch(path, f"is {_describe(tree)}", _describe(like))
        parts = [
            convert(one, known, _join(path, index)) for index, (one, known) in enumerate(zip(tree, like, strict=True))
        ]
        return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)
    return _convert(np.array(tree), like, path) if is_array(like) else tree


def _convert(array: np.ndarray, like: Any, path: str) -> Any:
    """Return `array` as an array of the library of `like`, on its devices and in its sharding.

    Raises `TrainingError` if the shapes or the dtypes differ, or `like` is not an array.
    """
    if not is_array(like):
        _raise_mismatch(path, f"is an array of shape {array.shape}", _describe(like))
    library = _library(like)
    if library == "torch":
        return _to_torch(array, like, path)
    if library == "jax":
        return _to_jax(array, like, path)
    _check_same(array, tuple(like.shape), like.dtype, path)
    return array[()] if isinstance(like, np.generic) else array


def _to_jax(array: np.ndarray, like: Any, path: str) -> Any:
    jax = sys.modules["jax"]
    if jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jax.numpy.asarray(array), impl=jax.random.key_impl(like))
    _check_same(array, like.shape, like.dtype, path)
    # JAX may overwrite a donated array, so it must not share memory with ours.
    return jax.device_put(array, getattr(like, "sharding", None), may_alias=False)


def _to_torch(array: np.ndarray, like: Any, path: str) -> Any:
    tensor = to_torch(array)
    if tensor.shape != like.shape or tensor.dtype != like.dtype:
        _raise_mismatch(
            path, f"is {tensor.dtype} of shape {tuple(tensor.shape)}", f"{like.dtype} of shape {tuple(like.shape)}"
        )
    return tensor.to(like.device).requires_grad_(like.requires_grad)


def to_torch(array: np.ndarray) -> Any:
    """Return a copy of `array` as a tensor on the CPU."""
    torch = sys.modules["torch"]
    if array.dtype.name.startswith(_ML_DTYPES):
        bits = np.int16 if array.dtype.itemsize == 2 else np.uint8
        return torch.from_numpy(array.view(bits).copy()).view(getattr(torch, array.dtype.name))
    return torch.from_numpy(array.copy())


def _check_same(array: np.ndarray, shape: tuple[int, ...], dtype: Any, path: str) -> None:
    """Raise `TrainingError` if `array` has another shape or dtype."""
    if array.shape != shape or array.dtype != dtype:
        _raise_mismatch(path, f"is {array.dtype} of shape {array.shape}", f"{dtype} of shape {shape}")


def _raise_mismatch(path: str, saved: str, given: str) -> NoReturn:
    raise TrainingError(
        f"{_label(path)} {saved} in the checkpoint, but in `like` it is {given}.",
        "Restore into the model that was saved, or restore without `like` and pick the parts that fit.",
    )


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict with the keys {sorted(map(str, value))}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"an array of shape {tuple(value.shape)}" if is_array(value) else f"of type {type(value).__name__}"


def _join(path: str, key: Any) -> str:
    return f"{path}/{key}" if path else str(key)


def _label(path: str) -> str:
    """Return how an error message names the value at `path`."""
    return path or "The tree"
