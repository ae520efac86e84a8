"""`state_dict`s as trees that a checkpoint can hold, and back: what PyTorch would pickle, in arrays and JSON.

A `state_dict` is a dict of tensors and of whatever else its object needs to remember: numbers, texts, lists, a
scheduler's `Counter` of milestones. `Checkpoints` saves arrays and plain values; this module puts the rest into those
words. Nothing is pickled, so an object of a class that it does not know is refused by its name and place.

A tensor whose dtype numpy lacks (bfloat16, float8) is saved by its bits, so that no other package is needed to save it.
"""

from __future__ import annotations

import collections
import copy
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from haversack.errors import InputError, TrainingError
from haversack.training.checkpoints.snapshot import is_array
from haversack.training.part import Part

_KIND = "\0kind"
"""The key that tells an encoded object from a dict."""
_PLAIN = (type(None), bool, int, float, str, bytes)


def encode(value: Any, path: str = "") -> Any:
    """Return `value` as a tree for `Checkpoints`; `decode` is the inverse. Dense tensors are passed on, not copied.

    `path` names the value in errors. Raises `InputError` for an object that cannot be saved, such as a quantized
    tensor.
    """
    if type(value) in _PLAIN:
        return value
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _encode_tensor(torch, value, path)
    if is_array(value):
        return {_KIND: "array", "value": value}
    if isinstance(value, Mapping):
        return {key: encode(one, f"{path}/{key}") for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return (list if isinstance(value, list) else tuple)(encode(one, path) for one in value)
    if isinstance(value, (set, frozenset, collections.deque)):
        return {_KIND: type(value).__name__, "value": [encode(one, path) for one in value]}
    if isinstance(value, complex):
        return {_KIND: "complex", "value": [value.real, value.imag]}
    if isinstance(value, (bool, int, float, str)):
        raise _refused(path, f"a {type(value).__name__}, a class of your own")
    raise _refused(path, f"a {type(value).__module__}.{type(value).__qualname__}")


def decode(tree: Any, like: Any = None, *, copied: bool = True) -> Any:
    """Return the value that `encode` made `tree` from; arrays in `tree` are numpy's.

    `like` is the object's current value. Where it has a dict of a class of its own, such as a `Counter`, the result
    has that class too. With `copied=False` tensors share memory with `tree`, for a caller that copies them itself.
    """
    if isinstance(tree, np.ndarray):
        return _tensor(tree, copied)
    if isinstance(tree, (list, tuple)):
        likes = like if isinstance(like, (list, tuple)) and len(like) == len(tree) else [None] * len(tree)
        parts = [decode(one, known, copied=copied) for one, known in zip(tree, likes, strict=True)]
        if hasattr(like, "_fields") and len(likes) == len(like):
            return type(like)(*parts)
        return parts if isinstance(tree, list) else tuple(parts)
    if not isinstance(tree, dict):
        return tree
    if _KIND in tree:
        return _decode_object(tree, copied)
    known = like if isinstance(like, Mapping) else {}
    values = {key: decode(one, known.get(key), copied=copied) for key, one in tree.items()}
    if isinstance(like, dict) and type(like) is not dict:
        same = copy.copy(like)
        same.clear()
        same.update(values)
        return same
    return values


def stateful_part(name: str, value: Any) -> Part:
    """Return the part for an object with `state_dict` and `load_state_dict`; `name` is the user's name of it."""

    def restore(saved: Any) -> list[str]:
        try:
            value.load_state_dict(decode(saved, value.state_dict()))
        except (ValueError, KeyError, RuntimeError) as error:
            raise TrainingError(
                f"{name} does not take the state that this run saved: {error}",
                "Give this training another name, or begin again with restart=True, which renames the old run.",
            ) from error
        return []

    return Part(type(value).__qualname__, lambda: encode(value.state_dict(), name), restore)


def _encode_tensor(torch: Any, tensor: Any, path: str) -> Any:
    tensor = tensor.detach()
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.is_quantized or tensor.is_meta:
        kind = "meta" if tensor.is_meta else "quantized" if tensor.is_quantized else type(tensor).__name__
        raise _refused(path, f"a {kind} tensor")
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        indices, values = tensor.indices(), encode(tensor.values(), path)
        return {_KIND: "sparse", "indices": indices, "values": values, "shape": list(tensor.shape)}
    if tensor.layout != torch.strided:
        raise _refused(path, f"a tensor of layout {tensor.layout}")
    tensor = tensor.resolve_conj().resolve_neg()
    name = str(tensor.dtype).removeprefix("torch.")
    if hasattr(np, name if name != "bool" else "bool_"):
        return tensor
    bits = {1: torch.uint8, 2: torch.int16}.get(tensor.element_size())
    if bits is None:
        raise _refused(path, f"a tensor of {name}")
    return {_KIND: "bits", "dtype": name, "value": tensor.contiguous().view(bits)}


def _tensor(array: np.ndarray, copied: bool) -> Any:
    torch = sys.modules["torch"]
    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    return tensor.clone() if copied else tensor


def _decode_object(tree: dict[str, Any], copied: bool) -> Any:
    kind = tree[_KIND]
    if kind == "array":
        return tree["value"].copy()
    if kind == "complex":
        return complex(*tree["value"])
    if kind in ("set", "frozenset", "deque"):
        makers: dict[str, Any] = {"set": set, "frozenset": frozenset, "deque": collections.deque}
        return makers[kind](decode(one) for one in tree["value"])
    torch = sys.modules["torch"]
    if kind == "bits":
        return _tensor(tree["value"], copied).view(getattr(torch, tree["dtype"]))
    values = decode(tree["values"])
    indices = _tensor(tree["indices"], True)
    return torch.sparse_coo_tensor(indices, values, tree["shape"], check_invariants=True).coalesce()


def _refused(path: str, what: str) -> InputError:
    return InputError(
        f"{path.lstrip('/') or 'The state'} is {what}, which a checkpoint cannot hold.",
        "Leave it out, or give an object whose state_dict() has tensors, numbers, texts, and lists and dicts of them.",
    )
