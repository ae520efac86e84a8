"""Several trainings one after the other, as a notebook has them, killed anywhere and run again from the top.

Run as `python notebook.py FOLDER KILL [TRAININGS]`. KILL is where this session kills itself: "TRAINING HOOK NUMBER",
such as "arrays batch 37" or "data_set validation 2", or "" for never. When it reaches the end it writes
FOLDER/result.json: all that has to be the same, whatever happened on the way.
"""

import hashlib
import json
import os
import random
import signal
import sys
from pathlib import Path

import lean  # noqa: F401 - before Keras
import numpy as np

import haversack
from haversack.training.devices import import_keras

keras = import_keras()
from haversack.training.keras import session  # noqa: E402 - Keras's backend is chosen before

layers = keras.layers
FOLDER, KILL = Path(sys.argv[1]), sys.argv[2].split()
RANDOM = np.random.default_rng(7)
X = RANDOM.random((90, 6, 6, 1), dtype="float32")
Y = RANDOM.integers(0, 3, 90)
WEIGHTS = RANDOM.random(90, dtype="float32")
# Every step that the disk has the time for is saved, so that little runs are cut in many ways.
session.RHYTHM = session.Rhythm(first=0.0, share=0.0, shortest=0.0, largest_share=0.0)


class Witness(keras.callbacks.Callback):
    """Notes every batch's loss under its number, remembers a count of its own, and kills where it is told to."""

    def __init__(self, training):
        super().__init__()
        self.training = training
        self.batches = 0
        self.drawn = []

    def on_train_begin(self, logs=None):
        self.file = open(FOLDER / f"{self.training}.batches", "a")  # noqa: SIM115
        with open(FOLDER / "sessions", "a") as sessions:
            sessions.write("a training begins\n")

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        self.file.write(f"{self.epoch} {batch} {float(logs['loss']).hex()}\n")
        self.file.flush()
        self.kill("batch", self.batches)

    def on_test_batch_end(self, batch, logs=None):
        self.kill("validation", self.epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.drawn.append((random.random(), float(np.random.random())))
        self.kill("epoch", epoch)

    def kill(self, hook, number):
        if [self.training, hook, str(number)] == KILL:
            os.kill(os.getpid(), signal.SIGKILL)


class Shuffled(keras.utils.PyDataset):
    """A data set as people write them: it reorders itself after each epoch, and augments with numpy's stream."""

    def __init__(self):
        super().__init__()
        self.rows = np.arange(70)
        self.random = np.random.default_rng(5)

    def __len__(self):
        return 5

    def __getitem__(self, index):
        rows = self.rows[index * 16 : (index + 1) * 16]
        return X[rows] + np.float32(0.01 * np.random.random()), Y[rows]

    def on_epoch_end(self):
        self.random.shuffle(self.rows)


def model(optimizer, *middle, **arguments):
    built = keras.Sequential([keras.Input((6, 6, 1)), *middle, layers.Flatten(), layers.Dropout(0.3)])
    built.add(layers.Dense(3, "softmax", dtype="float32"))
    built.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **arguments)
    return built


def arrays():
    trained = model(keras.optimizers.Adam(0.01), layers.Conv2D(3, 3), layers.BatchNormalization(), layers.ReLU())
    callbacks = [
        Witness("arrays"),
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=0.05, min_lr=1e-5),
        keras.callbacks.EarlyStopping("val_loss", patience=4, min_delta=0.02, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(FOLDER / "best.weights.h5", save_best_only=True, save_weights_only=True),
        keras.callbacks.CSVLogger(FOLDER / "arrays.csv"),
    ]
    arguments = {"sample_weight": WEIGHTS, "validation_split": 0.2, "batch_size": 16}
    return (
        trained,
        callbacks,
        haversack.fit(trained, X, Y, name="arrays", epochs=14, verbose=0, callbacks=callbacks, **arguments),
    )


def data_set():
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True, ema_momentum=0.8)
    trained = model(optimizer, layers.GaussianNoise(0.1), steps_per_execution=2)
    callbacks = [
        Witness("data_set"),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        keras.callbacks.SwapEMAWeights(),
    ]
    arguments = {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}, "validation_data": (X[70:], Y[70:])}
    return (
        trained,
        callbacks,
        haversack.fit(trained, Shuffled(), name="data_set", epochs=5, verbose=0, callbacks=callbacks, **arguments),
    )


