"""A small training that the world around it disturbs; a session of it runs as

    python faulty.py NAME WHERE OPTIONS

where OPTIONS is JSON: `gate` (after this many batches of the session it waits for the file `opens`), `pause` (seconds
for each batch after that), `until` (a file that ends the training), `take_over`. It prints a line for each batch, its
number over all sessions first, and at the end the hash of its weights, or the error that ended it.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

import lean  # noqa: F401 - before Keras
import numpy as np

import haversack
from haversack.training.devices import import_keras

keras = import_keras()
from haversack.training.keras import session  # noqa: E402 - Keras's backend is chosen before

session.RHYTHM = session.Rhythm(first=0.0, share=0.0, shortest=0.0, largest_share=0.0)
NAME, WHERE, OPTIONS = sys.argv[1], sys.argv[2] or None, json.loads(sys.argv[3])
X = np.random.default_rng(7).random((40, 4), dtype="float32")


class Disturbed(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches = 0
        self.session = iter(range(1, 100_000))  # is not remembered

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        print("batch", self.batches, time.time(), flush=True)
        if next(self.session) == OPTIONS.get("gate"):
            while not Path(OPTIONS["opens"]).exists():
                time.sleep(0.02)
        time.sleep(OPTIONS.get("pause", 0.0))
        if "until" in OPTIONS and Path(OPTIONS["until"]).exists():
            self.model.stop_training = True


def main():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.2), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    epochs = 100_000 if "until" in OPTIONS else 6
    arguments = {"epochs": epochs, "batch_size": 8, "verbose": 0, "callbacks": [Disturbed()]}
    try:
        haversack.fit(
            model, X, X[:, :1], name=NAME, where=WHERE, take_over=OPTIONS.get("take_over", False), **arguments
        )
    except haversack.errors.TrainingError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    else:
        print("weights", hashlib.sha256(b"".join(one.tobytes() for one in model.get_weights())).hexdigest())


if __name__ == "__main__":
    main()
