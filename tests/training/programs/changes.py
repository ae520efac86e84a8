"""What becomes of a run whose code, settings or data are others in the next session; prints one JSON object.

Run as `python changes.py FOLDER`. The pieces are those of `conversations`.
"""

import contextlib
import json
import sys
from functools import partial

import numpy as np
from conversations import At, X, Y, fit, interrupt, keras, model, said

import haversack

SGD = keras.optimizers.SGD
Adam = keras.optimizers.Adam
SCALE = 2.0


def scaled(by):
    return lambda x: x * by


def by_global(x):
    return x * SCALE


def own_layer(by):
    class Own(keras.layers.Layer):
        def call(self, x):
            return self.times(x)

    def twice(self, x):
        """Twice."""
        return x * 2

    def thrice(self, x):
        return x * 3

    Own.times = twice if by == 2 else thrice
    return Own()


def own_loss(power):
    def error(y, predicted):
        return keras.ops.mean(keras.ops.abs(y - predicted) ** power)

    return error


def coded(by=2, function=lambda x: x * 2, layer=2, power=2, name="error", penalty=0.1, loss=None, metrics=()):
    """A model with code in many places."""
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Lambda(one) for one in (scaled(by), by_global, function)]
    dense = keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(penalty))
    built = keras.Sequential([keras.Input((4,)), *layers, own_layer(layer), dense])
    metrics = [keras.metrics.MeanAbsoluteError(name=name), *metrics]
    built.compile("sgd", loss or own_loss(power), metrics=metrics)
    return built


def again(name, first, second, **options):
    """What the second training says that is asked to go on with the first one's run."""
    fit(first, name=name, epochs=1)
    return said(lambda: fit(second, name=name, epochs=2, **options))


def code():
    global SCALE
    others = {
        "lambda": {"function": lambda x: x * 3},
        "closure": {"by": 3},
        "layer": {"layer": 3},
        "loss": {"loss": "mae"},
        "own loss": {"power": 1},
        "metric": {"metrics": ["mape"]},
        "renamed": {"name": "mistake"},
        "regularizer": {"penalty": 0.2},
    }
    fit(coded(), name="coded", epochs=1)
    words = {what: said(partial(fit, coded(**other), name="coded", epochs=2)) for what, other in others.items()}
    SCALE = 3.0
    words["global"] = said(lambda: fit(coded(), name="coded", epochs=2))
    SCALE = 2.0
    words["same"] = said(lambda: fit(coded(function=lambda x: x * 2), name="coded", epochs=2))
    words["same loss"] = again("mse", model(), _compiled("mean_squared_error"))
    words["named loss"] = said(lambda: fit(_compiled("mae"), name="mse", epochs=3))
    return words


def _compiled(loss):
    other = model()
    other.compile("adam", loss)
    return other


def learning_rates():
    decay = keras.optimizers.schedules.CosineDecay
    smaller = model(optimizer=SGD(1e-4))
    return {
        "float": again("rate", model(optimizer=SGD(0.01)), smaller),
        "in force": float(smaller.optimizer.learning_rate),
        "unchanged": said(lambda: fit(model(optimizer=SGD(1e-4)), name="rate", epochs=3)),
        "nothing left": said(lambda: fit(model(optimizer=SGD(0.5)), name="rate", epochs=3)),
        "schedule": again("decay", model(optimizer=SGD(decay(0.1, 100))), model(optimizer=SGD(decay(0.1, 200)))),
        "to schedule": again("to decay", model(optimizer=SGD(0.01)), model(optimizer=SGD(decay(0.1, 200)))),
        "from schedule": said(lambda: fit(model(optimizer=SGD(0.02)), name="to decay", epochs=3)),
        "setting": again("beta", model(optimizer=Adam()), model(optimizer=Adam(beta_1=0.8))),
        "variables": again("momentum", model(optimizer=SGD()), model(optimizer=SGD(momentum=0.9))),
        "scaled": again("scaled", *(model(optimizer=_loss_scaled(rate)) for rate in (0.01, 0.02))),
    }


def _loss_scaled(rate):
    return keras.optimizers.LossScaleOptimizer(SGD(rate))


