"""A model that a callback changed in the middle of a training: layers frozen or thawed, and compiled again.

`compile` makes a new optimizer and drops the train function. Keras on JAX then stops with "NoneType is not callable",
so the optimizer is built and the function made. A checkpoint holds which layers are trainable and, if
the optimizer was replaced, the configuration of the new one; a session that resumes restores both before it assigns the
variables, whose order depends on them. No code is in a configuration: a class of the user's own must be registered with
Keras. Another loss than that of the begin is refused by name.
"""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np

from haversack.errors import TrainingError
from haversack.training.keras import dependencies


class Recompilation:
    """What has changed in `model` since this object was made, at the begin of a training.

    ==============  ======================  ===================================================
    field           type                    meaning
    ==============  ======================  ===================================================
    _model          keras.Model             the model
    _flags          list of bool            whether each layer was trainable at the begin
    _optimizer      keras.Optimizer         the optimizer at the begin
    _loss           JSON                    the loss at the begin
    _replaced       uint8 array or None     the configuration of an optimizer that replaced it
    ==============  ======================  ===================================================
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._flags = _flags(model)
        self._optimizer = model.optimizer
        self._loss = dependencies.of_compilation(model)["loss"]
        self._replaced: np.ndarray[Any, Any] | None = None

    def complete(self) -> None:
        """Finish what a callback has just begun that compiled the model again: build its optimizer, make its function.

        Call it after the callbacks, before the next step.
        """
        if self._model.train_function is not None:
            return
        if not self._model.optimizer.built:
            self._model.optimizer.build(self._model.trainable_variables)
        if self._model.optimizer is not self._optimizer:
            self._replaced = _serialized(self._model.optimizer)  # inside an epoch it could not be read
        self._model.make_train_function()

    def capture(self) -> dict[str, Any] | None:
        """Return the changes as a tree for a checkpoint; None for none."""
        flags = _flags(self._model)
        if self._replaced is None and flags == self._flags:
            return None
        loss = dependencies.of_compilation(self._model)["loss"]
        return {"trainable": flags, "optimizer": self._replaced, "loss": None if loss == self._loss else str(loss)}

    def restore(self, captured: dict[str, Any] | None) -> bool:
        """Make the changes in `captured` again, and return whether the optimizer was replaced.

        Raises `TrainingError` if the loss was replaced too, or if the optimizer's class is not registered with Keras.
        """
        if captured is None:
            return False
        model = self._model
        if captured["loss"] is not None:
            raise _refused(f"with another loss, {captured['loss']}")
        for layer, flag in zip(_layers(model), captured["trainable"], strict=True):
            if layer.trainable != flag:
                layer.trainable = flag
        if captured["optimizer"] is not None:
            self._replaced = captured["optimizer"]
            model.optimizer = _deserialized(self._replaced)
            model.optimizer.build(model.trainable_variables)
        model.make_train_function(force=True)
        return captured["optimizer"] is not None


def _layers(model: Any) -> list[Any]:
    return list(model._flatten_layers())


def _flags(model: Any) -> list[bool]:
    return [bool(layer.trainable) for layer in _layers(model)]


def _serialized(optimizer: Any) -> np.ndarray[Any, Any]:
    return np.frombuffer(json.dumps(keras.saving.serialize_keras_object(optimizer)).encode(), np.uint8)


def _deserialized(configuration: np.ndarray[Any, Any]) -> Any:
    try:
        return keras.saving.deserialize_keras_object(json.loads(configuration.tobytes()))
    except Exception as error:
        raise _refused("with an optimizer that Keras cannot make from its configuration") from error


def _refused(how: str) -> TrainingError:
    return TrainingError(
        f"The model was compiled in the middle of the run {how}, and that cannot be repeated.",
        "Train each part as a run of its own, or begin again with restart=True.",
    )
