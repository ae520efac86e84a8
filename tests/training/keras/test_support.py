"""Versions of Keras and JAX: names are looked up, and what was not tested is tried before it is trusted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.conftest import LEAN

VARIABLES = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "HAVERSACK_CANARY": "1"}


def python(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | VARIABLES | variables
    return subprocess.run([sys.executable, "-c", LEAN + program], env=environment, capture_output=True, text=True)


def test_a_missing_name_is_told() -> None:
    done = python(
        "from keras.src.trainers.data_adapters import array_slicing\n"
        "del array_slicing.train_validation_split\n"
        "from haversack.training.keras import support\n"
        "print(support.reason_unsupported())"
    )
    assert "has no train_validation_split, by which haversack saves and resumes trainings" in done.stdout, done.stderr


def test_fit_refuses_a_keras_that_it_cannot_resume_with() -> None:
    done = python(
        "from keras.src.callbacks import monitor_callback\n"
        "del monitor_callback.MonitorCallback\n"
        "import haversack, keras\n"
        "haversack.fit(keras.Sequential([keras.layers.Dense(1)]))"
    )
    assert "TrainingError: Keras" in done.stderr
    assert 'Install supported versions with pip install "haversack[train]".' in done.stderr


def test_versions_that_were_not_tested_are_tried_once(own_folders: Path) -> None:
    program = (
        "from pathlib import Path\n"
        "from haversack.training.keras import support\n"
        "support._TESTED = {'keras': ((3, 13), (3, 14)), 'jax': ((0, 7), (0, 11))}\n"
        "def reason():\n"
        "    support.reason_unsupported.cache_clear()\n"
        "    return support.reason_unsupported()\n"
        "print(reason())\n"
        "print(reason())\n"
        f"[verdict] = Path({str(own_folders / 'cache' / 'canary')!r}).iterdir()\n"
        "print(repr(verdict.read_text()))\n"
        "verdict.write_text('a resumed training ends with other weights')\n"
        "print(reason())"
    )
    done = python(program)
    *tried, failed = done.stdout.splitlines()
    assert tried == ["None", "None", "''"], done.stderr
    assert done.stderr.count("checking whether trainings resume exactly") == 1
    assert "fails haversack's check that a training resumes exactly (a resumed training ends" in failed


def test_the_canary_sees_that_a_state_is_not_restored() -> None:
    done = python(
        "from haversack.training.keras import canary, state\nstate.assign = lambda *arguments: None\ncanary.main()",
        **DEVICES,
    )
    assert done.returncode == 1
    assert "AssertionError: a resumed training has another history" in done.stderr


def test_the_canary_sees_a_batch_that_does_not_divide() -> None:
    done = python(
        "import keras\n"
        "from haversack.training.keras import batch, canary\n"
        "batch.ExactDataParallel.get_data_layout = keras.distribution.DataParallel.get_data_layout\n"
        "canary.main()",
        **DEVICES,
    )
    assert done.returncode == 1
    assert "divisible" in done.stderr


@pytest.mark.parametrize(("version", "tested"), [("3.13.2", True), ("3.12.1", False), ("3.15.1", True), ("4.0", False)])
def test_a_version_is_tested_from_the_first_to_before_the_last(version: str, tested: bool) -> None:
    from haversack.training import verdict

    assert verdict.is_in(version, ((3, 13), (3, 16))) == tested
