"""What the user would call the data that `model.fit` got: "a tf.data.Dataset", "a torch DataLoader", …

A class is recognized by the module and name of the classes that it derives from, as in Keras itself. So no framework is
imported, and an object of another library with the same methods is not mistaken for one.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

# (module, as a prefix, class, what a user calls its objects), the first that fits.
_KINDS = (
    ("tensorflow", "DatasetV2", "a tf.data.Dataset"),
    ("tensorflow", "DistributedDatasetInterface", "a distributed tf.data.Dataset"),
    ("torch.utils.data", "DataLoader", "a torch DataLoader"),
    ("torch.utils.data", "Dataset", "a torch Dataset"),
    ("grain", "MapDataset", "a grain data set"),
    ("grain", "IterDataset", "a grain data set"),
    ("grain", "DataLoader", "a grain DataLoader"),
    ("datasets", "Dataset", "a Hugging Face data set"),
    ("datasets", "IterableDataset", "a Hugging Face data set"),
    ("keras", "PyDataset", "a keras.utils.PyDataset"),
)


def kind_of(x: Any) -> str:
    """Return what `x` is, in words with an article. Never raises, whatever `x` is."""
    if isinstance(x, types.GeneratorType):
        return "a generator"
    for parent in type(x).__mro__:
        for module, name, kind in _KINDS:
            if parent.__name__ == name and f"{parent.__module__}.".startswith(f"{module}."):
                return kind
    name = "iterator" if isinstance(x, Iterator) else type(x).__name__
    return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"
