"""The images of a data set as batches for training: read in place, decoded once, prefetched.

    train, valid = data.images(size=(224, 224), channels=1, labels="labels.csv").split(0.2)
    haversack.fit(model, train, validation_data=valid, epochs=20, name="chests")

The samples of a batch are computed from seed, epoch and step (`order`), so a training resumes at any step of any epoch,
on any number of hosts. Prefetching is in `loader`, labels are in `labels`, and the rule for decoding is in `decode`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from haversack.datasets.augment import Augment, Augmentation, generator
from haversack.datasets.decode import Form
from haversack.datasets.labels import Labels
from haversack.datasets.loader import Loader, PendingBatch, Prefetcher, Transform
from haversack.datasets.order import SampleOrder
from haversack.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchOptions:
    """How images become batches; fields without a description are arguments of `haversack.Dataset.images`.

    Attributes:
        form: the images' size, channels and fit.
        order: the order of the images in each epoch, from the arguments `seed` and `shuffle`.
    """

    form: Form
    batch_size: int
    order: SampleOrder
    augment: Augment | None
    dtype: str
    rank: int
    world: int


class Images:
    """Batches of images, created by `haversack.Dataset.images`.

    `images[step]` is a batch of the current epoch, whose number from 0 is `epoch`; `len(images)` is the number of
    batches in an epoch. Iteration yields the batches of the current epoch and advances `epoch`. A batch is (x, y), or x
    without labels. x has shape (batch, height, width, channels) and is float32 from 0 to 1, or uint8; y has the labels
    of these images (`labels`). The last batch of an epoch, and any batch with `corrupt="skip"`, may have fewer images.
    With several hosts a batch has only this host's part.

    `haversack.fit` accepts it. If Keras is imported before it is created, it is also a `keras.utils.PyDataset`.
    """

    # `haversack.fit` may ask for any batch of any epoch.
    random_access_batches = True

    def __init__(
        self, loader: Loader, labels: Labels | None, options: BatchOptions, rows: NDArray[np.int64] | None = None
    ) -> None:
        self._loader = loader
        self._labels = labels
        self._options = options
        self._rows: NDArray[np.int64] = np.arange(len(loader.names)) if rows is None else rows
        self._epochs_equal = options.augment is None and not options.order.shuffle
        self._prefetcher = Prefetcher(loader, self._batch_rows, self._submit, repeat_epoch=self._epochs_equal)
        self.epoch = 0

    @property
    def names(self) -> list[str]:
        """The names of the images: in the order of the argument `names` if that was a list, else of the data set."""
        return [self._loader.names[row] for row in self._rows]

    @property
    def labels(self) -> NDArray[Any] | None:
        """The labels of the images in the order of `names`, or None if there are none.

        int64 (class numbers or integers) of shape (images,), or numbers or vectors as `labels.Labels.values` has them.
        """
        return None if self._labels is None else self._labels.values[self._rows]

    @property
    def class_names(self) -> list[str]:
        """The class names; a class's number is its place in the list. Empty if labels are numbers or there are none."""
        return list(self._labels.classes) if self._labels is not None else []

    @property
    def batch_size(self) -> int:
        """The number of images in a batch, over all hosts."""
        return self._options.batch_size

    @property
    def samples(self) -> Samples:
        """The images one by one, in the order of `names`, for the data loaders of Grain and PyTorch."""
        return Samples(self)

    def __len__(self) -> int:
        return -(-len(self._rows) // self._options.batch_size)

    def __getitem__(self, step: int) -> Any:
        return self.batch(self.epoch, range(len(self))[step])

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of the current epoch; the epoch advances at the first one."""
        epoch = self.epoch
        self.epoch += 1
        for step in range(len(self)):
            yield self.batch(epoch, step)

    def __repr__(self) -> str:
        form = " × ".join(map(str, self._options.form.shape))
        classes = f", {len(self.class_names)} classes" if self.class_names else ""
        return f"<Images {self._loader.dataset.source}: {len(self._rows):,} of {form}{classes}, {len(self):,} batches>"

    def __reduce__(self) -> Any:
        # For worker processes: each has threads and connections of its own.
        return type(self), (self._loader, self._labels, self._options, self._rows), {"epoch": self.epoch}

    def on_epoch_end(self) -> None:
        """Advance to the next epoch; Keras calls this."""
        self.epoch += 1

    def batch(self, epoch: int, step: int) -> Any:
        """Return batch `step` of an epoch, both from 0: (x, y), or x without labels.

        Equal arguments give equal batches, in any session. Raises `ImageInvalid` for an image that cannot be decoded
        (with `corrupt="raise"`); `NotFound` for a name that is not in the data set; and, if a file cannot be fetched or
        is damaged, `ConnectionFailed`, `SignInError`, `RemoteError`, `DiskFull`, `IntegrityError` or `ArchiveInvalid`.
        """
        x, rows = self._prefetcher.get(0 if self._epochs_equal else epoch, step, len(self))
        return x if self._labels is None else (x, self._labels.values[rows])

    def fingerprint(self) -> dict[str, Any]:
        """Return, as JSON values, everything that must be unchanged for a training on these images to be resumed.

        These are hashes of names and labels, and the options that change batches. The number of hosts may change. Of
        an `augment` that is a function it says only that there is one.
        """
        names = xxhash.xxh3_64_hexdigest("\n".join(self.names).encode())
        labels = None if self.labels is None else xxhash.xxh3_64_hexdigest(np.ascontiguousarray(self.labels).tobytes())
        options = self._options
        return {
            "images": names,
            "labels": labels,
            "shape": list(options.form.shape),
            "fit": options.form.fit,
            "dtype": options.dtype,
            "augment": repr(options.augment)
            if isinstance(options.augment, Augmentation)
            else options.augment is not None,
            "batch_size": options.batch_size,
            "seed": options.order.seed,
            "shuffle": options.order.shuffle,
        }

    def split(self, share: float, seed: int = 0) -> tuple[Images, Images]:
        """Split the images into (training, validation).

        The validation images are `share` (between 0 and 1) of the images of each class or integer label, or else of all
        images; they are neither shuffled nor augmented. The choice depends on each image's name and `seed`, so few
        images change sides when others are added. Both parts share this object's threads and cache. Raises `InputError`
        if `share` is out of range or leaves one part empty.
        """
        if not 0 < share < 1:
            raise InputError(f"{share} is not a share of the images.", "Use a number between 0 and 1, such as 0.2.")
        chosen = np.zeros(len(self._rows), bool)
        hashes = np.array([xxhash.xxh3_64_intdigest(name.encode(), seed) for name in self.names], np.uint64)
        for group in self._split_groups():
            by_hash = group[np.argsort(hashes[group], kind="stable")]
            chosen[by_hash[: round(share * len(group))]] = True
        if not 0 < chosen.sum() < len(chosen):
            raise InputError(
                f"{len(self._rows)} images cannot be split at {share}.", "Use more images, or another share."
            )
        options = self._options
        validation = replace(options, augment=None, order=replace(options.order, shuffle=False))
        return self._select(self._rows[~chosen], options), self._select(self._rows[chosen], validation)

    def show(self, count: int = 16, to: str | Path | None = None) -> Image:
        """Return a picture of the first `count` images of the current epoch in a grid, augmented as for training.

        Under each is its label, or its file name if there are no labels. The picture is saved as PNG at `to` if given.
        Raises `ImageInvalid` for an image that cannot be decoded (with `corrupt="raise"`); `NotFound`, `RemoteError`,
        `ConnectionFailed`, `IntegrityError` or another `HaversackError` for one that cannot be read; and `OSError` if
        `to` cannot be written.
        """
        from haversack.datasets import sheet

        rows = self._rows[self._options.order.samples(self.epoch, 0, count)]
        x, rows = self._loader.submit(rows, self._transform(self.epoch))()
        texts = [
            self._labels.text(row) if self._labels else PurePosixPath(self._loader.names[row]).name for row in rows
        ]
        picture = sheet.draw(x, texts)
        if to is not None:
            picture.save(to, format="PNG")
        return picture

    def close(self) -> None:
        """Drop prefetched batches, stop the threads, and sync the pixel cache.

        No batch can be loaded afterwards, also not from the parts that `split` returned. The data set stays open.
        """
        self._prefetcher.clear()
        self._loader.close()

    def _select(self, rows: NDArray[np.int64], options: BatchOptions) -> Images:
        """Return images of the same class and loader with other rows and options."""
        options = replace(options, order=replace(options.order, count=len(rows)))
        return type(self)(self._loader, self._labels, options, rows)

    def _split_groups(self) -> list[NDArray[np.int64]]:
        """Return the groups that are split separately, as indices into `names`: one per class, else a single one."""
        values = self.labels
        if values is None or values.dtype.kind != "i" or values.ndim > 1:
            return [np.arange(len(self._rows))]
        return [np.flatnonzero(values == one) for one in np.unique(values)]

    def _batch_rows(self, epoch: int, steps: Sequence[int]) -> list[NDArray[np.int64]]:
        """Return this host's rows in each of several batches of an epoch."""
        options = self._options
        parts = options.order.batches(epoch, steps, options.batch_size, options.rank, options.world)
        return [self._rows[part] for part in parts]

    def _submit(self, epoch: int, rows: NDArray[np.int64]) -> PendingBatch:
        return self._loader.submit(rows, self._transform(epoch), self._options.dtype)

    def _transform(self, epoch: int) -> Transform | None:
        """Return the augmentation of an epoch, or None if images are not augmented."""
        augment, seed = self._options.augment, self._options.order.seed
        return augment and (lambda image, row: augment(image, generator(seed, epoch, row)))


class Samples:
    """A random-access sequence of single images for the data loaders of Grain and PyTorch.

    `samples[place]` is (x, y), or x without labels, for the image `images.names[place]`; x has shape (height, width,
    channels) and is augmented for the epoch `images.epoch`. It is decoded in the calling thread or process. Samples may
    be pickled to worker processes. An image that cannot be decoded raises `ImageInvalid`, also with `corrupt="skip"`.
    """

    def __init__(self, images: Images) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images._rows)

    def __getitem__(self, place: int) -> Any:
        images = self._images
        row = int(images._rows[place])
        x = images._loader.load(row, images._transform(images.epoch), images._options.dtype)
        return x if images._labels is None else (x, images._labels.values[row])
