"""Which part of a checkpoint an object of the user's becomes, whatever framework it is of.

An object is restored in place, so it must be one that can be changed: a module, an optimizer, anything with
`state_dict()` and `load_state_dict()`, a numpy array, a random generator, a list or dict of plain values. What cannot
be changed, such as a pytree of JAX, is given as `state`, which the loop hands back.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from haversack.errors import InputError, TrainingError
from haversack.training import streams
from haversack.training.part import Part
from haversack.training.state_tree import decode, encode, stateful_part


def of_objects(objects: Mapping[str, Any]) -> dict[str, Part]:
    """Return the part of each object by its name. Raises `InputError` for one that cannot be restored in place."""
    return {name: _of_object(name, value) for name, value in objects.items() if value is not None}


def pending_gradients(objects: Mapping[str, Any]) -> Any:
    """Return the `PendingGradients` of PyTorch's modules among `objects`; None if there are none."""
    torch = sys.modules.get("torch")
    modules = [one for one in objects.values() if torch is not None and isinstance(one, torch.nn.Module)]
    if torch is None or not modules:
        return None
    from haversack.training.torch.parts import PendingGradients

    return PendingGradients(modules, [one for one in objects.values() if isinstance(one, torch.optim.Optimizer)])


def framework_of(objects: list[Any]) -> str:
    """Return the framework of a loop that trains these objects: "torch", "jax", or "python" for neither."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None:
        kinds = (torch.nn.Module, torch.optim.Optimizer, torch.utils.data.DataLoader)
        if any(isinstance(one, kinds) for one in objects):
            return "torch"
    # JAX announces that it will refuse iterators in a tree; the source may be one.
    nested = [one for one in objects if not isinstance(one, Iterator)]
    if jax is not None and any(isinstance(leaf, jax.Array) for leaf in jax.tree_util.tree_leaves(nested)):
        return "jax"
    return "python"


def global_streams() -> dict[str, Part]:
    """Return the global random streams of Python, of numpy and, if it is imported, of PyTorch, by name."""
    found = streams.parts()
    if "torch" in sys.modules:
        from haversack.training.torch import streams as torch_streams

        found |= torch_streams.parts()
    return found


def _of_object(name: str, value: Any) -> Part:
    if "torch" in sys.modules:
        from haversack.training.torch.parts import part

        if (found := part(name, value)) is not None:
            return found
    kind = type(value).__qualname__
    if (found := streams.generator_part(value)) is not None:
        return found
    if isinstance(value, np.ndarray) and value.flags.writeable:
        return Part(kind, lambda: value, lambda saved: _copy_into(name, value, saved))
    if isinstance(value, (dict, list)):
        return Part(kind, lambda: encode(value, name), lambda saved: _fill(value, saved))
    if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        return stateful_part(name, value)
    raise InputError(
        f"{name} is of type {kind}, which cannot be restored in place.",
        "Give an object with state_dict() and load_state_dict(), an array, a list or a dict; give a pytree as state=.",
    )


def _copy_into(name: str, array: np.ndarray, saved: np.ndarray) -> list[str]:
    if array.shape != saved.shape or array.dtype != saved.dtype:
        raise TrainingError(
            f"{name} is {array.dtype} of shape {array.shape}, and began as {saved.dtype} of shape {saved.shape}.",
            "Give this training another name, or begin again with restart=True, which renames the old run.",
        )
    np.copyto(array, saved)
    return []


def _fill(value: Any, saved: Any) -> list[str]:
    """Set the content of a dict or list."""
    content = decode(saved, value)
    value.clear()
    if isinstance(value, dict):
        value.update(content)
    else:
        value.extend(content)
    return []
