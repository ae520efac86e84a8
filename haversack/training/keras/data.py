"""Where a training's batches come from: sources whose order is a pure function of (seed, epoch, step).

A training that goes on in another session has to see the batches that it would have seen, from the one it had come to.
So the order is computed, not drawn: Philox keyed by seed and epoch gives a permutation, and the source starts at any
step of it without going through those before. Only Philox's raw words are used, whose values no release of numpy may
change. Arrays and `keras.utils.PyDataset` can be asked for any batch; a generator, or another source that only goes
forward, cannot, and `why_it_cannot_seek` says so in words for the user.

The sources are Keras's own data adapters with another order, so that what a batch is (slicing, dtypes, class weights)
stays Keras's. Passed as `x`, an adapter makes `model.fit` ignore `batch_size`, `shuffle` and `class_weight`; they are
given here instead.
"""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
from keras.src.trainers.data_adapters import array_data_adapter, array_slicing, py_dataset_adapter

from haversack.errors import InputError
from haversack.training.keras.fingerprint import sketch

_WORD = 2**64 - 1


def permutation(seed: int, epoch: int, count: int, part: int = 0) -> np.ndarray[Any, Any]:
    """The order of `count` things in `epoch`: int64 of shape (count,), the same on every machine.

    `part` tells several permutations of one epoch apart. Philox: Salmon et al. 2011, doi:10.1145/2063384.2063405.
    """
    words = np.random.Philox(key=[seed & _WORD, epoch], counter=[0, 0, part, 0]).random_raw(count)
    return np.argsort(words, kind="stable")


@dataclass(frozen=True)
class Stretch:
    """A part of one pass over the data: the batches from `first` to before `stop` of pass `reading`."""

    reading: int
    first: int
    stop: int


