"""Training on images: killed in the middle of an epoch, it goes on with the batches of the unbroken run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.pictures import archive

TRAIN = """if True:
    import hashlib, json, os, signal, sys
    import keras
    import haversack
    from haversack.training import session
    session.RHYTHM = session.Rhythm(first=0, share=0, shortest=0)
    archive, kill, out = sys.argv[1], sys.argv[2], sys.argv[3]
    keras.utils.set_random_seed(3)
    layers = [keras.Input((16, 16, 1)), keras.layers.Flatten(), keras.layers.Dropout(0.2), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    seen = []
    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if kill and f"{self.epoch}:{batch}" == kill:
                os.kill(os.getpid(), signal.SIGKILL)
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch
    augment = haversack.Augmentation(flip=0.5, shift=0.1)
    images = haversack.dataset(archive).images(size=(16, 16), channels=1, batch_size=4, seed=2, augment=augment)
    train, valid = images.split(0.2)
    if kill == "plain":
        history = model.fit(train, validation_data=valid, epochs=2, verbose=0)
    else:
        run = {"name": "images", "callbacks": [Kill()], "validation_data": valid, "verbose": 0}
        history = haversack.fit(model, train, epochs=3, **run)
    weights = hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest()
    open(out, "w").write(json.dumps({"weights": weights, "history": history.history}))
"""


def trained(folder: Path, data: Path, kill: str = "") -> dict[str, Any] | None:
    environment = os.environ | {"HAVERSACK_DATA": str(folder / "data"), "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-c", TRAIN, str(data), kill, str(folder / "out.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == (-9 if kill and kill != "plain" else 0), done.stderr
    return json.loads((folder / "out.json").read_text()) if done.returncode == 0 else None


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive(tmp_path_factory.mktemp("images") / "animals.zip")


def test_killed_training_on_images_ends_as_the_unbroken_one(data: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    expected = trained(whole, data)
    trained(broken, data, kill="1:4")
    assert trained(broken, data) == expected


def test_keras_itself_takes_images(data: Path, tmp_path: Path) -> None:
    assert len(trained(tmp_path, data, kill="plain")["history"]["val_loss"]) == 2
