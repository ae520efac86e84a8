"""What is trained once on one device and once on eight; prints every number that has to agree, as one JSON object.

Run as `python scenarios.py` with the number of devices in XLA_FLAGS. Each scenario returns lists of numbers by name.
"""

import contextlib
import io
import json
import warnings

import lean  # noqa: F401 - before Keras
import numpy as np

import haversack
from haversack.training.devices import import_keras

keras = import_keras()
layers = keras.layers
RANDOM = np.random.default_rng(7)
X = RANDOM.random((96, 8, 8, 1), dtype="float32")
Y = RANDOM.integers(0, 3, 96)
WEIGHTS = RANDOM.random(96, dtype="float32")


def model(dropout=0.0):
    keras.utils.set_random_seed(11)
    built = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.BatchNormalization()])
    for layer in (layers.ReLU(), layers.Flatten(), layers.Dropout(dropout), layers.Dense(3, "softmax")):
        built.add(layer)
    return compiled(built)


def compiled(built, **arguments):
    metrics = {"metrics": ["accuracy"], "weighted_metrics": ["accuracy"]}
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    built.compile(optimizer, "sparse_categorical_crossentropy", **metrics, **arguments)
    return built


def numbers(trained):
    """Every weight, moving average and metric of a model."""
    variables = [*trained.weights, *trained.metrics_variables, *trained.optimizer.variables]
    return [float(number) for variable in variables for number in np.ravel(keras.ops.convert_to_numpy(variable.value))]


def built_before_the_cores_were_found():
    early = model(dropout=0.3)
    first = early.fit(X[:69], Y[:69], batch_size=32, verbose=0)
    system = listing()
    then = haversack.fit(early, X[:69], Y[:69], batch_size=32, verbose=0)
    after = early.evaluate(X[:69], Y[:69], verbose=0)
    losses = {"first": first.history["loss"], "then": then.history["loss"]}
    return {**losses, "after": after, "all": numbers(early), **system}


def listing():
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        system = haversack.distribute()
        again = haversack.distribute()
    return {"listing": printed.getvalue(), "cores": system.cores, "same": system == again}


def tails_of_every_size():
    trained, found = model(), {}
    for count in (33, 64 + 5, 64 + 8, 64 + 13, 3):
        history = haversack.fit(trained, X[:count], Y[:count], batch_size=32, verbose=0, shuffle=False).history
        found[f"fit {count}"] = [value for values in history.values() for value in values]
        found[f"all {count}"] = numbers(trained)
    return found


def plain_fit_with_validation_and_dropout():
    trained = model(dropout=0.4)
    history = trained.fit(X, Y, batch_size=24, epochs=3, validation_split=0.22, verbose=0).history
    return {**history, "all": numbers(trained)}


def weighted_samples_and_classes():
    trained, rows = model(), slice(0, 45)
    by_sample = haversack.fit(trained, X[rows], Y[rows], sample_weight=WEIGHTS[rows], verbose=0).history
    by_class = haversack.fit(trained, X[rows], Y[rows], class_weight={0: 1.0, 1: 3.0, 2: 0.2}, verbose=0).history
    return {"by sample": by_sample["loss"], "by class": by_class["loss"], "all": numbers(trained)}


def evaluate_and_predict():
    trained = model()
    return {
        "evaluate": trained.evaluate(X[:77], Y[:77], sample_weight=WEIGHTS[:77], verbose=0),
        "predict": trained.predict(X[:77], verbose=0).ravel().tolist(),
        "predict three": trained.predict(X[:3], verbose=0).ravel().tolist(),
        "train on five": [float(value) for value in trained.train_on_batch(X[:5], Y[:5])],
    }


def two_inputs_several_steps_per_execution():
    keras.utils.set_random_seed(5)
    image, side = keras.Input((8, 8, 1), name="image"), keras.Input((2,), name="side")
    joined = layers.Concatenate()([layers.Flatten()(image), side])
    trained = compiled(keras.Model([image, side], layers.Dense(3, "softmax")(joined)), steps_per_execution=2)
    x = {"image": X[:77], "side": np.stack([WEIGHTS, -WEIGHTS], axis=1)[:77]}
    history = haversack.fit(trained, x, Y[:77], batch_size=16, epochs=2, verbose=0).history
    return {"loss": history["loss"], "predict": trained.predict(x, batch_size=16, verbose=0).ravel().tolist()}


def a_data_set_of_batches():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            rows = slice(index * 30, min(77, (index + 1) * 30))
            return X[rows], Y[rows]

    trained = model()
    history = haversack.fit(trained, Batches(), shuffle=False, verbose=0).history
    return {"loss": history["loss"], "all": numbers(trained)}


def augmentation_outside_the_compiled_step():
    """Keras does not compile a step with RandomTranslation in it: every operation is a program of its own."""
    keras.utils.set_random_seed(3)
    shifted = [keras.Input((8, 8, 1)), layers.RandomTranslation(0.2, 0.2, seed=1), layers.Flatten(), layers.Dense(3)]
    trained = compiled(keras.Sequential([*shifted, layers.Softmax()]))
    history = haversack.fit(trained, X[:69], Y[:69], batch_size=32, epochs=2, verbose=0, shuffle=False).history
    return {"compiled": trained.jit_compile, "loss": history["loss"], "all": numbers(trained)}


def words():
    """What a user is told: the text of warnings and errors."""
    trained, told = model(), {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        haversack.fit(trained, X[:10], Y[:10], batch_size=5, verbose=0)
    told["indivisible"] = [str(warning.message) for warning in caught]
    for name, call in {
        "no model": lambda: haversack.fit(X, Y),
        "unknown argument": lambda: haversack.fit(trained, X, Y, epoch=3),
        "not compiled": lambda: haversack.fit(keras.Sequential([layers.Dense(3)]), X, Y),
    }.items():
        try:
            call()
        except (TypeError, ValueError) as error:
            told[name] = f"{type(error).__name__}: {error}"
    return told


def another_distribution():
    """What our changes leave alone: Keras's own data parallelism, which cannot take a batch that does not divide."""
    ours = keras.distribution.distribution()
    stock = keras.distribution.DataParallel()
    keras.distribution.set_distribution(stock)
    trained = model()
    whole = haversack.fit(trained, X, Y, batch_size=32, verbose=0, shuffle=False).history["loss"]
    kept = keras.distribution.distribution() is stock
    try:
        haversack.fit(trained, X[:69], Y[:69], batch_size=32, verbose=0)
        tail = "trained"
    except ValueError as error:
        tail = str(error)
    keras.distribution.set_distribution(ours)
    return {"whole": whole, "kept": kept, "tail": tail}


SCENARIOS = [
    built_before_the_cores_were_found,
    tails_of_every_size,
    plain_fit_with_validation_and_dropout,
    weighted_samples_and_classes,
    evaluate_and_predict,
    two_inputs_several_steps_per_execution,
    a_data_set_of_batches,
    augmentation_outside_the_compiled_step,
    words,
    another_distribution,
]

if __name__ == "__main__":
    print(json.dumps({scenario.__name__: scenario() for scenario in SCENARIOS}))
