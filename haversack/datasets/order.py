"""The order of samples: a pure function of seed, epoch and position.

A resumed session seeks to any step without replaying the steps before it, and hosts agree on the order without
communication: all share one order, and each host has its own slice of every batch. No index is stored, whatever the
number of samples.

A shuffled epoch is a keyed permutation, computed only for the requested positions. It is a Feistel network over the
smallest power of two that covers all samples (Luby and Rackoff, 1988; with more rounds than their proof needs, because
halves of a few bits mix slowly). Results outside the range are permuted again until they are inside (cycle walking:
Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002; fewer than one extra step on average). The round
function is SplitMix64's finalizer (Steele, Lea and Flood, 2014). The permutation is not cryptographically secure.
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
    """The order of the samples 0 to `count` - 1 in every epoch.

    With `shuffle` each epoch has a random order of its own, which `seed` determines; otherwise it is 0, 1, 2, …
    Raises `InputError` if `count` or `seed` is negative.
    """

    count: int
    seed: int = 0
    shuffle: bool = True

    def __post_init__(self) -> None:
        if self.count < 0 or self.seed < 0:
            raise InputError(
                f"There is no order of {self.count} samples with seed {self.seed}.", "Use numbers of 0 or more."
            )

    def samples(self, epoch: int, start: int, stop: int) -> NDArray[np.int64]:
        """Return the samples at the positions [start, stop) of an epoch; int64 of shape (stop - start,).

        Positions and epochs are numbered from 0. At the end of the epoch there are fewer samples.
        """
        return self._samples_at(epoch, np.arange(start, min(stop, self.count), dtype=np.uint64))

    def batch(self, epoch: int, step: int, size: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
        """Return the samples of one host in batch `step` of an epoch; int64 of shape (n,).

        The concatenation of all hosts' slices is the whole batch, whatever the number of hosts. If the batch is not
        divisible by it, the slices' lengths differ by at most one.

        Args:
            epoch, step: both from 0.
            size: the samples in a batch, over all hosts; the last batch of an epoch may have fewer.
            rank, world: this host's number, from 0, and the number of hosts.

        Raises `InputError` if `rank` is not between 0 and `world` - 1, or `size` is below 1.
        """
        return self.batches(epoch, [step], size, rank, world)[0]

    def batches(
        self, epoch: int, steps: Sequence[int], size: int, rank: int = 0, world: int = 1
    ) -> list[NDArray[np.int64]]:
        """Return what `batch` returns for each of `steps`, computed in one vectorized pass.

        Raises `InputError` if `rank` is not between 0 and `world` - 1, or `size` is below 1.
        """
        if not 0 <= rank < world or size < 1:
            raise InputError(
                f"There is no part {rank} of {world} of a batch of {size}.",
                "Count ranks from 0, and use a batch size of at least 1.",
            )
        parts = []
        for step in steps:
            start, whole = step * size, min(size, max(self.count - step * size, 0))
            begin, end = start + whole * rank // world, start + whole * (rank + 1) // world
            parts.append(np.arange(begin, end, dtype=np.uint64))
        ends = np.cumsum([len(part) for part in parts[:-1]], dtype=np.int64)
        return np.split(self._samples_at(epoch, np.concatenate(parts)), ends)

    def _samples_at(self, epoch: int, positions: NDArray[np.uint64]) -> NDArray[np.int64]:
        if not self.shuffle or self.count < 2:
            return positions.astype(np.int64)
        bits = (self.count - 1).bit_length()
        keys = _keys(self.seed, epoch)
        found = _permute(positions, bits, keys)
        outside = np.flatnonzero(found >= self.count)
        while len(outside):
            found[outside] = _permute(found[outside], bits, keys)
            outside = outside[found[outside] >= self.count]
        return found.astype(np.int64)


def _keys(seed: int, epoch: int) -> list[np.uint64]:
    """Return the key of each round: a SplitMix64 stream whose initial state is a hash of seed and epoch."""
    state = _splitmix64(_splitmix64(seed & _WORD) ^ _splitmix64((seed >> 64) + 1) ^ _splitmix64(epoch + (1 << 32)))
    return [np.uint64(_splitmix64((state + number * _GOLDEN) & _WORD)) for number in range(1, _ROUNDS + 1)]


def _permute(values: NDArray[np.uint64], bits: int, keys: list[np.uint64]) -> NDArray[np.uint64]:
    """Apply the Feistel network, a permutation of the numbers with `bits` bits; its halves may differ by one bit."""
    high, low = bits - bits // 2, bits // 2
    left, right = values >> np.uint64(low), values & np.uint64((1 << low) - 1)
    for key in keys:
        left, right = right, left ^ (_round(right, key) & np.uint64((1 << high) - 1))
        high, low = low, high
    return (left << np.uint64(low)) | right


def _round(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """Apply SplitMix64's finalizer to `values + key`, modulo 2**64."""
    with np.errstate(over="ignore"):
        mixed = (values + key) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def _splitmix64(value: int) -> int:
    """Apply SplitMix64's finalizer to a 64-bit integer."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
    return value ^ (value >> 31)
