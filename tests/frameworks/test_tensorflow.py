"""Notebooks for TensorFlow, unchanged: Keras runs on it, and its data sets reach Keras's own `fit`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.conftest import Run
from tests.frameworks.data import IN_NUMPY, IN_TENSORFLOW, results, write_notebook

NOT_DURABLE = "haversack: not durable: Keras runs on the TensorFlow backend"


def test_a_gradient_tape(run: Run) -> None:
    executed = run("tf_tape")
    assert [executed.last_line(cell) for cell in (1, 2, 3)] == ["tensorflow", "ndarray", "True"]
    assert executed.last_line(4) == "['assets', 'fingerprint.pb']"


def test_fit_on_a_shuffled_data_set(run: Run) -> None:
    assert run("tf_data").last_line(1) == "2"


def test_the_beginners_quickstart(run: Run) -> None:
    executed = run("tf_quickstart")
    assert executed.last_line(2) == "(1, 10) 1.0"
    assert executed.last_line(3) == "True"
    assert executed.last_line(5) == "5 True (5, 10)"
    assert executed.text(4).count(NOT_DURABLE) == 1


def test_validation_on_a_data_set(run: Run) -> None:
    assert run("tf_validation").last_line(2) == "['loss', 'mae', 'val_loss', 'val_mae'] True"


def test_images_from_a_folder(run: Run) -> None:
    executed = run("tf_images")
    assert executed.last_line(1) == "['dark', 'light']"
    assert executed.last_line(2) == "6 1.0"


def test_a_generator_with_steps(run: Run) -> None:
    assert run("tf_generator").last_line(1) == "3 30"


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_all_kinds_of_data_do_as_in_plain_keras(run: Run, tmp_path: Path, backend: str) -> None:
    notebook = write_notebook(tmp_path / "data.ipynb", backend, *IN_NUMPY, *IN_TENSORFLOW)
    ours = results(run(notebook).output)
    assert ours == results(run(notebook, "--plain").output)
    assert {"numpy ok", "tf.data ok", "polars ok", "grain ok", "ragged ok"} <= set(ours)


def test_its_devices_are_listed(listed: dict[str, dict[str, object]]) -> None:
    import tensorflow

    assert listed["TensorFlow"]["version"] == tensorflow.__version__
    assert listed["TensorFlow"]["cores"] == max(1, len(tensorflow.config.list_physical_devices("GPU")))
