"""Crowded folders: nothing about one name, one page or one change depends on how many others there are."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haversack.hub.content import stage_file
from haversack.hub.drive import DriveRequest, DriveService
from haversack.hub.records import Records
from haversack.hub.signin import SignIn
from haversack.hub.tree import Tree

COUNT = 6000


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    (tmp_path / ".hub").mkdir()
    tree = Tree(tmp_path / "My Drive", tmp_path / ".hub", Records(tmp_path / ".hub" / "records.sqlite"))
    yield tree
    tree.close()


@pytest.fixture
def drive(tree: Tree, tmp_path: Path) -> DriveService:
    return DriveService(tree, tmp_path, SignIn("token"))


@pytest.fixture
def crowded(tree: Tree) -> Path:
    """A folder made by hand, long enough ago for its time to be trusted."""
    folder = tree.folder / "crowded"
    folder.mkdir()
    for number in range(COUNT):
        os.close(os.open(folder / f"{number:05}.txt", os.O_CREAT | os.O_WRONLY))
    threading.Event().wait(0.15)
    return folder


def found(drive: DriveService, q: str, **more: str) -> dict[str, Any]:
    answer = drive.answer(DriveRequest("GET", "files", "http://hub", {"q": q, **more}))
    assert answer is not None
    return answer


def folder_id(drive: DriveService, name: str = "crowded") -> str:
    (file,) = found(drive, f"name = '{name}' and 'root' in parents")["files"]
    return str(file["id"])


def listed(drive: DriveService, q: str) -> list[str]:
    """All names, page by page."""
    names, token = [], ""
    while True:
        page = found(drive, q, pageSize="1000", pageToken=token)
        names += [file["name"] for file in page["files"]]
        if not (token := page.get("nextPageToken", "")):
            return names


def known(tree: Tree, parent: str) -> int:
    return tree.records.search("SELECT count(*) FROM files WHERE parent = ?", parent)[0][0]


def add(tree: Tree, parent: str, name: str) -> str:
    aside = tree.folder.parent / "aside"
    aside.write_bytes(b"content")
    return tree.add(parent, name, "text/plain", stage_file(aside), {}).id


def test_pages_hold_every_file_once(drive: DriveService, crowded: Path) -> None:
    names = listed(drive, f"'{folder_id(drive)}' in parents and trashed = false")
    assert sorted(names) == [f"{number:05}.txt" for number in range(COUNT)]


def test_pages_of_several_folders_hold_every_file_once(drive: DriveService, crowded: Path) -> None:
    for number in range(5):
        (crowded.parent / f"other {number}").mkdir()
        (crowded.parent / f"other {number}" / "x").write_text("")
    parents = [folder_id(drive), *(folder_id(drive, f"other {number}") for number in range(5))]
    names = listed(drive, " or ".join(f"'{parent}' in parents" for parent in parents))
    assert sorted(names) == sorted([*(f"{number:05}.txt" for number in range(COUNT)), *["x"] * 5])


def test_a_name_is_looked_up_without_reading_the_folder(drive: DriveService, tree: Tree, crowded: Path) -> None:
    parent = folder_id(drive)
    assert len(found(drive, f"name = '00007.txt' and '{parent}' in parents and trashed = false")["files"]) == 1
    assert known(tree, parent) == 1


def test_what_the_hub_does_to_a_folder_is_no_reason_to_read_it_again(
    drive: DriveService, tree: Tree, crowded: Path
) -> None:
    parent = folder_id(drive)
    found(drive, f"'{parent}' in parents")
    made = add(tree, parent, "new.txt")
    tree.revise(made, {"name": "renamed.txt"})
    tree.revise(made, {"trashed": True})
    tree.revise(made, {"trashed": False})
    tree.delete(add(tree, parent, "gone.txt"))
    assert tree.get(parent).scanned == crowded.stat().st_ctime_ns


def test_a_change_by_hand_after_one_of_the_hubs_is_seen(drive: DriveService, tree: Tree, crowded: Path) -> None:
    parent = folder_id(drive)
    found(drive, f"'{parent}' in parents")
    add(tree, parent, "new.txt")
    threading.Event().wait(0.02)
    (crowded / "by hand.txt").write_text("x")
    (crowded / "00001.txt").unlink()
    names = listed(drive, f"'{parent}' in parents")
    assert {"new.txt", "by hand.txt"} < set(names)
    assert "00001.txt" not in names


def test_other_calls_are_answered_while_a_folder_is_taken_in(drive: DriveService, tree: Tree, crowded: Path) -> None:
    parent = folder_id(drive)
    other = add(tree, "root", "other.txt")
    listing = threading.Thread(target=found, args=(drive, f"'{parent}' in parents"))
    listing.start()
    while not (begun := known(tree, parent)):
        threading.Event().wait(0.001)
    assert tree.get(other).name == "other.txt"
    add(tree, parent, "meanwhile.txt")
    answered_at = known(tree, parent)
    listing.join()
    assert begun <= answered_at <= COUNT + 1 == known(tree, parent)


def test_two_listings_at_once_take_each_file_in_once(drive: DriveService, tree: Tree, crowded: Path) -> None:
    parent = folder_id(drive)
    listings = [threading.Thread(target=tree.disk.scan, args=(tree.get(parent), crowded)) for _ in range(4)]
    for listing in listings:
        listing.start()
    for listing in listings:
        listing.join()
    assert known(tree, parent) == COUNT


def test_a_folder_that_was_being_taken_in_when_the_hub_ended_is_gone_on_with(tree: Tree, crowded: Path) -> None:
    listing = threading.Thread(target=tree.disk.scan_tree, kwargs={"contents": True})
    listing.start()
    while not tree.records.search("SELECT 1 FROM files WHERE name = '00000.txt'"):
        threading.Event().wait(0.001)
    tree.close()
    listing.join()
    again = Tree(tree.folder, crowded.parent.parent / ".hub", tree.records)
    parent = again.index.find_by_name(again.root, "crowded")[0].id
    assert 0 < known(again, parent) < COUNT
    again.disk.scan(again.get(parent), crowded)
    assert known(again, parent) == COUNT
    again.close()


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        ("parent = ? AND trashed = 0 AND seq > 5 ORDER BY seq", "files_in (parent=? AND rowid>?)"),
        ("parent IN (?, 'a', 'b') AND trashed = 0 ORDER BY parent, seq", "files_in (parent=?)"),
        ("folded = 'x' AND parent = ? AND trashed = 0 ORDER BY seq", "files_by_name (parent=? AND folded=?)"),
        ("parent = ? AND disk > 'x' AND NOT binned ORDER BY disk", "files_on_disk (parent=? AND disk>?)"),
        ("changed >= ? ORDER BY changed", "files_by_change (changed>?)"),
    ],
)
def test_no_search_of_a_folder_reads_or_sorts_more_than_it_answers(tree: Tree, sql: str, index: str) -> None:
    plan = tree.records.search(f"EXPLAIN QUERY PLAN SELECT * FROM files WHERE {sql} LIMIT 100", "parent")
    assert [row[3] for row in plan] == [f"SEARCH files USING INDEX {index}"]


def test_records_of_the_first_version_are_taken_over(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "records.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(_VERSION_1)
    connection.close()
    records = Records(path)
    (tmp_path / "My Drive").mkdir()
    (tmp_path / "My Drive" / "a").write_text("")
    tree = Tree(tmp_path / "My Drive", tmp_path, records)
    assert tree.get("an-id-of-the-first-version").name == "a"
    assert [change.file_id for change in tree.changes(1, 10)][:2] == ["one-that-is-gone", "an-id-of-the-first-version"]
    assert tree.next_change() > 8
    tree.close()


_VERSION_1 = """
CREATE TABLE files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, parent TEXT, name TEXT NOT NULL,
    folded TEXT NOT NULL, disk BLOB NOT NULL, mime TEXT NOT NULL, folder INTEGER NOT NULL, size INTEGER NOT NULL,
    modified INTEGER NOT NULL, inode INTEGER NOT NULL, md5 TEXT, created INTEGER NOT NULL,
    binned INTEGER NOT NULL DEFAULT 0, trashed INTEGER NOT NULL DEFAULT 0, trashed_at INTEGER,
    starred INTEGER NOT NULL DEFAULT 0, description TEXT, app_properties TEXT NOT NULL DEFAULT '{}',
    properties TEXT NOT NULL DEFAULT '{}', version INTEGER NOT NULL DEFAULT 1, scanned INTEGER
);
CREATE UNIQUE INDEX files_on_disk ON files (parent, disk) WHERE NOT binned;
CREATE INDEX files_by_name ON files (parent, folded);
CREATE INDEX files_by_inode ON files (inode);
CREATE TABLE changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, file TEXT NOT NULL UNIQUE, removed INTEGER NOT NULL,
    at INTEGER NOT NULL);
CREATE TABLE uploads (id TEXT PRIMARY KEY, purpose TEXT NOT NULL, details TEXT NOT NULL, total INTEGER,
    started INTEGER NOT NULL, result TEXT);
INSERT INTO files (id, parent, name, folded, disk, mime, folder, size, modified, inode, created) VALUES
    ('root-id', NULL, 'My Drive', 'my drive', x'00', 'application/vnd.google-apps.folder', 1, 0, 0, 0, 0),
    ('an-id-of-the-first-version', 'root-id', 'a', 'a', x'61', 'text/plain', 0, 0, 0, 0, 0);
INSERT INTO changes VALUES (7, 'one-that-is-gone', 1, 5), (8, 'an-id-of-the-first-version', 0, 6);
PRAGMA user_version = 1;
"""
