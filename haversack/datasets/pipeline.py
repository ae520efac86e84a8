"""Builds the image pipeline of a data set: which files, their labels, how they are decoded and cached, in what order.

`Dataset.images` calls `images` here. The parts are in `labels`, `decode`, `pixels`, `order`, `augment` and `loader`.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import xxhash

from haversack import settings
from haversack.datasets import labels as labels_of
from haversack.datasets.augment import Augment
from haversack.datasets.cache import note
from haversack.datasets.decode import RULE, SUFFIXES, Fit, Form
from haversack.datasets.images import Images, Plan
from haversack.datasets.loader import Corrupt, FileSource, Loader
from haversack.datasets.order import SampleOrder
from haversack.datasets.pixels import PixelCache, open_cache
from haversack.errors import InputError

log = logging.getLogger(__name__)

# How the parts of a path begin that are hidden, or that macOS's archiver adds.
_OTHERS = ("/.", "/__MACOSX")


def images(
    dataset: FileSource,
    *,
    size: tuple[int, int] = (224, 224),
    channels: int = 3,
    labels: labels_of.Given = "folder",
    names: Sequence[str] | Callable[[str], bool] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    shuffle: bool = True,
    augment: Augment | None = None,
    fit: Fit = "stretch",
    corrupt: Corrupt = "raise",
    cache: Literal["disk"] | None = "disk",
    dtype: Literal["float32", "uint8"] = "float32",
    rank: int = 0,
    world: int = 1,
) -> Images:
    """Build the images of `dataset`; the arguments and errors are those of `haversack.Dataset.images`."""
    if corrupt not in get_args(Corrupt) or dtype not in ("float32", "uint8") or cache not in ("disk", None):
        raise InputError(
            f"Images cannot be given with corrupt={corrupt!r}, dtype={dtype!r}, cache={cache!r}.",
            "Give corrupt raise, skip or blank, dtype float32 or uint8, and cache disk or None.",
        )
    if batch_size < 1 or not 0 <= rank < world:
        raise InputError(f"There is no part {rank} of {world} of batches of {batch_size}.", "Count ranks from 0.")
    form = Form(*size, channels, fit)
    chosen = _chosen(dataset, names)
    found = labels_of.of(chosen, labels, dataset.read)
    plan = Plan(form, batch_size, SampleOrder(len(chosen), seed, shuffle), augment, dtype, rank, world)
    loader = Loader(dataset, chosen, form, corrupt, _cache(dataset, chosen, form) if cache else None)
    return _kind()(loader, found, plan)


def _chosen(dataset: FileSource, names: Sequence[str] | Callable[[str], bool] | None) -> Sequence[str]:
    """The names of the images, those of a folder's hidden or foreign files left out."""
    if names is not None and not callable(names):
        return list(names)
    found = [name for name in dataset.files if name.lower().endswith(SUFFIXES)]
    # Looked for in all names at once, of which there may be a million.
    if any(other in "\n/".join(["", *found]) for other in _OTHERS):
        found = [name for name in found if not any(other in f"/{name}" for other in _OTHERS)]
    if callable(names):
        found = [name for name in found if names(name)]
    if not found:
        raise InputError(f"There is no image in {dataset.source}.", f"Images end with {', '.join(SUFFIXES)}.")
    return found


def _cache(dataset: FileSource, names: Sequence[str], form: Form) -> PixelCache | None:
    known = f"{dataset.content} {form} {RULE} " + xxhash.xxh3_64_hexdigest("\n".join(names).encode())
    key = hashlib.sha256(known.encode()).hexdigest()[:24]
    folder = settings.load().cache / "pixels" / key
    found = open_cache(folder, len(names), form)
    if found is not None:
        note(folder, dataset.source)
    else:
        log.warning(
            "%s images take %s bytes decoded, more than half of what is free: they are decoded in each epoch.",
            f"{len(names):,}", f"{len(names) * form.bytes:,}",
        )  # fmt: skip
    return found


def _kind() -> type[Images]:
    """What `model.fit` itself takes, where Keras is in use already; it is not imported for this."""
    if "keras" not in sys.modules:
        return Images
    from haversack.datasets.keras import KerasImages

    return KerasImages
