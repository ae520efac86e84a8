"""docs/from-colab.md: every public name of our google.colab is on it, and what it calls "does not work" does not."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from haversack.notebook import colab

ROWS = [
    [part.strip() for part in line.strip("|").split("|")]
    for line in (Path(__file__).parents[3] / "docs" / "from-colab.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| on Colab")
]
CALLS = {call: state for calls, state, _ in ROWS for call in re.findall(r"`([^`]+)`", calls)}
OUR_MODULES = tuple(f"{name}." for name in colab.__all__)
REFUSED = [call for call, state in CALLS.items() if state == "does not work" and call.startswith(OUR_MODULES)]


def test_every_row_says_what_is_the_same() -> None:
    assert {state for _, state, _ in ROWS} == {"same", "differs", "does not work"}


def test_every_public_name_has_a_row() -> None:
    for module in colab.__all__:
        for name in importlib.import_module(f"haversack.notebook.colab.{module}").__all__:
            if name not in ("NotebookAccessError", "SecretNotFoundError", "TimeoutException"):
                assert any(call.startswith(f"{module}.{name}") for call in CALLS), f"{module}.{name}"


@pytest.mark.parametrize("call", REFUSED)
def test_what_does_not_work_raises_an_error_of_colabs(call: str) -> None:
    module = importlib.import_module(f"haversack.notebook.colab.{call.partition('.')[0]}")
    from haversack.notebook.colab.errors import Error

    with pytest.raises(Error):
        eval(call, {call.partition(".")[0]: module})


OLD_NAMES = """
from keras.callbacks import ModelCheckpoint
for name, options in (("best.hdf5", {}), ("w.h5", {"save_weights_only": True})):
    try:
        ModelCheckpoint(name, **options)
    except ValueError as error:
        print("must end in" in str(error))
"""


def test_keras_refuses_the_old_names_of_checkpoints() -> None:
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", OLD_NAMES], capture_output=True, text=True, env=environment)
    assert done.stdout == "True\nTrue\n", done.stderr