@dataclass(frozen=True)
class Course:
    """How epochs lie on the passes over the data: one each, or several to a pass where `steps_per_epoch` is smaller.

    `batches` is the number of batches of one pass, `steps` what an epoch asks for, `stride` the steps per execution.
    """

    batches: int
    steps: int | None
    stride: int

    def stretch(self, epoch: int, step: int = 0) -> Stretch:
        """What epoch `epoch` trains on from its step `step` on, both counted from 0."""
        epochs_of_a_pass = math.ceil(self.batches / self.longest)
        begin = (epoch % epochs_of_a_pass) * self.longest
        return Stretch(epoch // epochs_of_a_pass, begin + step, min(begin + self.longest, self.batches))

    def length(self, epoch: int) -> int:
        """How many batches epoch `epoch` trains on; a pass may end before its last epoch has all it asks for."""
        stretch = self.stretch(epoch)
        return stretch.stop - stretch.first

    @property
    def longest(self) -> int:
        """The batches of a full epoch: Keras rounds `steps_per_epoch` up to whole executions."""
        drawn = self.batches if self.steps is None else math.ceil(self.steps / self.stride) * self.stride
        return min(drawn, self.batches)


class ArraySource(array_data_adapter.ArrayDataAdapter):
    """Arrays (numpy, JAX, pandas, …), a sample per row, that start at any batch of any epoch."""

    def __init__(self, arrays: tuple[Any, Any, Any], steps: int | None, stride: int, **arguments: Any) -> None:
        x, y, sample_weight = arrays
        super().__init__(x, y, sample_weight=sample_weight, steps=steps, **arguments)
        self.course = _course(self._size, steps, stride)
        self.remembers: list[Any] = []
        self.seed = 0
        self.begin(0)

    @property
    def num_batches(self) -> int:
        return self.course.longest

    def fingerprint(self) -> dict[str, Any]:
        """What the data looks like, as JSON: shapes, dtypes, and a sketch of the values."""
        arrays = [sketch(array) for array in keras.tree.flatten(self._inputs) if array is not None]
        return {"batch_size": self._batch_size, "arrays": arrays}

    def begin(self, epoch: int, step: int = 0) -> None:
        """Let the next iteration be epoch `epoch` from its step `step` on."""
        self._stretch = self.course.stretch(epoch, step)

    def _get_iterator(self, slice_and_convert: Callable[..., Any], inputs: Any) -> Iterator[Any]:
        stretch = self._stretch
        whole = self._shuffle and self._shuffle != "batch"
        order = permutation(self.seed, stretch.reading, self._num_samples) if whole else None
        for batch in range(stretch.first, stretch.stop):
            start = batch * self._batch_size
            stop = min(start + self._batch_size, self._num_samples)
            rows: Any = slice(start, stop)
            if order is not None:
                rows = order[start:stop]
            elif self._shuffle == "batch":
                rows = start + permutation(self.seed, stretch.reading, stop - start, part=batch + 1)
            yield keras.tree.map_structure(partial(slice_and_convert, indices=rows), inputs, none_is_leaf=False)


class BatchSource(py_dataset_adapter.PyDatasetAdapter):
    """A `keras.utils.PyDataset` of known length that starts at any batch of any epoch.

    Its batches have to depend on their index alone, or on what the data set keeps in plain attributes.
    """

    def __init__(
        self,
        dataset: keras.utils.PyDataset,
        steps: int | None,
        stride: int,
        shuffle: bool,
        class_weight: Any,
    ) -> None:
        super().__init__(_Ordered(dataset), class_weight=class_weight, shuffle=False)
        self.course = _course(dataset.num_batches, steps, stride)
        self.remembers = [dataset]
        self.seed = 0
        self._dataset = dataset
        self._shuffled = shuffle
        self.begin(0)

    @property
    def num_batches(self) -> int:
        return self.course.longest

    def fingerprint(self) -> dict[str, Any]:
        """What the data looks like, as JSON. No batch is drawn for it: that may cost much or change the data set."""
        return {"data set": type(self._dataset).__qualname__, "batches": self.course.batches}

    def begin(self, epoch: int, step: int = 0) -> None:
        """Let the next iteration be epoch `epoch` from its step `step` on."""
        if self.enqueuer:
            # What was read ahead in the order before, as when the model was built, Keras keeps for the next epoch.
            self.enqueuer.stop()
            self.enqueuer.ready_queue.queue.clear()
        stretch, count = self.course.stretch(epoch, step), self.course.batches
        order = permutation(self.seed, stretch.reading, count).tolist() if self._shuffled else range(count)
        self.py_dataset.order = order[stretch.first : stretch.stop]
        self._partway = step > 0

    def on_epoch_begin(self) -> None:
        if not self._partway:
            super().on_epoch_begin()
            return
        # The data set was told of this epoch by the session that began it, and remembers what it did then.
        self._within_epoch, self._partway = True, False
        if self.enqueuer:
            self.enqueuer.start()


class _Ordered(keras.utils.PyDataset):
    """A data set's batches in a given order, so that Keras's own worker threads and processes read ahead in it."""

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


class SteppedSource(py_dataset_adapter.PyDatasetAdapter):
    """A data set with an order of its own, such as haversack's images.

    `batch(epoch, step)` gives any batch of any epoch, `len` is how many an epoch has, and `fingerprint()` says what has
    to stay as it is.
    """

    def __init__(self, dataset: Any, steps: int | None, stride: int, class_weight: Any) -> None:
        super().__init__(_Stepped(dataset), class_weight=class_weight, shuffle=False)
        self.course = _course(len(dataset), steps, stride)
        self.remembers: list[Any] = []
        self.seed = 0  # the data set has one of its own
        self._dataset = dataset
        self.begin(0)

    @property
    def num_batches(self) -> int:
        return self.course.longest

    def fingerprint(self) -> dict[str, Any]:
        return dict(self._dataset.fingerprint())

    def begin(self, epoch: int, step: int = 0) -> None:
        """Let the next iteration be epoch `epoch` from its step `step` on."""
        self.py_dataset.stretch = self.course.stretch(epoch, step)


class _Stepped(keras.utils.PyDataset):
    """A stretch of such a data set's batches; after it the next pass comes, or the same one `again`."""

    def __init__(self, dataset: Any, again: bool = False) -> None:
        super().__init__()
        self.again = again
        self.dataset = dataset
        self.stretch = Stretch(0, 0, len(dataset))

    def __len__(self) -> int:
        return self.stretch.stop - self.stretch.first

    def __getitem__(self, index: int) -> Any:
        return self.dataset.batch(self.stretch.reading, self.stretch.first + index)

    def on_epoch_end(self) -> None:
        self.stretch = replace(self.stretch, reading=self.stretch.reading + (not self.again))


Source = ArraySource | BatchSource | SteppedSource


def _course(batches: int, steps: int | None, stride: int) -> Course:
    if batches == 0:
        raise InputError("The data has no sample to train on.", "Look at what was given as x.")
    return Course(batches, steps, stride)


def why_it_cannot_seek(x: Any, arrays: tuple[Any, ...], validation_data: Any) -> str | None:
    """In words for the user, why batches of `x` cannot be had from any step on; None when they can."""
    if is_stepped(x):
        pass
    elif isinstance(x, py_dataset_adapter.PyDataset):
        if getattr(x, "num_batches", None) is None:
            return "a PyDataset without a length has no epochs to find one's place in; give it __len__"
    elif not array_data_adapter.can_convert_arrays(arrays):
        given = next(one for one in arrays if not array_data_adapter.can_convert_arrays((one,)))
        kind = "a generator" if isinstance(given, types.GeneratorType) else f"a {type(given).__name__}"
        return f"{kind} cannot be asked for its 1,000th batch; use arrays or a keras.utils.PyDataset"
    if isinstance(validation_data, Iterator):
        return "a generator as validation_data has no way back; use arrays or a keras.utils.PyDataset"
    return None


def split(arrays: tuple[Any, Any, Any], share: float) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """`arrays` without their last `share` of the samples, and those, as `model.fit` splits them."""
    return array_slicing.train_validation_split(arrays, validation_split=share)


def open_source(arrays: tuple[Any, Any, Any], arguments: dict[str, Any], stride: int) -> Source:
    """The source of what `model.fit` was given as (x, y, sample_weight) and `arguments`; its `seed` is to be set.

    Raises `ValueError` like `model.fit` for arguments that do not go together, `InputError` for data without a sample.
    """
    x, y, sample_weight = arrays
    steps, shuffle, class_weight = (arguments[name] for name in ("steps_per_epoch", "shuffle", "class_weight"))
    source: Source
    if not (is_stepped(x) or isinstance(x, py_dataset_adapter.PyDataset)):
        size = arguments["batch_size"]
        source = ArraySource(arrays, steps, stride, batch_size=size, shuffle=shuffle, class_weight=class_weight)
    else:
        for name, value in (("y", y), ("sample_weight", sample_weight)):
            if value is not None:
                raise ValueError(
                    f"A PyDataset's batches hold targets and sample weights, so `{name}` must not be given."
                )
        if is_stepped(x):
            source = SteppedSource(x, steps, stride, class_weight)
        else:
            source = BatchSource(x, steps, stride, bool(shuffle), class_weight)
    if steps and steps > source.course.batches:
        warnings.warn(
            f"steps_per_epoch is {steps} and the data has {source.course.batches} batches: an epoch is one pass.",
            stacklevel=5,
        )
    return source


def as_keras_takes_it(x: Any) -> Any:
    """`x`, where `model.fit` itself would not know it as a data set of Keras's."""
    return _Stepped(x) if is_stepped(x) and not isinstance(x, py_dataset_adapter.PyDataset) else x


def to_validate(x: Any) -> Any:
    """`x` as `model.fit` takes it to validate on: the same batches after each epoch, in whatever session."""
    return _Stepped(x, again=True) if is_stepped(x) else x


def is_stepped(x: Any) -> bool:
    """Whether `x` has an order of its own, such as haversack's images."""
    return callable(getattr(x, "batch", None)) and callable(getattr(x, "fingerprint", None)) and hasattr(x, "__len__")