def moved_rates():
    """A callback has changed the learning rate: the code still begins with the one that it began with, or not."""

    def halved():
        return [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)]

    kept, begun = model(optimizer=SGD(0.08)), model(optimizer=SGD(0.08))
    fit(model(optimizer=SGD(0.08)), name="moved", epochs=2, callbacks=halved())
    words = {"kept": said(lambda: fit(kept, name="moved", epochs=3)), "rate": float(kept.optimizer.learning_rate)}
    with contextlib.suppress(KeyboardInterrupt):
        fit(begun, name="here", epochs=3, callbacks=[*halved(), At(7, interrupt)])
    words["same process"] = said(lambda: fit(begun, name="here", epochs=3, callbacks=halved()))
    words["same process, rate"] = float(begun.optimizer.learning_rate)
    fit(model(optimizer=SGD(0.08)), name="set", epochs=1)
    begun.optimizer.learning_rate = 0.5
    words["set by hand"] = said(lambda: fit(begun, name="set", epochs=2))
    return words


def data():
    x = np.random.default_rng(1).random((4000, 4), dtype="float32")
    other, y = x.copy(), x.sum(axis=1)
    other[1005:1008] += 1  # none of the rows that a sketch takes
    fit(model(), x, y, name="rows", epochs=1, batch_size=2000)
    words = {"rows": said(lambda: fit(model(), other, y, name="rows", epochs=2, batch_size=2000))}
    fit(model(), name="validated", epochs=1, validation_data=(X, Y))
    words["validation"] = said(lambda: fit(model(), name="validated", epochs=2, validation_data=(X + 1, Y)))
    fit(model(), name="weighted", epochs=1, class_weight={0: 1.0, 1: 2.0})
    words["class weight"] = said(lambda: fit(model(), name="weighted", epochs=2, class_weight={0: 1.0, 1: 3.0}))
    fit(model(), name="by sample", epochs=1, sample_weight=np.ones(40))
    words["sample weight"] = said(lambda: fit(model(), name="by sample", epochs=2, sample_weight=np.full(40, 2.0)))
    return words


def checkpoint_of_an_older_version():
    """It lacks what this version compares, and resumes whatever that is."""
    unbroken, moved = model(optimizer=SGD(0.01)), model(optimizer=SGD(0.02))
    fit(unbroken, name="old", epochs=1)
    with haversack.Checkpoints("old") as checkpoints:
        restored = checkpoints.restore()
        facts = {name: restored.facts[name] for name in ("data", "model", "machine", "restarted by")}
        for sketch in facts["data"]["arrays"]:
            del sketch["exact"], sketch["parts"]
        checkpoints.save(restored.step, restored.tree, facts=facts)
    words = said(lambda: fit(moved, name="old", epochs=2))
    fit(unbroken, name="old, unbroken", epochs=2)
    return {"said": words, "rate": float(moved.optimizer.learning_rate), "epochs": moved.history.epoch}


def diverged():
    """The loss grows until it is no number: with a smaller learning rate it goes on from before."""
    stop = keras.callbacks.TerminateOnNaN()
    name, spoilt, mended = "diverged", model(optimizer=SGD(1e3)), model(optimizer=SGD(1e-3))
    words = {"first": said(lambda: fit(spoilt, name=name, epochs=8, callbacks=[stop]))}
    checkpoints = haversack.Checkpoints(name)
    words["kept"] = [checkpoint.diverged for checkpoint in checkpoints.all()]
    words["good"] = checkpoints.restore(diverged=False).step
    words["again"] = said(lambda: fit(model(optimizer=SGD(1e3)), name=name, epochs=8, callbacks=[stop]))
    words["smaller"] = said(lambda: fit(mended, name=name, epochs=8, callbacks=[stop]))
    words["losses"] = mended.history.history["loss"]
    words["later"] = said(lambda: fit(model(optimizer=SGD(1e-3)), name=name, epochs=8, callbacks=[stop]))
    return words


CHANGES = [code, learning_rates, moved_rates, data, diverged, checkpoint_of_an_older_version]

if __name__ == "__main__":
    only = sys.argv[2:]
    with contextlib.redirect_stdout(sys.stderr):  # Keras prints there
        found = {one.__name__: one() for one in CHANGES if not only or one.__name__ in only}
    print(json.dumps(found))
