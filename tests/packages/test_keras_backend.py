"""Keras's backend in a job: the user's choice, else Colab's, else a framework that is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.packages import keras_backend as module
from haversack.packages.keras_backend import configured_backend, keras_backend

ALL = {"tensorflow", "jax", "torch"}
KERAS = "import keras"


@pytest.mark.parametrize(
    ("cells", "available", "variable"),
    [
        ([KERAS], ALL, None),  # Keras takes TensorFlow by itself
        ([KERAS], {"jax"}, "jax"),
        ([KERAS], {"jax", "torch"}, "jax"),
        ([KERAS], {"torch"}, "torch"),
        ([KERAS], set(), None),
        (["import torch", KERAS], {"torch"}, "torch"),
        # TensorFlow is not there yet, but the notebook cannot run without it.
        (["import tensorflow as tf"], {"jax"}, None),
        (["!pip install -q tensorflow-cpu", KERAS], {"jax"}, None),
        (["%pip install tf-nightly", KERAS], {"jax"}, None),
        (["!pip install jax", KERAS], set(), "jax"),
        # It can run without it.
        (["try:\n    import tensorflow\nexcept ImportError:\n    pass", KERAS], {"jax"}, "jax"),
        (["!echo tensorflow", KERAS], {"jax"}, "jax"),
        # What trains with haversack needs JAX.
        (["import keras, haversack\nhaversack.fit(model, x, y)"], ALL, "jax"),
        (["import haversack", "haversack.distribute()"], {"tensorflow", "jax"}, "jax"),
        (["from haversack import Checkpoints, fit"], {"tensorflow", "jax"}, "jax"),
        (["import haversack\nhaversack.mount('/content/drive')", KERAS], {"tensorflow", "jax"}, None),
        (["import haversack\nhaversack.fit(model, x, y)"], {"tensorflow"}, None),
    ],
)
def test_the_backend_is_colabs_or_one_that_is_there(
    cells: list[str], available: set[str], variable: str | None
) -> None:
    assert keras_backend(cells, {}, available).variable == variable


@pytest.mark.parametrize(
    "cell",
    [
        'os.environ["KERAS_BACKEND"] = "torch"',
        "os.environ['KERAS_BACKEND'] = 'torch'",
        'os.environ.setdefault("KERAS_BACKEND", "torch")',
        'os.environ.update(KERAS_BACKEND="torch")',
        'os.environ.update({"KERAS_BACKEND": "torch"})',
        'os.environ |= {"KERAS_BACKEND": "torch"}',
        "%env KERAS_BACKEND=torch",
        "%env KERAS_BACKEND torch",
        "%set_env KERAS_BACKEND=torch",
    ],
)
def test_a_notebook_that_sets_it_finds_it_unset(cell: str) -> None:
    chosen = keras_backend(["import os", cell, KERAS], {}, {"jax", "torch"})
    assert (chosen.variable, chosen.why) == (None, "the notebook sets KERAS_BACKEND")


@pytest.mark.parametrize(
    "cell",
    [
        '# os.environ["KERAS_BACKEND"] = "torch"',
        'print(os.environ["KERAS_BACKEND"])',
        'assert os.environ["KERAS_BACKEND"] == "jax"',
        "!KERAS_BACKEND=torch python train.py",
        "subprocess.run(command, env={'KERAS_BACKEND': 'torch'})",
    ],
)
def test_a_notebook_that_only_names_it_gets_one(cell: str) -> None:
    assert keras_backend(["import os, subprocess", cell, KERAS], {}, {"jax", "torch"}).variable == "jax"


def test_the_users_environment_wins() -> None:
    chosen = keras_backend(["import tensorflow, keras"], {"KERAS_BACKEND": "torch"}, ALL)
    assert (chosen.name, chosen.variable) == ("torch", None)


@pytest.mark.parametrize(
    ("configured", "available", "variable"),
    [("torch", ALL, "torch"), ("tensorflow", ALL, None), ("tensorflow", {"jax"}, "jax"), ("torch", {"jax"}, "jax")],
)
def test_keras_json_counts_if_its_backend_is_there(configured: str, available: set[str], variable: str | None) -> None:
    assert keras_backend([KERAS], {}, available, configured).variable == variable


def test_the_reason_is_told() -> None:
    assert keras_backend([KERAS], {}, {"jax"}).why == "TensorFlow is not installed, and JAX is"
    assert keras_backend(["import tensorflow"], {}, ALL).why == "the notebook imports it"
    assert keras_backend([KERAS], {}, ALL).why == "it is Keras's default"


@pytest.mark.parametrize(
    ("text", "backend"), [('{"backend": "torch"}', "torch"), ("{}", None), ("[]", None), ("{", None), (None, None)]
)
def test_keras_json_is_read_where_keras_reads_it(tmp_path: Path, text: str | None, backend: str | None) -> None:
    (tmp_path / ".keras").mkdir()
    if text is not None:
        (tmp_path / ".keras" / "keras.json").write_text(text)
    assert configured_backend({}, tmp_path) == backend
    assert configured_backend({"KERAS_HOME": str(tmp_path / ".keras")}, tmp_path / "elsewhere") == backend


def test_only_packages_with_code_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorflow", "torch"):
        (tmp_path / name).mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = module.importable()
    assert "torch" in found
    assert "tensorflow" not in found
