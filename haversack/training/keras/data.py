"""Sources of batches whose order is a pure function of (seed, epoch, step).

A training that resumes in another session must get the batches that it would have got, from its current step on. So the
order is computed instead of drawn from a random stream: Philox, keyed by seed and pass over the data, gives a
permutation, and a source starts at any step of it without reading the batches before. Only Philox's raw words are used,
because numpy guarantees their values across versions. Arrays and `keras.utils.PyDataset` give random access to batches.
A generator is read forward only; `reason_not_seekable` explains that to the user.

The sources are subclasses of Keras's own data adapters that replace the order, so slicing, dtypes and class weights
stay Keras's. When `model.fit` gets an adapter as `x`, it ignores `batch_size`, `shuffle` and `class_weight`; the
constructors take them instead.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
from keras.src.trainers.data_adapters import array_data_adapter, array_slicing, py_dataset_adapter

from haversack.errors import InputError
from haversack.training.keras.data_kinds import kind_of
from haversack.training.keras.fingerprint import sketch

_UINT64_MAX = 2**64 - 1


def permutation(seed: int, epoch: int, count: int, part: int = 0) -> np.ndarray[Any, Any]:
    """Return a permutation of range(`count`): int64 of shape (count,), the same on every machine.

    `part` selects one of several independent permutations of the same seed and epoch. The permutation sorts random
    words of Philox: Salmon et al. 2011, doi:10.1145/2063384.2063405.
    """
    words = np.random.Philox(key=[seed & _UINT64_MAX, epoch], counter=[0, 0, part, 0]).random_raw(count)
    return np.argsort(words, kind="stable")


@dataclass(frozen=True)
class BatchRange:
    """The batches `first` (included) to `stop` (excluded) of the pass `pass_index` over the data, all from 0."""

    pass_index: int
    first: int
    stop: int


@dataclass(frozen=True)
class EpochPlan:
    """Which batches an epoch trains on.

    An epoch is one pass over the data, or, if `steps_per_epoch` is smaller, a part of one.

    Attributes:
        batches: the number of batches in one pass.
        steps: `steps_per_epoch` as given to `fit`; None for a whole pass.
        steps_per_execution: Keras's number of batches in one compiled call.
    """

    batches: int
    steps: int | None
    steps_per_execution: int

    def batch_range(self, epoch: int, step: int = 0) -> BatchRange:
        """Return the batches of epoch `epoch` from its step `step` to its end, both counted from 0."""
        epochs_per_pass = math.ceil(self.batches / self.batches_per_epoch)
        first = (epoch % epochs_per_pass) * self.batches_per_epoch
        stop = min(first + self.batches_per_epoch, self.batches)
        return BatchRange(epoch // epochs_per_pass, first + step, stop)

    def length(self, epoch: int) -> int:
        """Return the number of batches of epoch `epoch`, from 0; the last epoch of a pass may have fewer."""
        whole = self.batch_range(epoch)
        return whole.stop - whole.first

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches of a full epoch, at most `batches`.

        It is `steps` rounded up to a multiple of `steps_per_execution`, as Keras does.
        """
        if self.steps is None:
            return self.batches
        return min(math.ceil(self.steps / self.steps_per_execution) * self.steps_per_execution, self.batches)


class ArraySource(array_data_adapter.ArrayDataAdapter):  # type: ignore[misc]
    """Arrays (numpy, JAX, pandas, …) with a sample per row. It can start at any batch of any epoch.

    The caller must set `seed`, which determines the order, before the first epoch. `plan` is its `EpochPlan`, and
    `stateful_objects` (none) are those whose attributes belong in a checkpoint.
    """

    def __init__(
        self, arrays: tuple[Any, Any, Any], steps: int | None, steps_per_execution: int, **options: Any
    ) -> None:
        """`arrays` are (x, y, sample_weight); `options` are `batch_size`, `shuffle` and `class_weight`."""
        x, y, sample_weight = arrays
        super().__init__(x, y, sample_weight=sample_weight, steps=steps, **options)
        self.plan = _plan(self._size, steps, steps_per_execution)
        self.stateful_objects: list[Any] = []
        self.seed = 0
        self.seek(0)

    @property
    def num_batches(self) -> int:
        return self.plan.batches_per_epoch

    def fingerprint(self) -> dict[str, Any]:
        """Return the batch size, and the `fingerprint.sketch` of each array, as JSON."""
        arrays = [sketch(array) for array in keras.tree.flatten(self._inputs) if array is not None]
        return {"batch_size": self._batch_size, "arrays": arrays}

    def seek(self, epoch: int, step: int = 0) -> None:
        """Make the next iterator start at step `step` of epoch `epoch`, both counted from 0."""
        self._range = self.plan.batch_range(epoch, step)

    def _get_iterator(self, slice_and_convert: Callable[..., Any], inputs: Any) -> Iterator[Any]:
        batches = self._range
        by_sample = self._shuffle and self._shuffle != "batch"
        order = permutation(self.seed, batches.pass_index, self._num_samples) if by_sample else None
        for batch in range(batches.first, batches.stop):
            start = batch * self._batch_size
            stop = min(start + self._batch_size, self._num_samples)
            rows: Any = slice(start, stop)
            if order is not None:
                rows = order[start:stop]
            elif self._shuffle == "batch":
                rows = start + permutation(self.seed, batches.pass_index, stop - start, part=batch + 1)
            yield keras.tree.map_structure(partial(slice_and_convert, indices=rows), inputs, none_is_leaf=False)


