"""Which folders are listed ahead of who goes through them."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.drive.index.index import DriveIndex, ListingPage
from haversack.drive.index.prefetch import WalkDetector
from haversack.drive.remote.calls import FOLDER, PARENTS_PER_QUERY, File

_AT_ONCE = PARENTS_PER_QUERY - 1


@pytest.fixture
def index(tmp_path: Path) -> DriveIndex:
    return DriveIndex(tmp_path / "index")


def fill(index: DriveIndex, parent: str, count: int) -> list[str]:
    """List a folder of so many folders; their ids."""
    ids = [f"{parent}-{number}" for number in range(count)]
    files = [File(one, one, parent, FOLDER, 0, "", 1.0, 1) for one in ids]
    number, _ = index.begin_listing(parent)
    index.learn_pages([ListingPage(files, index.mark(), parent, completed=[parent], number=number)])
    return ids


def begun(index: DriveIndex, count: int) -> tuple[WalkDetector, list[str]]:
    """A walk that has read a folder of so many folders and the first of them."""
    walk, ids = WalkDetector(index), fill(index, "top", count)
    walk.folder_read("top")
    walk.folder_read(ids[0])
    return walk, ids


def test_a_folder_read_by_itself_is_no_walk(index: DriveIndex) -> None:
    walk = WalkDetector(index)
    fill(index, "top", 60)
    walk.folder_read("top")
    assert not walk.is_walking()
    assert walk.next_batch({}, alone=True) == []


def test_who_goes_into_a_folder_from_the_one_above_has_its_neighbours_listed_ahead(index: DriveIndex) -> None:
    walk, ids = begun(index, 60)
    assert walk.is_walking()
    assert walk.next_batch({}, alone=True) == ids[1 : 1 + _AT_ONCE]


def test_half_a_query_waits_while_another_may_fill_it(index: DriveIndex) -> None:
    walk, ids = begun(index, 60)
    walk.next_batch({}, alone=True)
    assert walk.next_batch({}, alone=False) == []
    assert walk.next_batch({}, alone=True) == ids[1 + _AT_ONCE :]


def test_what_is_known_or_under_way_is_not_asked_for_again(index: DriveIndex) -> None:
    walk, ids = begun(index, 10)
    fill(index, ids[3], 0)
    assert walk.next_batch({ids[4]}, alone=True) == [*ids[1:3], *ids[5:]]


def test_folders_that_were_found_ahead_come_next(index: DriveIndex) -> None:
    walk, ids = begun(index, 3)
    assert walk.next_batch({}, alone=True) == ids[1:]
    inside = fill(index, ids[1], 2)
    walk.queue_subfolders(ids[1:])
    assert walk.next_batch({}, alone=True) == inside


def test_it_stays_a_few_queries_ahead_until_it_goes_on(index: DriveIndex) -> None:
    walk, _ = begun(index, 2000)
    ahead = []
    while some := walk.next_batch({}, alone=True):
        ahead += some
    assert len(ahead) < 300
    assert walk.is_prefetched(ahead[0])
    for one in ahead:
        walk.folder_read(one)
    assert not walk.is_prefetched(ahead[0])
    assert walk.next_batch({}, alone=True)
