"""The md5 of a file that is filled meanwhile."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from haversack.blocks.checksum import BackgroundMd5
from haversack.blocks.sparse import BLOCK, SparseFile

DATA = random.Random(0).randbytes(10_000_123)


def fill(file: SparseFile, start: int, stop: int) -> None:
    file.write(start, DATA[start:stop])
    file.mark_written(start, stop)


@pytest.mark.parametrize("seed", [1, 2])
def test_it_is_that_of_the_file_in_whatever_order_it_comes(tmp_path: Path, seed: int) -> None:
    file = SparseFile(tmp_path / "f", len(DATA), "a")
    starts = list(range(0, len(DATA), 16 * BLOCK))
    random.Random(seed).shuffle(starts)
    with BackgroundMd5(file) as md5:
        for start in starts:
            fill(file, start, min(start + 16 * BLOCK, len(DATA)))
        assert md5.hexdigest() == hashlib.md5(DATA).hexdigest()


def test_who_asks_while_something_is_missing_does_not_wait_for_ever(tmp_path: Path) -> None:
    file = SparseFile(tmp_path / "f", len(DATA), "a")
    fill(file, 0, 5 * 16 * BLOCK)
    with BackgroundMd5(file) as md5:
        assert md5.hexdigest() != hashlib.md5(DATA).hexdigest()


def test_it_ends_with_its_block(tmp_path: Path) -> None:
    with BackgroundMd5(SparseFile(tmp_path / "f", len(DATA), "a")) as md5:
        pass
    assert not md5._thread.is_alive()
