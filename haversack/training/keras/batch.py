"""The exact tail batch: data parallelism that takes a batch of any size.

Keras shards every batch over the devices, so the last batch of an epoch fails (or has to be dropped, or padded, which
changes BatchNormalization and the loss) when its samples do not divide among them. Here such a batch is placed whole on
every device instead: each one computes all of it and reaches the same result, so nothing is dropped and loss, weights,
BatchNormalization and metrics are those of one device. What divides is sharded as ever.

Keras's JAX trainer lays out all batches of an epoch as it did the first. `install` makes it ask for each batch; it does
so through private names of Keras (hence the pinned range in `pyproject.toml`, and a test for each name) and leaves
every other distribution to Keras's own code. Batches of several processes are not evened out: one that does not divide
raises, since each process holds other samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
from keras.src.backend.jax import trainer as jax_trainer

from haversack.errors import TrainingError

_EPOCH_ITERATOR = "_get_distributed_iterator"
_LAY_OUT = "_distribute_data"


class ExactDataParallel(keras.distribution.DataParallel):
    """`keras.distribution.DataParallel` over all devices, for batches of any size."""

    def get_data_layout(self, data_shape: tuple[int, ...]) -> keras.distribution.TensorLayout:
        """Sharded by sample where `data_shape`, a process's part of the batch, divides; else replicated.

        Raises `TrainingError` for a batch that does not divide among the devices of several processes.
        """
        if data_shape and data_shape[0] % (self.num_model_replicas // self.num_processes) == 0:
            return super().get_data_layout(data_shape)
        if data_shape and self.num_processes > 1:
            raise TrainingError(
                f"A batch of {data_shape[0]} samples does not divide among this process's devices.",
                "Give every process batches that do, and drop the remainder.",
            )
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)


def install() -> None:
    """Make `ExactDataParallel` the distribution of all that Keras builds and trains from now on. Twice is fine.

    Raises `TrainingError` when this release of Keras lacks what the exact tail batch needs.
    """
    if not (hasattr(jax_trainer.JAXEpochIterator, _EPOCH_ITERATOR) and hasattr(jax_trainer, _LAY_OUT)):
        raise TrainingError(
            f"Keras {keras.__version__} lays out batches in a way that haversack does not know.",
            'Install the release that fits with pip install "haversack[train]".',
        )
    _ask_for_each_batch(jax_trainer.JAXEpochIterator)
    if not is_installed():
        keras.distribution.set_distribution(ExactDataParallel())


def is_installed() -> bool:
    """Whether `ExactDataParallel` is the distribution in force."""
    return isinstance(keras.distribution.distribution(), ExactDataParallel)


def _ask_for_each_batch(epoch_iterator: type) -> None:
    """Replace the iterator's method by one that lays out each batch by itself under `ExactDataParallel`."""
    stock = getattr(epoch_iterator, _EPOCH_ITERATOR)
    if getattr(stock, "lays_out_each_batch", False):
        return

    def distributed(self: Any, distribution: Any) -> Iterator[Any]:
        if not isinstance(distribution, ExactDataParallel):
            return stock(self, distribution)
        return (jax_trainer._distribute_data(batch) for batch in self.data_adapter.get_jax_iterator())

    distributed.lays_out_each_batch = True  # type: ignore[attr-defined]
    setattr(epoch_iterator, _EPOCH_ITERATOR, distributed)
