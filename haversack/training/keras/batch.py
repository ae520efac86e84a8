"""Exact tail batches: data parallelism for batches of any size.

Keras shards every batch over the devices. The last batch of an epoch fails if its samples do not divide among them; to
drop it loses samples, and to pad it changes BatchNormalization and the loss. `ExactDataParallel` replicates such a
batch instead: each device computes all of it and reaches the same result, so loss, weights, BatchNormalization and
metrics are those of one device. A batch that divides is sharded as usual.

Keras's JAX trainer computes the layout of the first batch and uses it for all batches of the epoch. `install` patches
the trainer to compute the layout of each batch. The patch uses private names of Keras, hence the pinned version in
`pyproject.toml` and a test for each name. It leaves every other distribution to Keras's own code. With several
processes a batch that does not divide raises an error: each process holds other samples, so it cannot be replicated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import keras
from keras.src.backend.jax import trainer as jax_trainer

from haversack.errors import TrainingError

# Private names of Keras that `install` looks for.
_PATCHED_METHOD = "_get_distributed_iterator"
_DISTRIBUTE_DATA = "_distribute_data"


class ExactDataParallel(keras.distribution.DataParallel):  # type: ignore[misc]
    """`keras.distribution.DataParallel` over all devices, for batches of any size."""

    def get_data_layout(self, data_shape: tuple[int, ...]) -> keras.distribution.TensorLayout:
        """Return the layout of an array of a batch.

        `data_shape` is the shape of this process's part of the array, samples first. The array is sharded by sample if
        its samples divide among this process's devices, else replicated.

        Raises `TrainingError` if several processes train and the samples do not divide.
        """
        processes = jax.process_count()
        # The mesh is public in every version of Keras 3; the numbers of replicas and processes are only since 3.14.
        if data_shape and data_shape[0] % (self.device_mesh.devices.size // processes) == 0:
            return super().get_data_layout(data_shape)
        if data_shape and processes > 1:
            raise TrainingError(
                f"A batch of {data_shape[0]} samples does not divide among the devices of this process.",
                "With several processes, use a batch size that divides among the devices, and drop the remainder.",
            )
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)


def install() -> None:
    """Make `ExactDataParallel` Keras's distribution, for every model that is built from now on. Idempotent.

    Replaces another distribution, and patches Keras's JAX trainer in this process.

    Raises `TrainingError` if this version of Keras lacks the private names that the patch needs.
    """
    if not (hasattr(jax_trainer.JAXEpochIterator, _PATCHED_METHOD) and hasattr(jax_trainer, _DISTRIBUTE_DATA)):
        raise TrainingError(
            f"Keras {keras.__version__} distributes batches in a way that haversack does not support.",
            'Install the supported version with pip install "haversack[train]".',
        )
    _distribute_each_batch(jax_trainer.JAXEpochIterator)
    if not is_installed():
        keras.distribution.set_distribution(ExactDataParallel())


def is_installed() -> bool:
    """Whether `ExactDataParallel` is Keras's current distribution."""
    return isinstance(keras.distribution.distribution(), ExactDataParallel)


def _distribute_each_batch(epoch_iterator: type) -> None:
    """Patch Keras's epoch iterator to compute a layout for each batch under `ExactDataParallel`. Idempotent."""
    original: Callable[[Any, Any], Iterator[Any]] = getattr(epoch_iterator, _PATCHED_METHOD)
    if getattr(original, "distributes_each_batch", False):
        return

    def get_distributed_iterator(self: Any, distribution: Any) -> Iterator[Any]:
        if not isinstance(distribution, ExactDataParallel):
            return original(self, distribution)
        return (jax_trainer._distribute_data(batch) for batch in self.data_adapter.get_jax_iterator())

    get_distributed_iterator.distributes_each_batch = True  # type: ignore[attr-defined]
    setattr(epoch_iterator, _PATCHED_METHOD, get_distributed_iterator)
