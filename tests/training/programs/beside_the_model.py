"""State that the model does not list, and a model that changes in the middle: interrupted, resumed, and unbroken.

Run as `python beside_the_model.py FOLDER`; prints one JSON object.
"""

import contextlib
import json
import sys

import jax
import numpy as np
from conversations import At, X, Y, fit, interrupt, keras, numbers, said

EPOCHS = 3


class Gan(keras.Model):
    """Its second optimizer is a plain attribute that is built and applied in the first step."""

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
        self.critic = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        self.built = True

    def compile(self, d_opt, g_opt):
        super().compile(optimizer=g_opt, loss="mse", run_eagerly=True)
        self.d_opt = d_opt

    def call(self, x):
        return self.critic(self.generator(x))

    def train_step(self, state, data):
        trainable, non_trainable, optimizer_variables, metrics_variables = state
        x, y = data
        if not self.d_opt.built:
            self.d_opt.build(self.critic.trainable_variables)

        def loss(values):
            predicted, _ = self.stateless_call(values, non_trainable, x)
            return keras.ops.mean((predicted - y) ** 2)

        error, gradients = jax.value_and_grad(loss)(trainable)
        trainable, optimizer_variables = self.optimizer.stateless_apply(optimizer_variables, gradients, trainable)
        count = len(self.generator.trainable_variables)
        variables = [variable.value for variable in self.d_opt.variables]
        critic, updated = self.d_opt.stateless_apply(variables, gradients[count:], trainable[count:])
        for variable, value in zip(self.d_opt.variables, updated, strict=True):
            variable.assign(value)
        return {"loss": error}, ([*trainable[:count], *critic], non_trainable, optimizer_variables, metrics_variables)


class Hiding(Gan):
    """Nothing of the model leads to its second optimizer."""

    @property
    def d_opt(self):
        return HIDDEN[id(self)]

    @d_opt.setter
    def d_opt(self, value):
        HIDDEN[id(self)] = value


HIDDEN = {}


class Counting(keras.callbacks.Callback):
    """Holds a variable, a metric and a layer in a list, a dict and an object."""

    def __init__(self):
        super().__init__()
        self.variables = [keras.Variable(0.0)]
        self.metrics = {"mean": keras.metrics.Mean()}
        self.teacher = keras.layers.Dense(1)

    def on_train_batch_end(self, batch, logs=None):
        if not self.teacher.built:
            self.teacher.build((None, 2))
        self.variables[0].assign_add(1.0)
        self.metrics["mean"].update_state(batch)
        for variable in self.teacher.variables:
            variable.assign_add(keras.ops.ones(variable.shape))

    def numbers(self):
        held = [self.variables[0], *self.metrics["mean"].variables, *self.teacher.variables]
        return [float(number) for variable in held for number in np.ravel(variable.numpy())]


class Freezing(keras.callbacks.Callback):
    """Freezes a layer in the second epoch, as transfer learning does it."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.layers[0].trainable = False
            self.model.compile(keras.optimizers.Adam(0.05), "mse")


def gan(kind=Gan):
    keras.utils.set_random_seed(3)
    model = kind()
    model.compile(keras.optimizers.Adam(0.01), keras.optimizers.Adam(0.02))
    return model


def simple():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def trained(make, name, make_callbacks=list, *, at=12):
    """What an unbroken training ends with, and one that is interrupted after `at` batches and resumed anew."""
    ends = []
    for kind in ("unbroken", "resumed"):
        keras.utils.set_random_seed(5)
        model, callbacks = make(), make_callbacks()
        if kind == "resumed":
            with contextlib.suppress(KeyboardInterrupt):
                fit(model, name=f"{name} {kind}", epochs=EPOCHS, callbacks=[*callbacks, At(at, interrupt)])
            model, callbacks = make(), make_callbacks()
        words = said(
            lambda model=model, callbacks=callbacks, kind=kind: fit(
                model, X, Y, name=f"{name} {kind}", epochs=EPOCHS, callbacks=[*callbacks, At(0, interrupt)]
            )
        )
        assert "Error" not in words, words
        ends.append(
            {
                "weights": numbers(model),
                "history": model.history.history,
                "held": [one.numbers() for one in callbacks if isinstance(one, Counting)],
                "second": [
                    float(number)
                    for variable in getattr(getattr(model, "d_opt", None), "variables", ())
                    for number in np.ravel(variable.numpy())
                ],
            }
        )
    return {"said": words, "same": ends[0] == ends[1], "ends": ends}


def second_optimizer():
    return trained(gan, "gan")


def hidden_optimizer():
    return trained(lambda: gan(Hiding), "hidden")


def held_by_callbacks():
    return trained(simple, "held", lambda: [Counting()])


def frozen():
    return trained(simple, "frozen", lambda: [Freezing()])


def no_longer_there():
    """A second optimizer that the next session does not make."""
    with contextlib.suppress(KeyboardInterrupt):
        fit(gan(), name="gone", epochs=EPOCHS, callbacks=[At(7, interrupt)])
    model = gan()
    del model.d_opt
    return {"said": said(lambda: fit(model, name="gone", epochs=EPOCHS))}


KINDS = [second_optimizer, hidden_optimizer, held_by_callbacks, frozen, no_longer_there]

if __name__ == "__main__":
    only = sys.argv[2:]
    with contextlib.redirect_stdout(sys.stderr):
        found = {one.__name__: one() for one in KINDS if not only or one.__name__ in only}
    print(json.dumps(found))
