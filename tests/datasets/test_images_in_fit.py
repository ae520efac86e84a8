"""Training on images: killed at whatever step, it goes on with the batches of the unbroken run and ends as it does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.pictures import archive

STEPS, EPOCHS = 8, 3
# Before the first batch of all, in the last one of an epoch, inside of one, and in the first one of the last epoch.
KILLS = ["0:0:begin", "0:7:end", "1:4:end", "2:0:end"]

# Each session is a process of its own, forked where Keras is imported and has not begun anything yet.
SESSIONS = """if True:
    import hashlib, json, os, signal, sys
    sys.modules["sklearn"] = sys.modules["matplotlib"] = None  # their import would take as long as that of Keras
    import keras
    import haversack
    from haversack.training.keras import session
    session.RHYTHM = session.Rhythm(first=0, share=0, shortest=0)

    class Kill(keras.callbacks.Callback):
        def __init__(self, at):
            self.at = at
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch
        def on_train_batch_begin(self, batch, logs=None):
            self.strike(batch, "begin")
        def on_train_batch_end(self, batch, logs=None):
            self.strike(batch, "end")
        def strike(self, batch, when):
            if f"{self.epoch}:{batch}:{when}" == self.at:
                os.kill(os.getpid(), signal.SIGKILL)

    def noted(images, log):
        real = images.batch
        def batch(epoch, step):
            x, y = real(epoch, step)
            log.write(f"{epoch}:{step} {hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()}" + chr(10))
            return x, y
        images.batch = batch
        return images

    def train(archive, kill, folder, how):
        keras.utils.set_random_seed(3)
        layers = [keras.Input((16, 16, 1)), keras.layers.Flatten(), keras.layers.Dropout(0.2), keras.layers.Dense(2)]
        model = keras.Sequential(layers)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        augment = haversack.Augmentation(flip=0.5, shift=0.1)
        form = {"size": (16, 16), "channels": 1, "batch_size": 4, "seed": 2}
        train, _ = haversack.dataset(archive).images(**form, augment=augment).split(0.2)
        valid = haversack.dataset(archive).images(**form)  # in another order in each epoch, but for validating
        if how == "model.fit":
            history = model.fit(train, validation_data=valid, epochs=2, verbose=0)
        else:
            name = {"name": "images"} if how == "run" else {}
            train = noted(train, open(f"{folder}/batches", "a", buffering=1))
            callbacks = [Kill(kill)] if kill else []
            history = haversack.fit(
                model, train, validation_data=valid, epochs=3, verbose=0, callbacks=callbacks, **name
            )
        weights = hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest()
        open(f"{folder}/end.json", "w").write(json.dumps({"weights": weights, "history": history.history}))

    archive, *sessions = sys.argv[1:]
    for folder, kill, how in (one.split("|") for one in sessions):
        child = os.fork()
        if not child:
            os.environ["HAVERSACK_DATA"] = f"{folder}/data"
            try:
                train(archive, kill, folder, how)
                os._exit(0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@dataclass(frozen=True)
class Ended:
    """How a training ended, and which batches all of its sessions were given: epoch:step and their hash."""

    end: dict[str, Any]
    batches: set[str]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    home = tmp_path_factory.mktemp("images")
    folders = {name: home / name for name in ("whole", "killed", "unnamed", "model.fit")}
    sessions = [(folders["whole"], "", "run"), *((folders["killed"], kill, "run") for kill in KILLS)]
    sessions += [(folders["killed"], "", "run"), (folders["unnamed"], "", "unnamed")]
    sessions += [(folders["model.fit"], "", "model.fit")]
    for folder in folders.values():
        folder.mkdir()
    given = ["|".join(map(str, one)) for one in sessions]
    command = [sys.executable, "-c", SESSIONS, str(archive(home / "animals.zip")), *given]
    done = subprocess.run(command, env=os.environ | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    assert [int(line) for line in done.stdout.split()] == [-signal.SIGKILL if kill else 0 for _, kill, _ in sessions], (
        done.stderr
    )
    return {name: _ended(folder) for name, folder in folders.items()}


def _ended(folder: Path) -> Ended:
    noted = folder / "batches"
    batches = set(noted.read_text().splitlines()) if noted.exists() else set()
    return Ended(json.loads((folder / "end.json").read_text()), batches)


def test_each_epoch_of_a_run_has_batches_of_its_own(ended: dict[str, Ended]) -> None:
    assert len({line.split()[1] for line in ended["whole"].batches}) == STEPS * EPOCHS


def test_killed_run_is_given_the_batches_of_the_unbroken_one(ended: dict[str, Ended]) -> None:
    assert ended["killed"].batches == ended["whole"].batches


def test_killed_run_ends_as_the_unbroken_one(ended: dict[str, Ended]) -> None:
    assert ended["killed"].end == ended["whole"].end


def test_each_epoch_of_a_fit_without_a_name_has_batches_of_its_own(ended: dict[str, Ended]) -> None:
    assert len({line.split()[1] for line in ended["unnamed"].batches}) >= STEPS * EPOCHS


def test_keras_itself_takes_images(ended: dict[str, Ended]) -> None:
    assert len(ended["model.fit"].end["history"]["val_loss"]) == 2
