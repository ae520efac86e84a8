"""One test for each private name of Keras that exact tail batches rest on: a new release fails here first."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

LOOK = """
import inspect, json, numpy, keras
from keras.src.backend.jax import trainer
built = keras.layers.Dense(1)
built.build((None, 1))
variable = built.kernel
signature = lambda function: list(inspect.signature(function).parameters)
print(json.dumps({
    "_get_distributed_iterator": signature(trainer.JAXEpochIterator._get_distributed_iterator),
    "_distribute_data": signature(trainer._distribute_data),
    "get_jax_iterator": hasattr(trainer.JAXEpochIterator(numpy.ones((2, 1))).data_adapter, "get_jax_iterator"),
    "_layout": variable._layout is None,
    "_initialize_layout": signature(variable._initialize_layout),
    "_direct_assign": signature(variable._direct_assign),
    "_value": variable._value is not None,
}))
"""
EXPECTED = {
    "_get_distributed_iterator": ["self", "distribution"],
    "_distribute_data": ["data", "layouts"],
    "get_jax_iterator": True,
    "_layout": True,
    "_initialize_layout": [],
    "_direct_assign": ["value"],
    "_value": True,
}


@pytest.fixture(scope="module")
def found() -> dict[str, object]:
    command = [sys.executable, "-c", LOOK]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


@pytest.mark.parametrize("name", EXPECTED)
def test_keras_still_has(found: dict[str, object], name: str) -> None:
    assert found[name] == EXPECTED[name]
