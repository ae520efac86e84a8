"""The images of a data set as batches to train on, read where they lie, decoded once, ready before they are asked for.

    train, valid = data.images(size=(224, 224), channels=1, labels="labels.csv").split(0.2)
    haversack.fit(model, train, validation_data=valid, epochs=20, name="chests")

Which samples a batch has is computed from seed, epoch and step (`order`), so a training goes on at any step of any
epoch, on any number of hosts. How they get ready before they are asked for, stands in `loader`; what a label is, in
`labels`; what becomes of an image's bytes, in `decode`.
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
from haversack.datasets.loader import Finished, ImageChange, Loader, Prefetcher
from haversack.datasets.order import SampleOrder
from haversack.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What is asked of the images, beside which they are; see `Images`."""

    form: Form
    batch_size: int
    order: SampleOrder
    augment: Augment | None
    dtype: str
    rank: int
    world: int


class Images:
    """Batches of images: `images[step]` is the epoch's batch `step`, as is iterating over them; `len` counts them.

    A batch is (x, y), or x without labels: x of shape (batch, height, width, channels), float32 from 0 to 1 or uint8;
    y as `labels` tells. With `corrupt="skip"` a batch may have fewer. Made by `Dataset.images`; a
    `keras.utils.PyDataset` where Keras was imported before, and taken by `haversack.fit` always.
    """

    def __init__(
        self, loader: Loader, labels: Labels | None, plan: Plan, rows: NDArray[np.int64] | None = None
    ) -> None:
        self._loader = loader
        self._labels = labels
        self._plan = plan
        self._rows: NDArray[np.int64] = np.arange(len(loader.names)) if rows is None else rows
        self._alike = plan.augment is None and not plan.order.shuffle
        self._ahead = Prefetcher(loader, self._rows_of, self._begin, again=self._alike)
        self.epoch = 0

    @property
    def names(self) -> list[str]:
        """The images' names, in the data set's order."""
        return [self._loader.names[row] for row in self._rows]

    @property
    def labels(self) -> NDArray[Any] | None:
        """The images' labels, in the same order."""
        return None if self._labels is None else self._labels.values[self._rows]

    @property
    def class_names(self) -> list[str]:
        """The classes' names, by number; none where labels are numbers."""
        return list(self._labels.classes) if self._labels is not None else []

    @property
    def batch_size(self) -> int:
        """Of all hosts together."""
        return self._plan.batch_size

    @property
    def samples(self) -> Samples:
        """Single images, for Grain and torch."""
        return Samples(self)

    def __len__(self) -> int:
        return -(-len(self._rows) // self._plan.batch_size)

    def __getitem__(self, step: int) -> Any:
        return self.batch(self.epoch, range(len(self))[step])

    def __iter__(self) -> Iterator[Any]:
        """An epoch, the next one each time."""
        epoch = self.epoch
        self.epoch += 1
        for step in range(len(self)):
            yield self.batch(epoch, step)

    def __repr__(self) -> str:
        form = " × ".join(map(str, self._plan.form.shape))
        classes = f", {len(self.class_names)} classes" if self.class_names else ""
        return f"<Images {self._loader.dataset.source}: {len(self._rows):,} of {form}{classes}, {len(self):,} batches>"

    def __reduce__(self) -> Any:
        # For worker processes: each makes threads and connections of its own.
        return type(self), (self._loader, self._labels, self._plan, self._rows), {"epoch": self.epoch}

    def on_epoch_end(self) -> None:
        """The next epoch comes: what Keras calls."""
        self.epoch += 1

    def batch(self, epoch: int, step: int) -> Any:
        """Batch `step` of an epoch, both from 0: the same one whenever and wherever it is asked for."""
        x, rows = self._ahead.take(0 if self._alike else epoch, step, len(self))
        return x if self._labels is None else (x, self._labels.values[rows])

    def fingerprint(self) -> dict[str, Any]:
        """What has to stay as it is for a training to go on with these images, as JSON."""
        names = xxhash.xxh3_64_hexdigest("\n".join(self.names).encode())
        labels = None if self.labels is None else xxhash.xxh3_64_hexdigest(np.ascontiguousarray(self.labels).tobytes())
        plan = self._plan
        return {
            "images": names,
            "labels": labels,
            "shape": list(plan.form.shape),
            "fit": plan.form.fit,
            "dtype": plan.dtype,
            "augment": repr(plan.augment) if isinstance(plan.augment, Augmentation) else plan.augment is not None,
            "batch_size": plan.batch_size,
            "seed": plan.order.seed,
            "shuffle": plan.order.shuffle,
        }

    def split(self, share: float, seed: int = 0) -> tuple[Images, Images]:
        """These images in two: the rest, and `share` of them for validation, which is not shuffled or augmented.

        Of each class the same share. An image's part hangs on its name and `seed`, so few change sides when images are
        added. Raises `InputError` for a share that leaves nothing to either.
        """
        if not 0 < share < 1:
            raise InputError(f"{share} is no share of the images.", "Give a number between 0 and 1, such as 0.2.")
        chosen = np.zeros(len(self._rows), bool)
        hashes = np.array([xxhash.xxh3_64_intdigest(name.encode(), seed) for name in self.names], np.uint64)
        for group in self._groups():
            nearest = group[np.argsort(hashes[group], kind="stable")]
            chosen[nearest[: round(share * len(group))]] = True
        if not 0 < chosen.sum() < len(chosen):
            raise InputError(f"{len(self._rows)} images cannot be split at {share}.", "Take more images.")
        plan = self._plan
        later = replace(plan, augment=None, order=replace(plan.order, shuffle=False))
        return self._with(self._rows[~chosen], plan), self._with(self._rows[chosen], later)

    def show(self, count: int = 16, to: str | Path | None = None) -> Image:
        """A picture of the first `count` images of this epoch with their labels; saved as a PNG at `to` if given."""
        from haversack.datasets import sheet

        rows = self._rows[self._plan.order.samples(self.epoch, 0, count)]
        x, rows = self._loader.begin(rows, self._augmenting(self.epoch))()
        said = [self._labels.said(row) if self._labels else PurePosixPath(self._loader.names[row]).name for row in rows]
        picture = sheet.drawn(x, said)
        if to is not None:
            picture.save(to, format="PNG")
        return picture

    def close(self) -> None:
        """Let go of the threads, and bring what was decoded to the disk."""
        self._ahead.clear()
        self._loader.close()

    def _with(self, rows: NDArray[np.int64], plan: Plan) -> Images:
        plan = replace(plan, order=replace(plan.order, count=len(rows)))
        return type(self)(self._loader, self._labels, plan, rows)

    def _groups(self) -> list[NDArray[np.int64]]:
        """Places among these images that are split by themselves: the classes, where there are."""
        values = self.labels
        if values is None or values.dtype.kind != "i" or values.ndim > 1:
            return [np.arange(len(self._rows))]
        return [np.flatnonzero(values == one) for one in np.unique(values)]

    def _rows_of(self, epoch: int, steps: Sequence[int]) -> list[NDArray[np.int64]]:
        plan = self._plan
        return [self._rows[part] for part in plan.order.batches(epoch, steps, plan.batch_size, plan.rank, plan.world)]

    def _begin(self, epoch: int, rows: NDArray[np.int64]) -> Finished:
        return self._loader.begin(rows, self._augmenting(epoch), self._plan.dtype)

    def _augmenting(self, epoch: int) -> ImageChange | None:
        augment, seed = self._plan.augment, self._plan.order.seed
        return augment and (lambda image, row: augment(image, generator(seed, epoch, row)))


class Samples:
    """Single images by number, in the data set's order: (x, y), or x without labels; for Grain and torch.

    They are decoded by whoever asks, such as the workers of a loader, which they may be sent to.
    """

    def __init__(self, images: Images) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images._rows)

    def __getitem__(self, place: int) -> Any:
        images = self._images
        row = int(images._rows[place])
        x = images._loader.sample(row, images._augmenting(images.epoch), images._plan.dtype)
        return x if images._labels is None else (x, images._labels.values[row])
