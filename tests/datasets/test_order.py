from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest

from haversack.datasets.order import SampleOrder
from haversack.errors import InputError


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 64, 1000, 65_537])
def test_every_sample_comes_once_in_an_epoch(count: int) -> None:
    assert sorted(SampleOrder(count, 7).samples(3, 0, count)) == list(range(count))


def test_order_is_the_same_wherever_one_begins() -> None:
    order = SampleOrder(1000, 7)
    whole = order.samples(2, 0, 1000)
    assert (order.samples(2, 613, 700) == whole[613:700]).all()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [tuple(SampleOrder(1000, seed).samples(epoch, 0, 1000)) for seed in (0, 1, 2**64) for epoch in (0, 1, 2)]
    assert len(set(orders)) == 9


def test_order_of_a_seed_is_for_ever() -> None:
    # What was saved in the middle of an epoch goes on with it in a later version.
    assert SampleOrder(10, 5).samples(1, 0, 10).tolist() == [3, 9, 8, 7, 1, 0, 4, 5, 2, 6]


def test_every_order_of_few_samples_is_about_as_likely() -> None:
    seen = collections.Counter(tuple(SampleOrder(4, seed).samples(0, 0, 4)) for seed in range(4800))
    assert set(seen) == set(itertools.permutations(range(4)))
    assert 120 < min(seen.values()) <= max(seen.values()) < 300  # 200 each, with a deviation of 14


def test_samples_land_anywhere() -> None:
    places = np.array([np.argsort(SampleOrder(50, seed).samples(0, 0, 50)) for seed in range(4000)])
    counts = np.array([np.bincount(places[:, sample], minlength=50) for sample in range(50)])
    assert abs(counts - 80).max() < 6 * 80**0.5


def test_neighbours_are_parted() -> None:
    order = SampleOrder(100_000, 1).samples(0, 0, 100_000)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02


def test_hundred_million_samples_need_no_memory() -> None:
    order = SampleOrder(100_000_000, 3)
    assert len(np.unique(np.concatenate([order.samples(0, at, at + 1000) for at in (0, 99_999_000)]))) == 2000


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("step", [0, 3, 15])
def test_parts_of_all_hosts_are_the_batch(world: int, step: int) -> None:
    order = SampleOrder(1000, 7)
    parts = [order.batch(1, step, 64, rank, world) for rank in range(world)]
    assert np.concatenate(parts).tolist() == order.samples(1, step * 64, step * 64 + 64).tolist()


def test_last_batch_has_what_is_left_and_none_follows() -> None:
    order = SampleOrder(100, 0)
    assert [len(order.batch(0, step, 64)) for step in range(3)] == [64, 36, 0]


def test_unshuffled_order_is_that_of_the_samples() -> None:
    assert SampleOrder(5, shuffle=False).samples(9, 1, 4).tolist() == [1, 2, 3]


def test_part_of_a_host_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no part 2 of 2"):
        SampleOrder(10).batch(0, 0, 4, rank=2, world=2)


def test_several_batches_are_those_one_by_one() -> None:
    order = SampleOrder(1000, 7)
    several = order.batches(1, [14, 15, 3], 64, rank=1, world=3)
    assert [part.tolist() for part in several] == [order.batch(1, step, 64, 1, 3).tolist() for step in (14, 15, 3)]
