"""Plain Keras with the versions that Colab has of Keras and JAX, and with a torch loader on JAX."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.frameworks.conftest import Run
from tests.frameworks.data import IN_NUMPY, IN_TORCH, results, write_notebook


def test_plain_fit_is_a_run_on_every_core(run: Run) -> None:
    executed = run("colab_versions", "--cores", "4")
    assert executed.last_line(1) == "3.13.2 jax"
    assert executed.last_line(2) == "3 4"
    assert [name.partition(".")[2] for name in executed.report["trainings"]] == ["cell-2.1"]  # type: ignore[attr-defined]


def test_a_resumed_training_ends_with_the_same_bits(own_folders: Path) -> None:
    variables = {
        "HAVERSACK_CANARY": "1",
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    subprocess.run([sys.executable, "-m", "haversack.training.keras.canary"], env=os.environ | variables, check=True)


def test_all_kinds_of_data_do_as_in_plain_keras(run: Run, tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "data.ipynb", "jax", *IN_NUMPY, *IN_TORCH)
    ours = results(run(notebook).output)
    assert ours == results(run(notebook, "--plain").output)
    assert {"DataLoader ok", "torch tensors ok"} <= set(ours)
