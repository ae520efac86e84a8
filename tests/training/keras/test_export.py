"""Checkpoints as files of Keras's own: a process that knows nothing of haversack loads them and predicts the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from haversack.errors import InputError
from haversack.training.keras.export import parse_checkpoint
from tests.training.conftest import LEAN, Conversations

LOAD = """
import json, sys
import keras, numpy
x = numpy.random.default_rng(7).random((40, 4), dtype="float32")
def predicted(model):
    return [float(one).hex() for one in numpy.ravel(model.predict(x, batch_size=40, verbose=0))]
model = keras.models.load_model(sys.argv[1] + "/exported.keras")
found = {"keras": predicted(model), "optimizer": int(model.optimizer.iterations.value)}
for name in ("step", "best"):
    found[name] = predicted(keras.models.load_model(f"{sys.argv[1]}/{name}.keras"))
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dropout(0.2), keras.layers.Dense(1)])
model.load_weights(sys.argv[1] + "/exported.weights.h5")
print(json.dumps({**found, "weights": predicted(model), "haversack": "haversack" in sys.modules}))
"""


@pytest.fixture(scope="module")
def loaded(held: Conversations, held_in: Path) -> dict[str, object]:
    command = [sys.executable, "-c", LEAN + LOAD, str(held_in)]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["keras", "weights"])
def test_keras_alone_predicts_what_the_trained_model_does(
    held: Conversations, loaded: dict[str, object], kind: str
) -> None:
    assert loaded["haversack"] is False
    assert held["exported"]["stopped"]  # so that EarlyStopping's best weights, averaged before, are the model's
    assert loaded[kind] == held["exported"]["predicted"]


def test_a_whole_model_has_its_optimizer(loaded: dict[str, object]) -> None:
    assert loaded["optimizer"] != 0


def test_the_best_checkpoint_is_that_of_the_best_epoch(held: Conversations, loaded: dict[str, object]) -> None:
    assert loaded["best"] == held["exported"]["best"]


def test_an_earlier_checkpoint_is_another_model(held: Conversations, loaded: dict[str, object]) -> None:
    assert loaded["step"] != held["exported"]["predicted"]


def test_a_model_that_is_given_gets_the_weights(held: Conversations) -> None:
    assert held["exported"]["given"] == held["exported"]["predicted"]


def test_a_model_without_a_configuration_has_to_be_given(held: Conversations) -> None:
    own = held["exported_without_a_configuration"]
    assert own["said"].startswith("TrainingError: The model of own has no configuration to be built from.")
    assert own["same"] is True


def test_exporting_draws_from_no_random_stream(held: Conversations) -> None:
    assert held["exported"]["streams"] is True


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("ending", "InputError: "),
        ("step", "NotFound: The run exported has no checkpoint of step 9999."),
        ("name", "NotFound: The run nobody has no checkpoint."),
        ("model", "TrainingError: The model differs from that of the run exported: "),
        (
            "optimizer",
            "TrainingError: The model differs from that of the run exported: 10 optimizer variables instead of 14.",
        ),
    ],
)
def test_what_cannot_be_exported_is_said(held: Conversations, what: str, words: str) -> None:
    assert held["exported"]["refused"][what].startswith(words)


def test_nothing_is_left_of_what_could_not_be_exported(held: Conversations) -> None:
    assert held["exported"]["left"] == ["best.keras", "exported.keras", "step.keras"]


def test_the_command_exports_too(held: Conversations, held_in: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "haversack", "runs", "export", "exported", str(tmp_path / "a.weights.h5")]
    environment = {**os.environ, "HAVERSACK_DATA": str(held_in / "data")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert Path(done.stdout.strip()).stat().st_size > 0


@pytest.mark.parametrize(("text", "found"), [("latest", "latest"), ("best", "best"), ("12", 12)])
def test_a_checkpoint_by_its_name(text: str, found: object) -> None:
    assert parse_checkpoint(text) == found


@pytest.mark.parametrize("text", ["", "newest", "-3", "1.5"])
def test_what_names_no_checkpoint(text: str) -> None:
    with pytest.raises(InputError, match="does not name a checkpoint"):
        parse_checkpoint(text)
