"""TensorBoard's points after a kill: each there once, as in a training that nothing stopped. Needs TensorFlow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")
loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")

TRAIN = """
import os, signal, sys
import keras, numpy, haversack
from haversack.training.keras import session
session.RHYTHM = session.Rhythm(first=0.0, share=0.0, shortest=0.0, largest_share=0.0)
keras.utils.set_random_seed(1)
x = numpy.random.default_rng(1).random((96, 4), dtype="float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.2), keras.layers.Dense(1)])
model.compile("adam", "mse")
folder, kill = sys.argv[1:]
seen = iter(range(1, 1000))
end = lambda batch, logs: next(seen) == int(kill) and os.kill(os.getpid(), signal.SIGKILL)
callbacks = [keras.callbacks.TensorBoard(folder + "/logs", histogram_freq=1, update_freq=2, write_graph=False)]
callbacks.append(keras.callbacks.LambdaCallback(on_train_batch_end=end))
haversack.fit(model, x, x[:, :1], name="run", where=folder, validation_split=0.25, batch_size=8, epochs=5, verbose=0,
              callbacks=callbacks)
"""


def trained(folder: Path, *kills: int) -> list[tuple[str, str, int, bytes]]:
    """The points of all sessions: folder, tag, step, value."""
    for kill in (*kills, 0):
        command = [sys.executable, "-c", TRAIN, str(folder), str(kill)]
        done = subprocess.run(command, env={**os.environ, "KERAS_BACKEND": "jax"})
        assert done.returncode == (-signal.SIGKILL if kill else 0)
    return sorted(
        (file.parent.name, value.tag, event.step, value.SerializeToString())
        for file in folder.glob("logs/**/*.tfevents.*")
        for event in loader.EventFileLoader(str(file)).Load()
        for value in event.summary.value
    )


def test_every_point_is_there_once(tmp_path: Path) -> None:
    assert trained(tmp_path / "killed", 13, 31) == trained(tmp_path / "unbroken")
