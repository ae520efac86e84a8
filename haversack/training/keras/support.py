"""Whether the installed Keras and JAX do what resuming a training rests on.

`fit` uses private names of Keras, and a notebook's environment may hold any version of it. First the names are looked
up, which takes milliseconds. For versions that haversack was not tested with, `canary` then trains, interrupts and
resumes a tiny model in a process of its own, because a name that is still there may have changed its meaning. Its
verdict is kept in the cache folder, once for each pair of versions.
"""

from __future__ import annotations

import functools
import os
from importlib import metadata

from haversack.errors import TrainingError
from haversack.training import verdict

# From the first (included) to the last (excluded). Tests run Keras 3.13 on JAX 0.7, and Keras 3.15 on JAX 0.10.
_TESTED: dict[str, verdict.Range] = {"keras": ((3, 13), (3, 16)), "jax": ((0, 7), (0, 11))}
_ADAPTERS = "keras.src.trainers.data_adapters"
# The private names that this package uses: module and attributes.
_NAMES = (
    ("keras.src.backend.jax.trainer", "_distribute_data"),
    ("keras.src.backend.jax.trainer", "JAXEpochIterator._get_distributed_iterator"),
    ("keras.src.backend.common.global_state", "get_global_attribute"),
    ("keras.src.backend", "Variable._initialize_layout"),
    ("keras.src.backend", "Variable._direct_assign"),
    ("keras.src.callbacks.monitor_callback", "MonitorCallback._set_monitor_op"),
    ("keras.src.random.seed_generator", "global_seed_generator"),
    (f"{_ADAPTERS}.data_adapter", "DataAdapter"),
    (f"{_ADAPTERS}.array_data_adapter", "ArrayDataAdapter._get_iterator"),
    (f"{_ADAPTERS}.array_data_adapter", "can_convert_arrays"),
    (f"{_ADAPTERS}.array_slicing", "train_validation_split"),
    (f"{_ADAPTERS}.py_dataset_adapter", "PyDatasetEnqueuer"),
    ("keras", "Model._flatten_layers"),
    ("keras", "callbacks.CallbackList._flush_futures"),
    ("keras", "callbacks.ProgbarLogger._maybe_init_progbar"),
    ("keras", "callbacks.ProgbarLogger._update_progbar"),
    ("keras", "callbacks.ProgbarLogger._finalize_progbar"),
)
_CANARY = "haversack.training.keras.canary"
_OF_CANARY = {
    "KERAS_BACKEND": "jax",
    # Away from the accelerator, which this process may hold; two devices show whether tail batches are exact.
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
}


def check() -> None:
    """Raise `TrainingError` if trainings cannot be resumed with the installed Keras and JAX. Keras must be on JAX."""
    reason = reason_unsupported()
    if reason:
        raise TrainingError(
            f"{reason[:1].upper()}{reason[1:]}.", 'Install supported versions with pip install "haversack[train]".'
        )


@functools.cache
def reason_unsupported() -> str | None:
    """Why trainings cannot be resumed with the installed Keras and JAX, in words; None if they can.

    Reads the environment variable `HAVERSACK_CANARY`, which only the canary's own process has.
    """
    versions = {name: metadata.version(name) for name in _TESTED}
    installed = f"Keras {versions['keras']} with JAX {versions['jax']}"
    missing = next((name for module, name in _NAMES if not verdict.exists(module, name)), None)
    if missing:
        return f"{installed} has no {missing.rpartition('.')[2]}, by which haversack saves and resumes trainings"
    is_tested = all(verdict.is_in(version, _TESTED[name]) for name, version in versions.items())
    if os.environ.get(verdict.VARIABLE) or is_tested:
        return None
    title = f"Keras {versions['keras']} and JAX {versions['jax']}"
    failure = verdict.failure_of(_CANARY, versions, title, _OF_CANARY)
    return f"{installed} fails haversack's check that a training resumes exactly ({failure})" if failure else None
