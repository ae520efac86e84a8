"""A tiny training, interrupted inside an epoch and resumed: it must end with the bits of one that was not interrupted.

`support` runs this module in a process of its own with versions of Keras and JAX that haversack was not tested with.
Two simulated devices, and samples that do not divide by the batch size, show whether tail batches are exact too. The
process exits with status 1 and a last line that says what was wrong, or with status 0.
"""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import suppress
from typing import Any

_SAMPLES, _BATCH, _EPOCHS = 13, 4, 2
# In the second epoch, before its tail batch.
_INTERRUPTED_AT = (1, 1)


def main() -> None:
    """Raise an exception if the resumed training differs from the whole one, or if anything fails."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HAVERSACK_DATA"] = os.environ["HAVERSACK_CACHE"] = folder
        whole, history = _train("whole")
        with suppress(KeyboardInterrupt):
            _train("resumed", interrupt=True)
            raise AssertionError("an interrupted training does not stop")
        resumed, resumed_history = _train("resumed")
    assert resumed_history == history, "a resumed training has another history"
    assert resumed == whole, "a resumed training ends with other weights"


def _train(name: str, interrupt: bool = False) -> tuple[list[bytes], Any]:
    """Train the run `name`; return its weights as bytes, and its history."""
    import keras
    import numpy as np

    from haversack.training.keras.fit import fit

    class Interrupt(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if interrupt and (self.epoch, batch) == _INTERRUPTED_AT:
                signal.raise_signal(signal.SIGINT)

    keras.utils.set_random_seed(1)
    random = np.random.default_rng(1)
    x, y = random.random((_SAMPLES, 3)), random.random((_SAMPLES, 1))
    layers = [keras.layers.Dense(4, "relu"), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    options: Any = {"batch_size": _BATCH, "epochs": _EPOCHS, "verbose": 0, "callbacks": [Interrupt()]}
    history = fit(model, x, y, name=name, **options).history
    return [np.asarray(value).tobytes() for value in model.get_weights()], history


if __name__ == "__main__":
    main()