def augmented():
    schedule = keras.optimizers.schedules.CosineDecay(0.02, 30)
    inner = keras.optimizers.Adam(schedule, gradient_accumulation_steps=3, clipnorm=1.0)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, dynamic_growth_steps=4)
    keras.config.set_dtype_policy("mixed_float16")
    trained = model(optimizer, layers.RandomTranslation(0.2, 0.2), layers.Conv2D(2, 3))
    keras.config.set_dtype_policy("float32")
    callbacks = [Witness("augmented"), keras.callbacks.CSVLogger(FOLDER / "augmented.csv", append=True)]
    return (
        trained,
        callbacks,
        haversack.fit(
            trained, X, Y, name="augmented", epochs=4, batch_size=12, steps_per_epoch=3, verbose=0, callbacks=callbacks
        ),
    )


class Pairs(keras.utils.PyDataset):
    """Two inputs and two targets by name, read ahead by threads."""

    def __init__(self, batches):
        super().__init__(workers=2)
        self.batches = batches

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        rows = slice(index * 16, (index + 1) * 16)
        images = {"image": X[rows], "side": WEIGHTS[rows, None]}
        return images, {"kind": Y[rows], "weight": WEIGHTS[rows]}, {"kind": WEIGHTS[rows], "weight": WEIGHTS[rows]}


def read_ahead():
    image, side = keras.Input((6, 6, 1), name="image"), keras.Input((1,), name="side")
    joined = layers.Dropout(0.2)(layers.Concatenate()([layers.Flatten()(image), side]))
    targets = {
        "kind": layers.Dense(3, "softmax", name="kind")(joined),
        "weight": layers.Dense(1, name="weight")(joined),
    }
    trained = keras.Model({"image": image, "side": side}, targets)
    losses = {"kind": "sparse_categorical_crossentropy", "weight": "mse"}
    trained.compile("adam", losses, metrics={"kind": ["accuracy"]}, loss_weights={"kind": 1.0, "weight": 0.5})
    best = keras.callbacks.ModelCheckpoint(
        FOLDER / "pairs.weights.h5", "loss", save_best_only=True, save_weights_only=True, save_freq=4
    )
    callbacks = [Witness("read_ahead"), best, keras.callbacks.TerminateOnNaN()]
    arguments = {"validation_data": Pairs(2), "validation_freq": 2, "initial_epoch": 1}
    return (
        trained,
        callbacks,
        haversack.fit(trained, Pairs(5), name="read_ahead", epochs=5, verbose=0, callbacks=callbacks, **arguments),
    )


def numbers(variables):
    content = [np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value)).tobytes() for variable in variables]
    return hashlib.sha256(b"".join(content)).hexdigest()


def result(training, trained, callbacks, history):
    noted = dict(line.rsplit(" ", 1) for line in (FOLDER / f"{training}.batches").read_text().splitlines())
    csv = FOLDER / f"{training}.csv"
    return {
        "weights": numbers(trained.variables),
        "optimizer": numbers(trained.optimizer.variables),
        "metrics": numbers(trained.metrics_variables),
        "history": {name: [float(value).hex() for value in values] for name, values in history.history.items()},
        "epochs": history.epoch,
        "batches": noted,
        "counted": callbacks[0].batches,
        "drawn": callbacks[0].drawn,
        "csv": csv.read_text() if csv.exists() else "",
        "counters": {
            f"{type(one).__name__} {name}": str(getattr(one, name))
            for one in callbacks
            for name in ("wait", "best", "cooldown_counter", "stopped_epoch", "best_epoch")
            if hasattr(one, name)
        },
        "streams": [random.random(), float(np.random.random())],
    }


def main():
    results = {}
    chosen = sys.argv[3].split() if sys.argv[3:] and sys.argv[3] else ["arrays", "data_set", "augmented", "read_ahead"]
    for seed, training in enumerate(globals()[name] for name in chosen):
        keras.utils.set_random_seed(seed)
        results[training.__name__] = result(training.__name__, *training())
    again = model("sgd")
    results["one more epoch"] = len(again.fit(X, Y, epochs=1, verbose=0).history["loss"])
    (FOLDER / "result.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
