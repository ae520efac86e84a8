"""Images as Keras's own kind of data set, which `model.fit`, `evaluate` and `predict` take as it is."""

from __future__ import annotations

from typing import Any

import keras

from haversack.datasets.images import Images


class KerasImages(Images, keras.utils.PyDataset):
    """See `Images`. Keras asks for one batch after the other; threads of theirs have decoded them by then.

    With its `shuffle=True`, which is `model.fit`'s default, it asks for them to and fro, and nothing is ready ahead.
    """

    def __init__(self, *arguments: Any) -> None:
        keras.utils.PyDataset.__init__(self)
        Images.__init__(self, *arguments)

    @property
    def num_batches(self) -> int:
        return len(self)