class BatchSource(py_dataset_adapter.PyDatasetAdapter):  # type: ignore[misc]
    """A `keras.utils.PyDataset` of known length. It can start at any batch of any epoch.

    A batch must depend only on its index and on plain attributes of the data set. The caller must set `seed`, which
    determines the order, before the first epoch. `plan` is its `EpochPlan`, and `stateful_objects` (the data set) are
    those whose attributes belong in a checkpoint.
    """

    def __init__(
        self,
        dataset: keras.utils.PyDataset,
        steps: int | None,
        steps_per_execution: int,
        shuffle: bool,
        class_weight: Any,
    ) -> None:
        super().__init__(_OrderedDataset(dataset), class_weight=class_weight, shuffle=False)
        self.plan = _plan(dataset.num_batches, steps, steps_per_execution)
        self.stateful_objects = [dataset]
        self.seed = 0
        self._dataset = dataset
        self._shuffled = shuffle
        self.seek(0)

    @property
    def num_batches(self) -> int:
        return self.plan.batches_per_epoch

    def fingerprint(self) -> dict[str, Any]:
        """Return class name and number of batches, as JSON. No batch is read: that may be slow or alter the data."""
        return {"data set": type(self._dataset).__qualname__, "batches": self.plan.batches}

    def seek(self, epoch: int, step: int = 0) -> None:
        """Make the next iterator start at step `step` of epoch `epoch`, both counted from 0."""
        if self.enqueuer:
            # Drop batches that Keras prefetched in the previous order, for example while it built the model: it would
            # keep them for the next epoch.
            self.enqueuer.stop()
            self.enqueuer.ready_queue.queue.clear()
        batches, count = self.plan.batch_range(epoch, step), self.plan.batches
        order = permutation(self.seed, batches.pass_index, count).tolist() if self._shuffled else range(count)
        self.py_dataset.order = order[batches.first : batches.stop]
        self._resumes_inside_epoch = step > 0

    def on_epoch_begin(self) -> None:
        """Start the epoch; call `on_epoch_begin` of the data set only if the epoch starts at step 0.

        In an epoch that is resumed, an earlier session called it, and the restored attributes include the effect.
        """
        if not self._resumes_inside_epoch:
            super().on_epoch_begin()
            return
        self._within_epoch, self._resumes_inside_epoch = True, False
        if self.enqueuer:
            self.enqueuer.start()


class _OrderedDataset(keras.utils.PyDataset):  # type: ignore[misc]
    """The batches of `dataset` whose indices are in `order`, in that order, so that Keras's workers prefetch in it."""

    def __init__(self, dataset: keras.utils.PyDataset) -> None:
        super().__init__(
            workers=dataset.workers,
            use_multiprocessing=dataset.use_multiprocessing,
            max_queue_size=dataset.max_queue_size,
        )
        self.dataset = dataset
        self.order: Any = ()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.order[index]]

    def on_epoch_begin(self) -> None:
        self.dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.dataset.on_epoch_end()


class RandomAccessSource(py_dataset_adapter.PyDatasetAdapter):  # type: ignore[misc]
    """A data set that orders its batches itself, such as haversack's images.

    Its class has the attribute `random_access_batches = True`. It has `batch(epoch, step)`, which returns any batch of
    any pass over the data; `len()`, the number of batches in a pass; and `fingerprint()`, the JSON that must not change
    between sessions. `plan` is the `EpochPlan`; `seed` has no effect.
    """

    def __init__(self, dataset: Any, steps: int | None, steps_per_execution: int, class_weight: Any) -> None:
        super().__init__(_RandomAccessDataset(dataset), class_weight=class_weight, shuffle=False)
        self.plan = _plan(len(dataset), steps, steps_per_execution)
        self.stateful_objects: list[Any] = []
        self.seed = 0  # unused: the data set has its own
        self._dataset = dataset
        self.seek(0)

    @property
    def num_batches(self) -> int:
        return self.plan.batches_per_epoch

    def fingerprint(self) -> dict[str, Any]:
        """Return what the data set's own `fingerprint()` returns."""
        return dict(self._dataset.fingerprint())

    def seek(self, epoch: int, step: int = 0) -> None:
        """Make the next iterator start at step `step` of epoch `epoch`, both counted from 0."""
        self.py_dataset.batches = self.plan.batch_range(epoch, step)


