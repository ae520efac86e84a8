"""Errors of other years and machines: what to write today stands beside the original exception."""

from __future__ import annotations

import pytest

from haversack.notebook.colab import hints
from tests.notebook import notebooks
from tests.notebook.conftest import Run


@pytest.mark.parametrize(
    ("cell", "error", "advice"),
    [
        ("os.environ['COLAB_TPU_ADDR']", "KeyError: 'COLAB_TPU_ADDR'", "haversack.distribute()"),
        ("assert 'COLAB_TPU_ADDR' in os.environ", "AssertionError: no TPU", "haversack.distribute()"),
        ("tf.contrib.tpu.keras_to_tpu_model(m)", "ModuleNotFoundError: No module named 'tensorflow'", "distribute()"),
        ("tf.contrib.x", "AttributeError: module 'tensorflow' has no attribute 'contrib'", "haversack.distribute()"),
        ("import timm", "ModuleNotFoundError: No module named 'timm'", "%pip install timm"),
        ("import cv2", "ModuleNotFoundError: No module named 'cv2'", "%pip install opencv-python"),
        ("import unheard_of", "ModuleNotFoundError: No module named 'unheard_of'", "%pip install PACKAGE, by its name"),
        (
            "model.save_weights('best.h5')",
            "ValueError: The filename must end in `.weights.h5`. Received: filepath=best.h5",
            "write save_weights('best.weights.h5')",
        ),
        (
            "pd.read_csv('/kaggle/input/titanic/train.csv')",
            "FileNotFoundError: [Errno 2] No such file or directory: '/kaggle/input/titanic/train.csv'",
            "--input kaggle:OWNER/titanic or --input kaggle:c/titanic",
        ),
        (
            "graphviz.Source(dot)",
            "ExecutableNotFound: failed to execute PosixPath('dot'), make sure the Graphviz executables are there",
            "!apt-get install -y graphviz",
        ),
        ("input()", "StdinNotImplementedError: raw_input was called", "--param"),
    ],
)
def test_the_advice_fits(cell: str, error: str, advice: str) -> None:
    assert advice in hints.advice(cell, error)


def test_an_ordinary_error_has_none() -> None:
    assert hints.advice("1 / 0", "ZeroDivisionError: division by zero") == ""


def test_the_advice_stands_in_the_notebook_and_in_the_error(run: Run) -> None:
    report = run("import os\nos.environ['COLAB_TPU_ADDR']")
    assert "KeyError" in str(report.failure)
    assert "haversack.distribute()" in str(report.failure)
    shown = notebooks.text(report.output, 0)
    assert "KeyError" in shown
    assert "haversack.distribute()" in shown
