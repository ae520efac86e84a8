"""In which order samples come: a pure function of seed, epoch and position.

So a session that goes on at any step seeks there, and hosts agree without talking: the order is one for the whole
training, and each host takes its part of every batch. Nothing is kept of it, whatever the number of samples.

A shuffled epoch is a keyed permutation, computed for just the positions that are asked for: a Feistel network over the
smallest power of two that holds all samples (Luby and Rackoff, 1988, with more rounds than they need, since halves of
a few bits mix slowly), walked on while it leaves the range (Black and Rogaway, "Ciphers with Arbitrary Finite Domains",
2002; fewer than one extra step on average). Its round function is SplitMix64's finalizer (Steele, Lea and Flood,
2014). It is for shuffling, not for secrets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from haversack.errors import InputError

_ROUNDS = 8
_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class SampleOrder:
    """The order of `count` samples over all epochs; with `shuffle` another one in each.

    Raises `InputError` for numbers that make no order.
    """

    count: int
    seed: int = 0
    shuffle: bool = True

    def __post_init__(self) -> None:
        if self.count < 0 or self.seed < 0:
            raise InputError(f"There is no order of {self.count} samples with seed {self.seed}.", "Use 0 or more.")

    def samples(self, epoch: int, start: int, stop: int) -> NDArray[np.int64]:
        """Which samples stand at the positions from `start` to `stop` of an epoch (from 0); fewer at its end."""
        return self._at(epoch, np.arange(start, min(stop, self.count), dtype=np.uint64))

    def batch(self, epoch: int, step: int, size: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
        """The samples that host `rank` of `world` gets of the epoch's batch `step`, which has `size` of all hosts.

        The hosts' parts one after the other are the batch, however many hosts there are; those of a batch that does
        not divide differ by one.
        """
        return self.batches(epoch, [step], size, rank, world)[0]

    def batches(
        self, epoch: int, steps: Sequence[int], size: int, rank: int = 0, world: int = 1
    ) -> list[NDArray[np.int64]]:
        """Several `batch`es of an epoch, which together cost little more than one."""
        if not 0 <= rank < world or size < 1:
            raise InputError(f"There is no part {rank} of {world} of a batch of {size}.", "Count ranks from 0.")
        parts = []
        for step in steps:
            start, whole = step * size, min(size, max(self.count - step * size, 0))
            begin, end = start + whole * rank // world, start + whole * (rank + 1) // world
            parts.append(np.arange(begin, end, dtype=np.uint64))
        ends = np.cumsum([len(part) for part in parts[:-1]], dtype=np.int64)
        return np.split(self._at(epoch, np.concatenate(parts)), ends)

    def _at(self, epoch: int, positions: NDArray[np.uint64]) -> NDArray[np.int64]:
        if not self.shuffle or self.count < 2:
            return positions.astype(np.int64)
        bits = (self.count - 1).bit_length()
        keys = _keys(self.seed, epoch)
        found = _encrypted(positions, bits, keys)
        outside = np.flatnonzero(found >= self.count)
        while len(outside):
            found[outside] = _encrypted(found[outside], bits, keys)
            outside = outside[found[outside] >= self.count]
        return found.astype(np.int64)


def _keys(seed: int, epoch: int) -> list[np.uint64]:
    """The rounds' keys: SplitMix64's stream from a mix of seed and epoch."""
    state = _mixed(_mixed(seed & _WORD) ^ _mixed((seed >> 64) + 1) ^ _mixed(epoch + (1 << 32)))
    return [np.uint64(_mixed((state + number * _GOLDEN) & _WORD)) for number in range(1, _ROUNDS + 1)]


def _encrypted(values: NDArray[np.uint64], bits: int, keys: list[np.uint64]) -> NDArray[np.uint64]:
    """A permutation of the numbers of that many bits, of which the halves may differ by one bit."""
    high, low = bits - bits // 2, bits // 2
    left, right = values >> np.uint64(low), values & np.uint64((1 << low) - 1)
    for key in keys:
        left, right = right, left ^ (_scrambled(right, key) & np.uint64((1 << high) - 1))
        high, low = low, high
    return (left << np.uint64(low)) | right


def _scrambled(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        mixed = (values + key) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def _mixed(value: int) -> int:
    """SplitMix64's finalizer."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
    return value ^ (value >> 31)