class _RandomAccessDataset(keras.utils.PyDataset):  # type: ignore[misc]
    """A PyDataset of the batches of a random-access data set that the `BatchRange` `batches` selects, at first a pass.

    At the end of an epoch it moves to the next pass over the data; with `same_pass`, for validation, it does not.
    """

    def __init__(self, dataset: Any, same_pass: bool = False) -> None:
        super().__init__()
        self.same_pass = same_pass
        self.dataset = dataset
        self.batches = BatchRange(0, 0, len(dataset))

    def __len__(self) -> int:
        return self.batches.stop - self.batches.first

    def __getitem__(self, index: int) -> Any:
        return self.dataset.batch(self.batches.pass_index, self.batches.first + index)

    def on_epoch_end(self) -> None:
        self.batches = replace(self.batches, pass_index=self.batches.pass_index + (not self.same_pass))


Source = ArraySource | BatchSource | RandomAccessSource


def _plan(batches: int, steps: int | None, steps_per_execution: int) -> EpochPlan:
    """An `EpochPlan` of its arguments. Raises `InputError` if there is no batch."""
    if batches == 0:
        raise InputError("The data has no samples to train on.", "Check the x that you passed.")
    return EpochPlan(batches, steps, steps_per_execution)


def reason_not_seekable(x: Any, arrays: tuple[Any, ...], validation_data: Any) -> str | None:
    """Return why a training on this data cannot resume in a later session, in words for the user; None if it can.

    Args:
        x: the data, as given to `fit`.
        arrays: (x, y, sample_weight), as given to `fit`.
        validation_data: as given to `fit`.
    """
    if is_random_access(x):
        pass
    elif isinstance(x, py_dataset_adapter.PyDataset):
        if getattr(x, "num_batches", None) is None:
            return "a PyDataset without a length has no epochs to resume in; give it __len__"
    elif not array_data_adapter.can_convert_arrays(arrays):
        given = next(one for one in arrays if not array_data_adapter.can_convert_arrays((one,)))
        return f"{kind_of(given)} cannot be asked for its 1,000th batch; use arrays or a keras.utils.PyDataset"
    if isinstance(validation_data, Iterator):
        kind = kind_of(validation_data)
        return f"{kind} as validation_data cannot be rewound; use arrays or a keras.utils.PyDataset"
    return None


def split(arrays: tuple[Any, Any, Any], share: float) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """Split (x, y, sample_weight) as `model.fit` does with `validation_split=share`.

    Returns the arrays to train on and those to validate on, which are the last `share` (0 to 1) of the samples.
    """
    training, validation = array_slicing.train_validation_split(arrays, validation_split=share)
    return training, validation


def open_source(arrays: tuple[Any, Any, Any], arguments: dict[str, Any], steps_per_execution: int) -> Source:
    """Return the source of a training's batches. The caller must set its `seed`.

    Args:
        arrays: (x, y, sample_weight), as given to `fit`.
        arguments: all arguments of `model.fit` by name; `batch_size`, `steps_per_epoch`, `shuffle` and `class_weight`
            are used.
        steps_per_execution: the model's number of batches in one compiled call.

    Raises `InputError` for data without a sample. Raises `ValueError` for arguments that `model.fit` does not accept
    together, and warns if `steps_per_epoch` exceeds the number of batches.
    """
    x, y, sample_weight = arrays
    steps, shuffle, class_weight = (arguments[name] for name in ("steps_per_epoch", "shuffle", "class_weight"))
    source: Source
    if not (is_random_access(x) or isinstance(x, py_dataset_adapter.PyDataset)):
        size = arguments["batch_size"]
        source = ArraySource(
            arrays, steps, steps_per_execution, batch_size=size, shuffle=shuffle, class_weight=class_weight
        )
    else:
        for name, value in (("y", y), ("sample_weight", sample_weight)):
            if value is not None:
                raise ValueError(
                    f"A PyDataset's batches hold targets and sample weights, so `{name}` must not be given."
                )
        if is_random_access(x):
            source = RandomAccessSource(x, steps, steps_per_execution, class_weight)
        else:
            source = BatchSource(x, steps, steps_per_execution, bool(shuffle), class_weight)
    if steps and steps > source.plan.batches:
        warnings.warn(
            f"steps_per_epoch is {steps}, but the data has {source.plan.batches} batches: an epoch is one pass over "
            "the data.",
            stacklevel=5,
        )
    return source


def as_training_data(x: Any) -> Any:
    """Return `x` for a `model.fit` without checkpoints.

    A random-access data set that is not a PyDataset is wrapped in one; all other data is returned as it is.
    """
    return _RandomAccessDataset(x) if is_random_access(x) and not isinstance(x, py_dataset_adapter.PyDataset) else x


def as_validation_data(x: Any) -> Any:
    """Return `x` for use as `validation_data`.

    A random-access data set is wrapped in a PyDataset that gives every validation, in every session, the same batches;
    all other data is returned as it is.
    """
    return _RandomAccessDataset(x, same_pass=True) if is_random_access(x) else x


def is_random_access(x: Any) -> bool:
    """Whether `x` is a random-access data set, such as haversack's images; see `RandomAccessSource`.

    Recognized by an attribute of its class, not by its methods: a `tf.data.Dataset` has `batch`, `fingerprint` and a
    length too.
    """
    return getattr(type(x), "random_access_batches", False) is True
