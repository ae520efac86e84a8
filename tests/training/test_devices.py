from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from haversack.training.devices import System
from haversack.training.framework_devices import Device
from tests.training.conftest import Results

TPU = System(
    tuple(Device(number, "TPU v5 lite", "tpu", number // 4, 16 * 10**9, "jax.devices()") for number in range(8))
)
DISTRIBUTE = "import haversack; from haversack.errors import HaversackError\n" + (
    "try: haversack.distribute()\nexcept HaversackError as error: print(type(error).__name__, error)"
)


def test_a_system_counts_cores_and_workers() -> None:
    assert (TPU.cores, TPU.workers, TPU.cores_per_worker) == (8, 2, 4)


def test_the_listing_begins_with_the_counts() -> None:
    assert str(TPU).splitlines()[:3] == ["Cores:            8", "Workers:          2", "Cores per worker: 4"]


def test_the_listing_has_a_row_for_each_core() -> None:
    heading, *rows = str(TPU).splitlines()[4:]
    assert heading.split() == ["id", "kind", "platform", "process", "memory", "found", "by"]
    assert rows[7] == "7   TPU v5 lite  tpu       1        16.0 GB  jax.devices()"


def test_memory_that_nobody_tells_is_a_dash() -> None:
    assert str(System((Device(0, "gpu", "gpu", 0, None, "torch.mps"),))).endswith("  –       torch.mps")


def test_simulated_cores_are_found_and_printed(trained: dict[int, Results]) -> None:
    found = trained[8]["built_before_the_cores_were_found"]
    assert found["cores"] == 8
    assert found["listing"].startswith("Cores:            8\nWorkers:          1\nCores per worker: 8\n")


def test_one_core_is_a_system_too(trained: dict[int, Results]) -> None:
    assert trained[1]["built_before_the_cores_were_found"]["cores"] == 1


def test_distribute_twice_gives_the_same_system(trained: dict[int, Results]) -> None:
    assert trained[8]["built_before_the_cores_were_found"]["same"] is True


def test_without_keras_the_error_says_what_to_install() -> None:
    repository = str(Path(__file__).parents[2])
    # -S leaves out site-packages, so that only the standard library and haversack are there.
    bare = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {repository!r})\n{DISTRIBUTE}"]
    said = subprocess.run(bare, capture_output=True, text=True, check=True).stdout
    assert said.startswith("ExtraMissing Training needs keras and jax")
    assert 'pip install "haversack[train]"' in said


@pytest.mark.parametrize("before", ["", "import keras\n"])
def test_another_backend_of_keras_is_refused(before: str) -> None:
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    command = [sys.executable, "-c", before + DISTRIBUTE]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.startswith("TrainingError Keras runs on numpy here")
    assert "KERAS_BACKEND" in said.split("JAX.", 1)[1]
