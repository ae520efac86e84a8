"""The batches of PyTorch's `DataLoader`, and how a session gets back into the middle of a pass over it.

The order of a pass follows from the random streams at its begin: the loader draws a base seed when its iterator is
made, and the sampler its permutation when the first index is asked for. So both are repeated from the streams of that
moment. Without workers the indices of the batches that are done are drawn and dropped, and no sample is read. With
workers the batches are read again, because each worker has random streams of its own that only reading moves on.

Persistent workers would carry these streams from one epoch to the next, and repeating an epoch would mean repeating
all before it. So their workers are started anew in each epoch, as without `persistent_workers`.

torchdata's `StatefulDataLoader` saves a position of its own, which was measured not to be exact with workers, and
shuffles in another way. It is read again like any loader with workers.

Private names of PyTorch: `_BaseDataLoaderIter._next_index` (the next batch's indices) and `DataLoader._iterator`
(persistent workers). Without the first, batches are read again; without the second, there are no persistent workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from haversack.training import batches
from haversack.training.batches import Batches
from haversack.training.part import Part
from haversack.training.torch.parts import generator_part


def of_loader(loader: DataLoader[Any]) -> Batches:
    """Return the batches of a `DataLoader`."""
    by_index = (
        not isinstance(loader.dataset, IterableDataset)
        and loader.num_workers == 0
        and type(loader).__iter__ is DataLoader.__iter__
    )
    return Batches(
        loader,
        lambda: _open(loader),
        _skip_indices if by_index else batches.read,
        parts=_generators(loader),
        facts={
            "source": type(loader).__qualname__,
            "data set": type(loader.dataset).__qualname__,
            "samples": batches.length(loader.dataset),
            "batches": batches.length(loader),
            "batch size": loader.batch_size,
            "sampler": type(loader.sampler).__qualname__,
        },
        settings={"num_workers": loader.num_workers},
    )


def _open(loader: DataLoader[Any]) -> Iterator[Any]:
    if getattr(loader, "_iterator", None) is not None:
        loader._iterator = None  # ends the persistent workers of the pass before
    return iter(loader)


def _skip_indices(iterator: Any, count: int) -> Any:
    """Draw and drop the indices of `count` batches; where that is not possible, read the batches."""
    if not hasattr(iterator, "_next_index"):
        return batches.read(iterator, count)
    for _ in range(count):
        try:
            iterator._next_index()
        except StopIteration:
            break
    return None


def _generators(loader: DataLoader[Any]) -> dict[str, Part]:
    """The generators that the user gave to the loader or to its samplers; one that several share is one part."""
    inner = getattr(loader.batch_sampler, "sampler", None)
    owners = {
        "loader": loader,
        "batch sampler": loader.batch_sampler,
        "sampler": loader.sampler,
        "inner sampler": inner,
    }
    parts, seen = {}, set()
    for name, owner in owners.items():
        generator = getattr(owner, "generator", None)
        if generator is not None and hasattr(generator, "get_state") and id(generator) not in seen:
            seen.add(id(generator))
            parts[f"generator of the {name}"] = generator_part(generator)
    return parts
