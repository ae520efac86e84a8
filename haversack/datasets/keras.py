"""Images as Keras's own kind of data set, which `model.fit`, `evaluate` and `predict` take as it is."""

from __future__ import annotations

from typing import Any

import keras

from haversack.datasets.images import Images


class KerasImages(Images, keras.utils.PyDataset):
    """See `Images`. One of Keras's threads asks for batches, which are decoded by threads of their own."""

    def __init__(self, *arguments: Any) -> None:
        keras.utils.PyDataset.__init__(self, workers=1, max_queue_size=2)
        Images.__init__(self, *arguments)

    @property
    def num_batches(self) -> int:
        return len(self)
