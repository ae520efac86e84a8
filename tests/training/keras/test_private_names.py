"""One test for each private name of Keras that training rests on: a new release fails here first."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from haversack.training.keras.fit import FitOptions
from tests.training.conftest import LEAN

LOOK = """
import inspect, json, numpy, keras
from keras.src.backend.jax import trainer
from keras.src.backend.common import global_state
from keras.src.callbacks.monitor_callback import MonitorCallback
from keras.src.random import seed_generator
from keras.src.trainers.data_adapters import array_data_adapter, array_slicing, data_adapter, py_dataset_adapter
built = keras.layers.Dense(1)
built.build((None, 1))
variable = built.kernel
class Look(keras.callbacks.CallbackList):
    def on_train_batch_begin(self, batch, logs=None):
        model, looks[batch] = self._model, self._model._jax_state_synced
        if batch == 1:
            looks["groups"] = list(model._jax_state)
            looks["same"] = model._jax_state["trainable_variables"][0].shape == (1, 1)
looks = {}
model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
callbacks = Look([], add_history=True)
callbacks.set_model(model)
source = array_data_adapter.ArrayDataAdapter(numpy.ones((2, 1)), numpy.ones((2, 1)), batch_size=1)
model.fit(source, callbacks=callbacks)
keras.utils.set_random_seed(1)
keras.random.normal((1,))
stopping = keras.callbacks.EarlyStopping("loss")
signature = lambda function: list(inspect.signature(function).parameters)
print(json.dumps({
    "fit": signature(keras.Model.fit),
    "_get_distributed_iterator": signature(trainer.JAXEpochIterator._get_distributed_iterator),
    "_distribute_data": signature(trainer._distribute_data),
    "get_jax_iterator": hasattr(trainer.JAXEpochIterator(numpy.ones((2, 1))).data_adapter, "get_jax_iterator"),
    "_layout": variable._layout is None,
    "_initialize_layout": signature(variable._initialize_layout),
    "_direct_assign": signature(variable._direct_assign),
    "_value": variable._value is not None,
    "an adapter as x": isinstance(source, data_adapter.DataAdapter) and model.history is callbacks._history,
    "_jax_state": looks,
    "_flush_futures, _async_train": (signature(callbacks._flush_futures), callbacks._async_train),
    "train_function": callable(model.train_function),
    "_compile_config": model._compile_config.config["loss"],
    "_learning_rate": isinstance(model.optimizer._learning_rate, keras.Variable),
    "_trainable_variables": len(model.optimizer._trainable_variables),
    "_flatten_layers": [type(layer).__name__ for layer in model._flatten_layers(include_self=False)],
    "ArrayDataAdapter": [hasattr(source, name) for name in ("_inputs", "_num_samples", "_batch_size", "_shuffle")],
    "_get_iterator": signature(array_data_adapter.ArrayDataAdapter._get_iterator),
    "ready_queue": hasattr(py_dataset_adapter.PyDatasetEnqueuer(None).ready_queue, "queue"),
    "PyDatasetAdapter": signature(py_dataset_adapter.PyDatasetAdapter.__init__),
    "train_validation_split": signature(array_slicing.train_validation_split),
    "can_convert_arrays": array_data_adapter.can_convert_arrays((numpy.ones(1), None)),
    "global_seed_generator": global_state.get_global_attribute("global_seed_generator")
    is seed_generator.global_seed_generator(),
    "TensorBoard": keras.callbacks.TensorBoard("logs")._writers,
    "MonitorCallback": isinstance(stopping, MonitorCallback) and stopping.monitor_op is None,
    "_set_monitor_op": signature(MonitorCallback._set_monitor_op),
    "_values, _values_order": [getattr(keras.utils.Progbar(3), name) for name in ("_values", "_values_order")],
    "_update_progbar": signature(keras.callbacks.ProgbarLogger._update_progbar),
    "_finalize_progbar": signature(keras.callbacks.ProgbarLogger._finalize_progbar),
    "_maybe_init_progbar": signature(keras.callbacks.ProgbarLogger._maybe_init_progbar),
}))
"""
EXPECTED = {
    "fit": ["self", "x", "y", *FitOptions.__annotations__],
    "_get_distributed_iterator": ["self", "distribution"],
    "_distribute_data": ["data", "layouts"],
    "get_jax_iterator": True,
    "_layout": True,
    "_initialize_layout": [],
    "_direct_assign": ["value"],
    "_value": True,
    "an adapter as x": True,
    "_jax_state": {
        "0": True,
        "1": False,
        "groups": ["trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables"],
        "same": True,
    },
    "_flush_futures, _async_train": [[], True],
    "train_function": True,
    "_compile_config": "mse",
    "_learning_rate": True,
    "_trainable_variables": 2,
    "_flatten_layers": ["InputLayer", "Dense"],
    "ArrayDataAdapter": [True] * 4,
    "_get_iterator": ["self", "slice_and_convert_fn", "inputs"],
    "ready_queue": True,
    "PyDatasetAdapter": ["self", "x", "class_weight", "shuffle"],
    "train_validation_split": ["arrays", "validation_split"],
    "can_convert_arrays": True,
    "global_seed_generator": True,
    "TensorBoard": {},
    "MonitorCallback": True,
    "_set_monitor_op": ["self"],
    "_values, _values_order": [{}, []],
    "_update_progbar": ["self", "batch", "logs"],
    "_finalize_progbar": ["self", "logs"],
    "_maybe_init_progbar": ["self"],
}


@pytest.fixture(scope="module")
def found() -> dict[str, object]:
    command = [sys.executable, "-c", LEAN + LOOK]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


@pytest.mark.parametrize("name", EXPECTED)
def test_keras_still_has(found: dict[str, object], name: str) -> None:
    assert found[name] == EXPECTED[name]
