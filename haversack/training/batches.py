"""The batches of a source (a loader, a list, a generator), and how to get to one in the middle of a pass.

A pass over a source is repeated, not seeked: the random streams are set to their states before the pass, the pass is
opened again, and the batches that are done are skipped. Most sources must read a batch to skip it. PyTorch's DataLoader
without workers skips the indices alone (`torch.loader`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from haversack.errors import InputError
from haversack.training.part import Part

_SAMPLED = 1024
"""The most numbers of an array that a digest contains, evenly spaced: hashing whole batches would slow the loop."""


@dataclass(frozen=True)
class Batches:
    """A source of batches.

    Attributes:
        source: the object that the user iterates over.
        open: begins a pass and returns its iterator.
        skip: moves an iterator past this many batches from the beginning of its pass. Returns the last of them; None if
            it read none.
        parts: random streams that belong to the source, such as the generators of a loader and its sampler.
        facts: JSON that must not change during a run, such as the batch size.
        settings: JSON that changes what is drawn at random, but not which samples a batch has.
        once: whether the source is an iterator, which has a single pass.
    """

    source: Any
    open: Callable[[], Iterator[Any]]
    skip: Callable[[Iterator[Any], int], Any]
    parts: Mapping[str, Part] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    once: bool = False


def of_iterable(source: Iterable[Any]) -> Batches:
    """Return the batches of any iterable. They are read to be skipped. Raises `InputError` for anything else."""
    if not hasattr(source, "__iter__") and not hasattr(source, "__getitem__"):
        raise InputError(
            f"A source of type {type(source).__qualname__} has no batches to iterate over.",
            "Give a DataLoader, a list or another iterable; of a generator function, give what it returns.",
        )
    once = isinstance(source, Iterator) and iter(source) is source
    facts = {"source": type(source).__qualname__, "batches": length(source)}
    return Batches(source, lambda: iter(source), read, facts=facts, once=once)


def read(iterator: Iterator[Any], count: int) -> Any:
    """Read `count` batches and return the last one; None if there are fewer, or `count` is 0."""
    batch = None
    for _ in range(count):
        batch = next(iterator, None)
    return batch


def length(source: Any) -> int | None:
    """Return the number of batches in a pass over `source`; None if it does not know."""
    try:
        return len(source)
    except TypeError:
        return None


def digest(batch: Any) -> str:
    """Return a hash of a batch, which tells two different ones apart and is cheap: of an array, a sample of it.

    Arrays on an accelerator count by shape and dtype only, since reading them would wait for it.
    """
    hasher = xxhash.xxh3_64()
    _update(hasher, batch)
    return hasher.hexdigest()


def _update(hasher: xxhash.xxh3_64, value: Any) -> None:
    if isinstance(value, Mapping):
        for key, one in value.items():
            hasher.update(str(key).encode())
            _update(hasher, one)
    elif isinstance(value, (list, tuple)):
        for one in value[:_SAMPLED]:
            _update(hasher, one)
    elif hasattr(value, "shape") and hasattr(value, "dtype"):
        hasher.update(f"{value.dtype}{tuple(value.shape)}".encode())
        if _is_on_host(value) and (sample := _sample(value)) is not None:
            hasher.update(sample)
    elif isinstance(value, (bool, int, float, str, bytes)):
        hasher.update(repr(value)[:_SAMPLED].encode())


def _is_on_host(array: Any) -> bool:
    device = getattr(array, "device", "cpu")
    return getattr(device, "type", getattr(device, "platform", str(device))) in ("cpu", "")


def _sample(array: Any) -> bytes | None:
    """The bytes of up to 1,024 evenly spaced numbers; None for an array that numpy cannot read."""
    try:
        flat = np.asarray(array).reshape(-1)
        return flat[:: max(1, flat.size // _SAMPLED)].tobytes()
    except (TypeError, ValueError, RuntimeError):
        return None
