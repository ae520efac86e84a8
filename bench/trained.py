"""The training that is killed and measured: `python trained.py FOLDER [--megabytes 10] [--epochs 3] [--every SECONDS]`.

A small network with all that makes going on hard: dropout, BatchNormalization, Adam, a schedule by callback, a
validation, a CSV file. It notes each step's end in FOLDER/steps (process, seconds on the system's clock, steps done in
all), and writes FOLDER/NAME.json at its end: hashes of all that has to be the same, however often it was killed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import haversack
from haversack.training.keras import session

FEATURES, BATCH = 64, 64
STEPS = 16
"""Steps of an epoch."""


def model_of(size: int) -> keras.Model:
    """A model whose weights and moments of Adam take about `size` bytes."""
    keras.utils.set_random_seed(1)
    width = int((size / 3 / 4 / 3) ** 0.5)
    layers = [keras.layers.Dense(width, "relu"), keras.layers.BatchNormalization(), keras.layers.Dropout(0.2)]
    hidden = [keras.layers.Dense(width, "relu") for _ in range(3)]
    model = keras.Sequential([keras.Input((FEATURES,)), *layers, *hidden, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-4), "mse", metrics=["mae"])
    return model


def samples(steps: int = STEPS) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(2)
    x = random.normal(size=(steps * BATCH, FEATURES)).astype(np.float32)
    return x, x[:, :1] * x[:, 1:2]


class Steps(keras.callbacks.Callback):
    """Notes when each step ended."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def on_train_begin(self, logs: Any = None) -> None:
        self.opened = open(self.file, "a")  # noqa: SIM115
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.opened.write(f"{os.getpid()} {time.monotonic()} {self.epoch * STEPS + batch + 1}\n")
        self.opened.flush()


def digest(variables: list[Any]) -> str:
    content = [np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value)).tobytes() for variable in variables]
    return hashlib.sha256(b"".join(content)).hexdigest()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", default="run")
    parser.add_argument("--where", help="the store that outlives the machine")
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--every", type=float, help="seconds between two saves, instead of haversack's own rhythm")
    given = parser.parse_args(arguments)
    if given.every is not None:
        session.RHYTHM = session.Rhythm(first=given.every, share=0.0, shortest=given.every, longest=given.every)
    model = model_of(int(given.megabytes * 10**6))
    csv = given.folder / f"{given.name}.csv"
    callbacks = [
        Steps(given.folder / "steps"),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.999),
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=2, min_lr=1e-6),
        keras.callbacks.CSVLogger(csv),
    ]
    rest = {"epochs": given.epochs, "batch_size": BATCH, "validation_data": samples(2), "verbose": 0}
    store = given.where or given.folder
    history = haversack.fit(model, *samples(), name=given.name, where=store, callbacks=callbacks, **rest)
    result = {
        "weights": digest(model.variables),
        "optimizer": digest(model.optimizer.variables),
        "history": {name: [float(value).hex() for value in values] for name, values in history.history.items()},
        "csv": hashlib.sha256(csv.read_bytes()).hexdigest(),
    }
    aside = given.folder / f"{given.name}.aside"
    aside.write_text(json.dumps(result))
    aside.rename(given.folder / f"{given.name}.json")


if __name__ == "__main__":
    main()
