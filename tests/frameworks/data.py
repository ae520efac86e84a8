"""A notebook that calls plain `model.fit` with every kind of data that notebooks use, and some that Keras refuses."""

from __future__ import annotations

from pathlib import Path

from tests.notebook import notebooks

_SETUP = """
import os
os.environ["KERAS_BACKEND"] = {backend!r}
import keras, numpy as np
x, y = np.random.rand(40, 3).astype("float32"), np.random.rand(40, 1).astype("float32")
def train(label, *arguments, **options):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    try:
        assert len(model.fit(*arguments, epochs=2, verbose=0, **options).history["loss"]) == 2
    except Exception as error:
        print("result", label, type(error).__name__)
    else:
        print("result", label, "ok")
"""
IN_NUMPY = (
    """
train("numpy", x, y); train("split", x, y, validation_split=0.2); train("steps", x, y, steps_per_epoch=1)
train("one of several inputs", [x], y); train("class weight", x, y, class_weight={0: 1.0})
train("lists", x.tolist(), y.tolist()); train("no sample", x[:0], y[:0]); train("other lengths", x, y[:30])
train("text", np.array(["a"] * 40), y); train("nothing"); train("unknown option", x, y, nonsense=1)
train("masked", np.ma.array(x, mask=False), y)
""",
    """
def batches():
    while True:
        yield x[:8], y[:8]
class Batches(keras.utils.PyDataset):
    def __len__(self): return 4
    def __getitem__(self, index): return x[:8], y[:8]
class Endless(Batches):
    num_batches = None
class LooksLikeOurs:
    def batch(self, epoch, step): return x[:8], y[:8]
    def fingerprint(self): return {}
    def __len__(self): return 4
train("generator", batches(), steps_per_epoch=3); train("iterator", iter([(x, y)]), steps_per_epoch=1)
train("validation generator", x, y, validation_data=batches(), validation_steps=2)
train("PyDataset", Batches(), validation_data=Batches()); train("endless", Endless(), steps_per_epoch=3)
train("like ours", LooksLikeOurs())
""",
)
IN_TENSORFLOW = (
    """
import tensorflow as tf
data = tf.data.Dataset.from_tensor_slices((x, y))
train("tf.data", data.shuffle(40).batch(8)); train("tf.data for validation", x, y, validation_data=data.batch(8))
train("repeated", data.repeat().batch(8), steps_per_epoch=3); train("iterator of tf.data", iter(data.batch(8)))
train("tensors", tf.constant(x), tf.constant(y)); train("variable", tf.Variable(x), y)
train("ragged", x, tf.ragged.constant([[1.0]] * 40)); train("sparse", tf.sparse.from_dense(x), y)
""",
    """
import pandas as pd, polars as pl
train("pandas", pd.DataFrame(x), pd.Series(y[:, 0]), validation_split=0.2)
train("polars", pl.DataFrame(x), pl.Series(y[:, 0]))
train("objects", pd.DataFrame(x).astype(object), y)
""",
    """
import grain
train("grain", grain.MapDataset.source(list(zip(x, y))).batch(8))
""",
)
IN_TORCH = (
    """
import torch
from torch.utils.data import DataLoader, TensorDataset
data = TensorDataset(torch.tensor(x), torch.tensor(y))
train("DataLoader", DataLoader(data, batch_size=8, shuffle=True)); train("torch Dataset", data)
train("DataLoader for validation", x, y, validation_data=DataLoader(data, batch_size=8))
train("torch tensors", torch.tensor(x), torch.tensor(y)); train("gradients", torch.tensor(x, requires_grad=True), y)
""",
)


def write_notebook(path: Path, backend: str, *cells: str) -> Path:
    return notebooks.write(path, _SETUP.format(backend=backend), *cells)


def results(executed: Path) -> list[str]:
    """Label and result of each training, in order: "ok" or the class of the error."""
    text = "".join(notebooks.text(executed, index) for index in range(len(notebooks.read(executed).cells)))
    return [line.removeprefix("result ") for line in text.splitlines() if line.startswith("result ")]
