"""Construction of `Images` for `Dataset.images`: selects the images, finds their labels, and opens the pixel cache."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import xxhash

from haversack import settings
from haversack.datasets.augment import Augment
from haversack.datasets.cache import record_source
from haversack.datasets.decode import RULE_VERSION, SUFFIXES, Fit, Form
from haversack.datasets.images import BatchOptions, Images
from haversack.datasets.labels import LabelSource, labels_for
from haversack.datasets.loader import Corrupt, FileSource, Loader
from haversack.datasets.order import SampleOrder
from haversack.datasets.pixels import PixelCache, open_cache
from haversack.errors import InputError

log = logging.getLogger(__name__)

# Prefixes of path parts of hidden files, and of the files that macOS's archiver adds.
_IGNORED_PREFIXES = ("/.", "/__MACOSX")


def images(
    dataset: FileSource,
    *,
    size: tuple[int, int] = (224, 224),
    channels: int = 3,
    labels: LabelSource = "folder",
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
    """Implement `haversack.Dataset.images`, which describes the arguments.

    Raises `InputError` for arguments that cannot be used, if there is no image, and for images without a label;
    `NotFound` if a table of labels exists neither on this machine nor in the data set; and `OSError` if the pixel cache
    cannot be created. The table's fetch may also raise `ConnectionFailed`, `RemoteError` or `IntegrityError`.
    """
    if corrupt not in get_args(Corrupt) or dtype not in ("float32", "uint8") or cache not in ("disk", None):
        raise InputError(
            f"Images cannot be loaded with corrupt={corrupt!r}, dtype={dtype!r}, cache={cache!r}.",
            "Use corrupt raise, skip or blank, dtype float32 or uint8, and cache disk or None.",
        )
    if batch_size < 1 or not 0 <= rank < world:
        raise InputError(
            f"There is no part {rank} of {world} of batches of {batch_size}.",
            "Count ranks from 0, and use a batch size of at least 1.",
        )
    form = Form(*size, channels, fit)
    chosen = _image_names(dataset, names)
    found = labels_for(chosen, labels, dataset.read)
    options = BatchOptions(form, batch_size, SampleOrder(len(chosen), seed, shuffle), augment, dtype, rank, world)
    loader = Loader(dataset, chosen, form, corrupt, _pixel_cache(dataset, chosen, form) if cache else None)
    return _images_class()(loader, found, options)


def _image_names(dataset: FileSource, names: Sequence[str] | Callable[[str], bool] | None) -> Sequence[str]:
    """Return `names` if it is a list, else all files with an image's suffix that are not hidden.

    If `names` is a function, only those that it accepts. Raises `InputError` if there is none.
    """
    if names is not None and not callable(names):
        return list(names)
    found = [name for name in dataset.files if name.lower().endswith(SUFFIXES)]
    # Scan all names at once first: there may be a million, and nearly always none of them is ignored.
    if any(prefix in "\n/".join(["", *found]) for prefix in _IGNORED_PREFIXES):
        found = [name for name in found if not any(prefix in f"/{name}" for prefix in _IGNORED_PREFIXES)]
    if callable(names):
        found = [name for name in found if names(name)]
    if not found:
        raise InputError(
            f"There is no image in {dataset.source}.", f"The suffixes of images are {', '.join(SUFFIXES)}."
        )
    return found


def _pixel_cache(dataset: FileSource, names: Sequence[str], form: Form) -> PixelCache | None:
    """Open the pixel cache of these images; warn and return None if the disk has no space for it.

    The key of its folder includes `repr(form)`: renaming that class or its fields invalidates all caches.
    """
    known = f"{dataset.content} {form} {RULE_VERSION} " + xxhash.xxh3_64_hexdigest("\n".join(names).encode())
    key = hashlib.sha256(known.encode()).hexdigest()[:24]
    folder = settings.load().cache / "pixels" / key
    found = open_cache(folder, len(names), form)
    if found is not None:
        record_source(folder, dataset.source)
    else:
        log.warning(
            "%s images take %s bytes decoded, more than half of the free space: they are decoded in each epoch. "
            "Free space, or choose a smaller size.",
            f"{len(names):,}", f"{len(names) * form.bytes:,}",
        )  # fmt: skip
    return found


def _images_class() -> type[Images]:
    """Return `KerasImages` if Keras is imported already, else `Images`: Keras is slow to import."""
    if "keras" not in sys.modules:
        return Images
    from haversack.datasets.keras import KerasImages

    return KerasImages
