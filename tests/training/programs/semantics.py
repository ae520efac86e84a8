"""The same trainings by `model.fit` and by `haversack.fit` with a name; prints what came of both as one JSON object.

Run as `python semantics.py`. Nothing is shuffled, since the order of the data is the one thing that is to differ.
"""

import json

import lean  # noqa: F401 - before Keras
import numpy as np

import haversack
from haversack.training.devices import import_keras

keras = import_keras()
layers = keras.layers
RANDOM = np.random.default_rng(1)
X, Y, W = RANDOM.random((70, 5), dtype="float32"), RANDOM.integers(0, 3, 70), RANDOM.random(70, dtype="float32")
PARTS = {"left": X[:, :3], "right": X[:, 3:]}


class Calls(keras.callbacks.Callback):
    """Notes whatever it is told, and stops the training after a number of batches."""

    def __init__(self, stop=0):
        super().__init__()
        self.calls = []
        self.left = stop

    def on_train_begin(self, logs=None):
        self.calls.append(["train", {name: str(value) for name, value in self.params.items()}])

    def on_train_end(self, logs=None):
        self.calls.append(["trained", {name: float(value) for name, value in (logs or {}).items()}])

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(["epoch", epoch])

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(["epoch done", epoch, sorted(logs)])

    def on_train_batch_begin(self, batch, logs=None):
        self.calls.append(["batch", batch])

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(["batch done", batch, float(logs["loss"])])
        self.left -= 1
        self.model.stop_training = self.left == 0 or self.model.stop_training

    def on_test_batch_end(self, batch, logs=None):
        self.calls.append(["validation", batch])


class Batches(keras.utils.PyDataset):
    def __init__(self, count, weighted=False, **arguments):
        super().__init__(**arguments)
        self.count, self.weighted, self.told = count, weighted, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rows = slice(index * 14, (index + 1) * 14)
        return (X[rows], Y[rows], W[rows]) if self.weighted else (X[rows], Y[rows])

    def on_epoch_begin(self):
        self.told.append("begin")

    def on_epoch_end(self):
        self.told.append("end")


def one_input(steps_per_execution=1):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((5,)), layers.Dropout(0.3), layers.Dense(3, "softmax")])
    loss, metrics = "sparse_categorical_crossentropy", ["accuracy"]
    model.compile("adam", loss, metrics=metrics, steps_per_execution=steps_per_execution)
    return model


def two_of_each():
    keras.utils.set_random_seed(3)
    inputs = {name: keras.Input(part.shape[1:], name=name) for name, part in PARTS.items()}
    joined = layers.Concatenate()(list(inputs.values()))
    targets = {"kind": layers.Dense(3, "softmax", name="kind")(joined), "sum": layers.Dense(1, name="sum")(joined)}
    model = keras.Model(inputs, targets)
    model.compile("adam", {"kind": "sparse_categorical_crossentropy", "sum": "mse"}, metrics={"kind": ["accuracy"]})
    return model


def names():
    targets = {"kind": Y, "sum": X.sum(axis=1, keepdims=True)}
    weights = {"kind": W, "sum": 2 * W}
    validation = {"validation_split": 0.2, "validation_batch_size": 5, "validation_freq": 2}
    return two_of_each(), (PARTS, targets), {"sample_weight": weights, "epochs": 5, "initial_epoch": 1, **validation}


def classes():
    validation = {"validation_data": (X[:20], Y[:20], W[:20]), "validation_steps": 2, "validation_freq": [1, 3]}
    arguments = {"class_weight": {0: 1.0, 1: 2.0, 2: 0.3}, "batch_size": 8, "steps_per_epoch": 4, "epochs": 4}
    return one_input(3), (X, Y), {**arguments, **validation}


def data_sets(workers=1):
    arguments = {"epochs": 3, "validation_data": Batches(2, workers=workers)}
    return one_input(), (Batches(5, True, workers=workers),), arguments


def short_epochs(workers=1):
    return one_input(), (Batches(5, workers=workers),), {"epochs": 4, "steps_per_epoch": 2}


def ahead(make):
    """The same, read ahead by threads: Keras itself then gives batches in another order."""
    return lambda: make(workers=3)


def stopped():
    return one_input(), (Batches(5),), {"epochs": 3, "validation_data": (X, Y), "callbacks": [Calls(stop=7)]}


def nothing_to_do():
    return one_input(), (X, Y), {"epochs": 2, "initial_epoch": 2}


def trained(make, name=None):
    model, given, arguments = make()
    arguments = {"verbose": 0, "shuffle": False, "callbacks": [Calls()], **arguments}
    fit = model.fit if name is None else lambda *data, **more: haversack.fit(model, *data, name=name, **more)
    history = fit(*given, **arguments)
    return {
        "history": history.history,
        "epochs": history.epoch,
        "calls": arguments["callbacks"][0].calls,
        "data set": [one.told for one in (*given, arguments.get("validation_data")) if isinstance(one, Batches)],
        "weights": [weight.tolist() for weight in model.get_weights()],
    }


if __name__ == "__main__":
    results = {}
    for case in (names, classes, data_sets, short_epochs, stopped, nothing_to_do):
        results[case.__name__] = [trained(case), trained(case, case.__name__)]
    for case in (data_sets, short_epochs):
        name = f"{case.__name__} read ahead"
        results[name] = [results[case.__name__][0], trained(ahead(case), name)]
    print(json.dumps(results))
