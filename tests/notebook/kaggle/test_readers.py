"""Reading archive members at any offset: decompressed once, shared by handles, prefetched in order."""

from __future__ import annotations

import random
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from haversack.errors import IntegrityError
from haversack.notebook.kaggle.inputs import DatasetFiles
from haversack.notebook.kaggle.readers import Readers, SpoolReader, WholeReader

LARGE = b"".join(b"%d,%d\n" % (number, number * number) for number in range(350_000))


class Observed(DatasetFiles):
    """The files of an archive; notes what is opened and prefetched."""

    def __init__(self, source: str) -> None:
        super().__init__(source, None)
        self.opened: list[str] = []
        self.prefetched: list[Sequence[str]] = []

    def open(self, name: str) -> BinaryIO:
        self.opened.append(name)
        return super().open(name)

    def prefetch(self, names: Sequence[str]) -> None:
        self.prefetched.append(names)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "things.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("large.csv", LARGE)
        made.writestr("small.txt", "hello world")
        for number in range(40):
            made.writestr(f"images/{number:02}.png", b"%d" % number)
    return path


@pytest.fixture
def files(archive: Path) -> Observed:
    return Observed(str(archive))


@pytest.fixture
def readers(files: Observed, tmp_path: Path) -> Readers:
    return Readers(files, tmp_path)


def test_a_small_member_is_read_whole(readers: Readers) -> None:
    reader = readers.acquire("small.txt", 11)
    assert isinstance(reader, WholeReader)
    assert reader.read(6, 100) == b"world"
    assert reader.read(11, 5) == b""


def test_a_large_member_is_read_at_random_and_decompressed_once(readers: Readers, files: Observed) -> None:
    reader = readers.acquire("large.csv", len(LARGE))
    assert isinstance(reader, SpoolReader)
    offsets = [len(LARGE) - 100, 0, *random.Random(1).sample(range(len(LARGE)), 50)]
    for offset in offsets:
        assert reader.read(offset, 5000) == LARGE[offset : offset + 5000]
    assert files.opened == ["large.csv"]


def test_a_first_read_decompresses_no_more_than_it_needs(readers: Readers) -> None:
    reader = readers.acquire("large.csv", len(LARGE))
    assert reader.read(0, 10) == LARGE[:10]
    assert isinstance(reader, SpoolReader)
    assert reader._filled <= 1 << 20


def test_threads_read_one_member_together(readers: Readers, files: Observed) -> None:
    wrong: list[int] = []

    def read(seed: int) -> None:
        reader = readers.acquire("large.csv", len(LARGE))
        for offset in random.Random(seed).sample(range(len(LARGE)), 30):
            if reader.read(offset, 1000) != LARGE[offset : offset + 1000]:
                wrong.append(offset)
        readers.release("large.csv")

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert files.opened == ["large.csv"]


def test_a_file_that_is_opened_again_is_not_decompressed_again(readers: Readers, files: Observed) -> None:
    for _ in range(3):
        reader = readers.acquire("large.csv", len(LARGE))
        assert reader.read(len(LARGE) - 5, 5) == LARGE[-5:]
        readers.release("large.csv")
    assert files.opened == ["large.csv"]


def test_the_rest_of_a_member_is_prefetched_once_the_reader_goes_on(readers: Readers, files: Observed) -> None:
    reader = readers.acquire("large.csv", len(LARGE))
    reader.read(0, 1000)
    assert files.prefetched == []
    reader.read(5 << 20, 1000)
    assert files.prefetched == [["large.csv"]]


def test_files_opened_in_order_have_the_next_ones_prefetched(readers: Readers, files: Observed) -> None:
    for number in range(12):
        readers.acquire(f"images/{number:02}.png", 1)
    assert files.prefetched
    assert files.prefetched[0][:2] == ["images/05.png", "images/06.png"]


def test_files_opened_at_random_have_not(readers: Readers, files: Observed) -> None:
    for number in (30, 2, 17, 39, 0, 25, 11, 36, 5):
        readers.acquire(f"images/{number:02}.png", 1)
    assert files.prefetched == []


def test_a_damaged_member_is_an_error_each_time(archive: Path, tmp_path: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0xFF
    archive.write_bytes(data)
    reader = Readers(Observed(str(archive)), tmp_path).acquire("large.csv", len(LARGE))
    for _ in range(2):
        with pytest.raises(IntegrityError):
            reader.read(len(LARGE) - 10, 10)
