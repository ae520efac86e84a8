"""Data is told by the classes that it derives from, whatever methods it has."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import keras
import numpy as np
import pytest

from haversack.training.keras import data
from haversack.training.keras.data_kinds import kind_of


def class_of(module: str, name: str, *bases: type) -> type:
    """A class as the library `module` defines it; the real ones are met in tests/frameworks."""
    return type(name, bases, {"__module__": module})


class LikeTensorFlow(class_of("tensorflow.python.data.ops.dataset_ops", "DatasetV2")):  # type: ignore[misc]
    """With the methods of a tf.data.Dataset by which haversack's own images were once recognized."""

    def batch(self, size: int) -> Any:
        raise TypeError("Cannot iterate over a scalar tensor.")

    def fingerprint(self) -> Any:
        raise TypeError("Cannot iterate over a scalar tensor.")

    def __len__(self) -> int:
        return 8


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    pass


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (LikeTensorFlow(), "a tf.data.Dataset"),
        (class_of("torch.utils.data.dataloader", "DataLoader")(), "a torch DataLoader"),
        (class_of("grain._src.python.dataset.dataset", "MapDataset")(), "a grain data set"),
        (class_of("datasets.arrow_dataset", "Dataset")(), "a Hugging Face data set"),
        (class_of("my_datasets", "Dataset")(), "a Dataset"),
        ((one for one in ()), "a generator"),
        (iter([]), "an iterator"),
        (Batches(), "a keras.utils.PyDataset"),
        ([1], "a list"),
    ],
)
def test_it_is_called_what_its_user_calls_it(x: Any, kind: str) -> None:
    assert kind_of(x) == kind


@pytest.mark.parametrize("x", [LikeTensorFlow(), MagicMock(), MagicMock, np.ones(3), None])
def test_methods_alone_make_no_random_access(x: Any) -> None:
    assert not data.is_random_access(x)


def test_the_reason_names_the_data() -> None:
    x, y = np.ones(3), np.ones(3)
    reason = data.reason_not_seekable(LikeTensorFlow(), (LikeTensorFlow(), None, None), None)
    assert reason == "a tf.data.Dataset cannot be asked for its 1,000th batch; use arrays or a keras.utils.PyDataset"
    reason = data.reason_not_seekable(x, (x, y, None), iter([]))
    assert reason == "an iterator as validation_data cannot be rewound; use arrays or a keras.utils.PyDataset"
    assert data.reason_not_seekable(x, (x, y, None), (x, y)) is None
