"""`fit`: Keras's `model.fit` on every core, for any number of samples.

It takes `model.fit`'s arguments and returns its history. What it adds: the cores are taken into use where
`distribute()` was not called, and a model that was built before they were is moved onto them as it is, weights,
optimizer, metrics and random streams. It does not survive the end of its session.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from haversack.errors import InputError
from haversack.training.devices import devices, import_keras

if TYPE_CHECKING:
    import keras

_KERAS_BATCH_SIZE = 32


def fit(model: keras.Model, x: Any = None, y: Any = None, **arguments: Any) -> keras.callbacks.History:
    """Train a compiled `model` on all cores; `model.fit(x, y, **arguments)` in every other respect.

    Args:
        model: a compiled Keras model, built before or after `distribute()`.
        x, y: what `model.fit` takes: arrays with a sample per row, or a data set that yields batches.
        arguments: `batch_size` (of all cores together), `epochs`, `validation_split` and the others of `model.fit`.

    Returns Keras's `History`. A distribution that was set with `keras.distribution.set_distribution` is kept.
    Raises `InputError` when `model` is no Keras model, `TypeError` for an argument that `model.fit` does not have,
    and like `distribute()`.
    """
    keras = import_keras()
    if not isinstance(model, keras.Model):
        raise InputError(
            f"haversack.fit trains a Keras model, and got {type(model).__name__} first.",
            "Write haversack.fit(model, x, y, epochs=…).",
        )
    cores = len(devices())
    if cores > 1 and _takes_all_cores():
        _lay_out(model)
        _note_whole_batches(arguments.get("batch_size"), y is not None, cores)
    return model.fit(x, y, **arguments)


def _takes_all_cores() -> bool:
    """Whether our distribution is in force; it is put there unless the user has chosen another."""
    from keras import distribution

    from haversack.training import batch

    if distribution.distribution() is None:
        batch.install()
    return batch.is_installed()


def _lay_out(model: keras.Model) -> None:
    """Move what was built before the distribution was set onto all devices, in place.

    Compiled steps are dropped where something moved: they hold the old places.
    """
    variables = [*model.variables, *model.metrics_variables]
    if getattr(model, "optimizer", None) is not None:
        variables += model.optimizer.variables
    before = [variable for variable in variables if variable._layout is None]
    for variable in before:
        variable._initialize_layout()
        variable._direct_assign(variable._value)
    if before:
        model.train_function = model.test_function = model.predict_function = None


def _note_whole_batches(batch_size: int | None, takes_arrays: bool, cores: int) -> None:
    """Say when no batch can be shared, so that the cores bring nothing."""
    size = batch_size or (_KERAS_BATCH_SIZE if takes_arrays else None)
    if size is not None and size % cores:
        warnings.warn(
            f"Batches of {size} samples do not divide among {cores} cores, so each core computes all of them. "
            f"Take a batch_size that is a multiple of {cores}.",
            stacklevel=3,
        )
