"""The order of batches, as a function of seed, epoch and step; and what objects remember, there and back."""

from __future__ import annotations

import random
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from haversack.training.devices import import_keras


@pytest.fixture(scope="module")
def data() -> ModuleType:
    import_keras()
    from haversack.training.keras import data

    return data


@pytest.fixture(scope="module")
def memory() -> ModuleType:
    import_keras()
    from haversack.training.keras import attributes

    return attributes


def test_an_order_has_everything_once(data: ModuleType) -> None:
    assert sorted(data.permutation(7, 0, 100)) == list(range(100))


def test_an_order_never_changes(data: ModuleType) -> None:
    # Runs that began with an earlier release go on in this order.
    assert data.permutation(7, 3, 10).tolist() == [2, 5, 9, 7, 3, 0, 6, 8, 4, 1]


def test_epochs_and_seeds_have_orders_of_their_own(data: ModuleType) -> None:
    orders = [tuple(data.permutation(seed, epoch, 50)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


def test_an_epoch_is_a_pass(data: ModuleType) -> None:
    plan = data.EpochPlan(batches=10, steps=None, steps_per_execution=1)
    assert plan.batch_range(4, 3) == data.BatchRange(4, 3, 10)


def test_short_epochs_share_a_pass(data: ModuleType) -> None:
    plan = data.EpochPlan(batches=10, steps=4, steps_per_execution=1)
    assert [plan.batch_range(epoch) for epoch in range(4)] == [
        data.BatchRange(0, 0, 4),
        data.BatchRange(0, 4, 8),
        data.BatchRange(0, 8, 10),
        data.BatchRange(1, 0, 4),
    ]


def test_steps_are_rounded_up_to_executions(data: ModuleType) -> None:
    assert data.EpochPlan(batches=10, steps=3, steps_per_execution=2).length(0) == 4


@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_a_source_that_starts_later_gives_the_same_batches(data: ModuleType, shuffle: Any) -> None:
    x = np.arange(23)[:, None]
    source = data.ArraySource((x, None, None), None, 1, batch_size=4, shuffle=shuffle, class_weight=None)
    source.seed = 5
    source.seek(2)
    whole = [batch.ravel().tolist() for batch in source.get_numpy_iterator()]
    source.seek(2, 3)
    later = [batch.ravel().tolist() for batch in source.get_numpy_iterator()]
    assert later == whole[3:]
    assert sorted(row for batch in whole for row in batch) == list(range(23))


VALUES = [
    None,
    True,
    3,
    2.5,
    float("inf"),
    "word",
    b"bytes",
    [1, [2.0, "x"]],
    (1, (2,)),
    {"a": [1], 2: "b"},
    list(range(1000)),
    tuple(float(number) for number in range(100)),
    [2**70] * 100,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_plain_values_come_back_as_they_were(memory: ModuleType, value: Any) -> None:
    back = memory.decode(memory.encode(value))
    assert back == value
    assert type(back) is type(value)


def test_words_in_an_array_come_back(memory: ModuleType) -> None:
    words = np.array([["a", "bc"], ["d", "e"]])
    np.testing.assert_array_equal(memory.decode(memory.encode(words)), words)


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937, np.random.Philox])
def test_a_generator_goes_on_where_it_was(memory: ModuleType, kind: Any) -> None:
    generator = np.random.Generator(kind(3))
    generator.random(5)
    back = memory.decode(memory.encode(generator))
    assert back.random(10).tolist() == generator.random(10).tolist()


def test_older_generators_go_on_too(memory: ModuleType) -> None:
    python, older = random.Random(3), np.random.RandomState(3)
    again, older_again = memory.decode(memory.encode(python)), memory.decode(memory.encode(older))
    assert again.random() == python.random()
    assert older_again.rand() == older.rand()


def test_what_cannot_be_written_down_is_left(memory: ModuleType) -> None:
    thing = Thing(count=1, file=print)
    kept = memory.AttributeState([thing])
    kept.record_initial()
    assert list(kept.capture()[0]["values"]) == ["count"]


def test_a_thing_remembers(memory: ModuleType) -> None:
    old, new = Thing(count=0, patience=5), Thing(count=0, patience=9)
    before = memory.AttributeState([old])
    before.record_initial()
    old.count = 3
    after = memory.AttributeState([new])
    after.record_initial()
    after.restore(before.capture())
    assert (new.count, new.patience) == (3, 9)


def test_the_same_object_is_put_back_whole(memory: ModuleType) -> None:
    thing = Thing(count=0, losses=[])
    before = memory.AttributeState([thing])
    before.record_initial()
    taken = before.capture()
    thing.losses.append(1.0)
    again = memory.AttributeState([thing])
    again.record_initial()
    again.restore(taken)
    assert thing.losses == []


class Thing(SimpleNamespace):
    __hash__ = object.__hash__
