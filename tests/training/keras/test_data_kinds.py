"""Data is told by the classes that it derives from, whatever methods it has."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from haversack.training.keras.data_kinds import kind_of
from tests.training.conftest import LEAN

# A class with the methods of a tf.data.Dataset by which haversack's own images were once recognized.
PROGRAM = """
import numpy as np
from unittest.mock import MagicMock
from haversack.training.keras import data
class DatasetV2:
    __module__ = "tensorflow.python.data.ops.dataset_ops"
    def batch(self, size): raise TypeError("Cannot iterate over a scalar tensor.")
    fingerprint = batch
    def __len__(self): return 8
class Ours(DatasetV2):
    random_access_batches = True
x, y = np.ones(3), np.ones(3)
print([data.is_random_access(one) for one in (Ours(), DatasetV2(), MagicMock(), MagicMock, x, None)])
print(data.reason_not_seekable(DatasetV2(), (DatasetV2(), None, None), None))
print(data.reason_not_seekable(x, (x, y, None), iter([])))
print(data.reason_not_seekable(x, (x, y, None), (x, y)))
"""


def made_by(module: str, name: str) -> Any:
    """An object of a class as the library `module` defines it; the real ones are met in tests/frameworks."""
    return type("Own", (type(name, (), {"__module__": module}),), {})()


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (made_by("tensorflow.python.data.ops.dataset_ops", "DatasetV2"), "a tf.data.Dataset"),
        (made_by("torch.utils.data.dataloader", "DataLoader"), "a torch DataLoader"),
        (made_by("grain._src.python.dataset.dataset", "MapDataset"), "a grain data set"),
        (made_by("datasets.arrow_dataset", "Dataset"), "a Hugging Face data set"),
        (made_by("datasets_of_mine", "Dataset"), "an Own"),
        (made_by("keras.src.trainers.data_adapters.py_dataset_adapter", "PyDataset"), "a keras.utils.PyDataset"),
        ((one for one in ()), "a generator"),
        (iter([]), "an iterator"),
        ([1], "a list"),
    ],
)
def test_it_is_called_what_its_user_calls_it(x: Any, kind: str) -> None:
    assert kind_of(x) == kind


def test_methods_alone_make_no_random_access_and_the_reason_names_the_data() -> None:
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", LEAN + PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[True, False, False, False, False, False]",
        "a tf.data.Dataset cannot be asked for its 1,000th batch; use arrays or a keras.utils.PyDataset",
        "an iterator as validation_data cannot be rewound; use arrays or a keras.utils.PyDataset",
        "None",
    ]
