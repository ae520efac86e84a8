"""`Images` as a `keras.utils.PyDataset`, which `model.fit`, `evaluate` and `predict` accept."""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from haversack.datasets.images import BatchOptions, Images
from haversack.datasets.labels import Labels
from haversack.datasets.loader import Loader


class KerasImages(Images, keras.utils.PyDataset):  # type: ignore[misc]
    """`Images` that `model.fit` of Keras accepts. The next batches are decoded while Keras uses the current one.

    Pass `shuffle=False` to `model.fit`: with its default, `shuffle=True`, Keras requests batches in random order, which
    disables prefetching. The images are in a new order in each epoch anyway.
    """

    def __init__(
        self, loader: Loader, labels: Labels | None, options: BatchOptions, rows: NDArray[np.int64] | None = None
    ) -> None:
        keras.utils.PyDataset.__init__(self)
        Images.__init__(self, loader, labels, options, rows)

    @property
    def num_batches(self) -> int:
        return len(self)
