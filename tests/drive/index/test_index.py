"""What is known of the drive, and that it stays true although answers, changes and writes overtake each other."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from haversack.drive.index.index import DriveIndex, ListingPage
from haversack.drive.index.rows import ListedFolder, RowInFolder, transaction
from haversack.drive.remote.calls import FOLDER, Change, Changes, File
from haversack.errors import IntegrityError


@pytest.fixture
def index(tmp_path: Path) -> DriveIndex:
    index = DriveIndex(tmp_path / "index")
    index.set_first_token("1", polled="boot 0")
    return index


def made(name: str, parent: str = "top", version: int = 1, **more: object) -> File:
    about = {"id": f"id-{name}", "mime_type": "text/plain", "size": 1, "md5": "0", "modified": 1.0} | more
    return File(name=name, parent=parent, version=version, **about)  # type: ignore[arg-type]


def listed(index: DriveIndex, parent: str, *files: File) -> None:
    number, _ = index.begin_listing(parent)
    assert index.learn_pages([ListingPage(files, index.mark(), parent, completed=[parent], number=number)]) == [True]


def shown(index: DriveIndex, parent: str = "top") -> dict[str, str]:
    return {name: file.id for _, name, file in index.page(parent)}


def changed(index: DriveIndex, *rows: File | str, token: str = "1", since: int | None = None) -> bool:
    """A page of changes; a text is the id of a file that is gone."""
    changes = [Change(row, None) if isinstance(row, str) else Change(row.id, row) for row in rows]
    page = Changes(changes, str(int(token) + 1), True)
    return index.apply(token, page, index.mark() if since is None else since)


def test_a_name_is_known_once_it_was_asked_for_also_when_there_is_none(index: DriveIndex) -> None:
    assert index.lookup("top", "a") == (False, None)
    index.learn_lookup("top", ["a"], [made("a")], index.mark())
    index.learn_lookup("top", ["b"], [], index.mark())
    assert index.lookup("top", "a") == (True, made("a"))
    assert index.lookup("top", "b") == (True, None)


def test_of_a_listed_folder_every_name_is_known(index: DriveIndex) -> None:
    listed(index, "top", made("a"))
    assert index.lookup("top", "none") == (True, None)
    assert index.lookup("elsewhere", "none") == (False, None)


def test_changes_are_applied_to_what_is_known(index: DriveIndex) -> None:
    listed(index, "top", made("a"), made("b"), made("c"))
    listed(index, "other")
    trashed = replace(made("c", version=2), trashed=True)
    assert changed(index, made("a", version=2, size=7), "id-b", trashed, made("d"), made("far", "unlisted"))
    assert shown(index) == {"a": "id-a", "d": "id-d"}
    assert index.get("id-a") == made("a", version=2, size=7)
    assert index.get("id-far") is None
    changed(index, made("a", "other", version=3), token="2")
    assert (shown(index), shown(index, "other")) == ({"d": "id-d"}, {"a": "id-a"})


def test_a_name_that_was_absent_appears(index: DriveIndex) -> None:
    index.learn_lookup("top", ["a"], [], index.mark())
    changed(index, made("a"))
    assert index.lookup("top", "a") == (True, made("a"))


def test_an_older_state_never_takes_the_place_of_a_newer_one(index: DriveIndex) -> None:
    listed(index, "top", made("a", version=3, size=3))
    changed(index, made("a", version=2, size=2))
    index.put(made("a", version=1, size=1))
    listed(index, "top", made("a", version=2, size=2))
    assert index.get("id-a") == made("a", version=3, size=3)


def test_what_this_machine_removed_is_not_brought_back_by_an_answer_on_its_way(index: DriveIndex) -> None:
    listed(index, "top", made("a"))
    asked = index.mark()
    index.forget("id-a")
    assert not changed(index, made("a", version=2), since=asked)
    index.learn_lookup("top", ["a"], [made("a")], asked)
    index.learn_pages([ListingPage([made("a")], asked, "top")])
    assert index.lookup("top", "a") == (True, None)
    assert index.fact("token") == "1"  # that page is asked for again
    assert changed(index, made("a", version=3))  # it was put back since
    assert index.lookup("top", "a") == (True, made("a", version=3))


def test_what_this_machine_made_is_not_taken_for_absent(index: DriveIndex) -> None:
    asked = index.mark()
    index.put(made("a"))
    index.learn_lookup("top", ["a"], [], asked)
    assert index.get("id-a") == made("a")


def test_changes_that_another_process_has_applied_are_not_applied_twice(index: DriveIndex, tmp_path: Path) -> None:
    other = DriveIndex(tmp_path / "index")
    listed(index, "top", made("a"))
    assert changed(other, made("a", version=2))
    index.forget("id-a")
    assert changed(index, made("a", version=2), token="1")
    assert (index.get("id-a"), index.fact("token")) == (None, "2")


def test_each_process_hears_what_the_others_did(index: DriveIndex, tmp_path: Path) -> None:
    other = DriveIndex(tmp_path / "index")
    listed(index, "top", made("a"), made("b"))
    since = index.mark()
    index.put(made("a", version=2))
    other.put(made("mine"))
    changed(index, replace(made("b", version=2), name="c"))
    assert {(one.parent, one.shown) for one in index.changes_by_others(since)} == {
        ("top", "mine"),
        ("top", "b"),
        ("top", "c"),
    }
    assert {one.shown for one in other.changes_by_others(since)} == {"a", "b", "c"}


def test_a_complete_listing_ends_what_it_has_not_seen(index: DriveIndex) -> None:
    listed(index, "top", made("a"), made("b"))
    index.invalidate("top")
    number, _ = index.begin_listing("top")
    index.learn_pages([ListingPage([made("a")], index.mark(), "top", "page 2")])
    index.put(made("new"))
    index.learn_pages([ListingPage([], index.mark(), "top", completed=["top"], number=number)])
    assert shown(index) == {"a": "id-a", "new": "id-new"}


def test_a_listing_goes_on_where_it_broke_off(index: DriveIndex, tmp_path: Path) -> None:
    number, _ = index.begin_listing("top")
    index.learn_pages([ListingPage([made("a")], index.mark(), "top", "page 2")])
    later = DriveIndex(tmp_path / "index")
    changed(later, made("between"))
    assert later.begin_listing("top") == (number, "page 2")
    later.learn_pages([ListingPage([made("b")], later.mark(), "top", completed=["top"], number=number)])
    assert shown(later) == {"a": "id-a", "between": "id-between", "b": "id-b"}


def test_with_a_folder_goes_what_is_known_inside(index: DriveIndex) -> None:
    listed(index, "top", made("folder", mime_type=FOLDER))
    listed(index, "id-folder", made("inner", "id-folder", mime_type=FOLDER))
    listed(index, "id-inner", made("a", "id-inner"))
    changed(index, "id-folder")
    assert index.count() == (0, 1)
    assert index.lookup("id-inner", "a") == (False, None)


def test_folders_that_hold_each_other_do_no_harm(index: DriveIndex) -> None:
    listed(index, "id-x", made("y", "id-x", mime_type=FOLDER))
    listed(index, "id-y", made("x", "id-y", mime_type=FOLDER))
    assert index.path_of("id-x", "top") is None
    index.forget("id-x")
    assert index.count() == (0, 0)


def test_of_several_of_one_name_the_first_made_has_it(index: DriveIndex) -> None:
    second, first = made("a.txt", id="2", created=2.0), made("a.txt", id="1", created=1.0)
    listed(index, "top", second, made("a (1).txt", id="real"), first)
    assert shown(index) == {"a.txt": "1", "a (1).txt": "real", "a (2).txt": "2"}


def test_a_numbered_name_stays_while_its_fellows_are_removed(index: DriveIndex) -> None:
    listed(index, "top", made("a", id="1", created=1.0), made("a", id="2", created=2.0))
    index.forget("1")
    assert shown(index) == {"a (1)": "2"}
    index.restore_plain_names()
    assert shown(index) == {"a": "2"}


def test_the_path_of_a_file_is_the_one_that_is_shown(index: DriveIndex) -> None:
    listed(index, "top", made("a/b", id="folder", mime_type=FOLDER))
    listed(index, "folder", made("c", "folder"))
    assert index.path_of("id-c", "top") == ("a／b", "c")


def test_everything_forgotten_also_ends_what_was_on_its_way(index: DriveIndex) -> None:
    asked = index.mark()
    index.clear()
    assert index.learn_pages([ListingPage([made("a")], asked, "top", completed=["top"], number=1)]) == [False]
    index.learn_lookup("top", ["a"], [made("a")], asked)
    assert index.count() == (0, 0)


@pytest.mark.parametrize("broken", [b"no database at all" * 100, b""])
def test_a_broken_index_is_made_anew(tmp_path: Path, broken: bytes) -> None:
    DriveIndex(tmp_path / "index").put(made("a"))
    for file in (tmp_path / "index").glob("index.db*"):
        file.unlink()
    (tmp_path / "index" / "index.db").write_bytes(broken)
    assert DriveIndex(tmp_path / "index").count() == (0, 0)


def test_an_index_is_opened_while_somebody_writes_into_it(index: DriveIndex, tmp_path: Path) -> None:
    listed(index, "top", made("a"))
    with transaction(index._writer):
        assert DriveIndex(tmp_path / "index").lookup("top", "a") == (True, made("a"))


def test_an_index_of_another_version_is_made_anew(tmp_path: Path) -> None:
    DriveIndex(tmp_path / "index").put(made("a"))
    with sqlite3.connect(tmp_path / "index" / "index.db") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    assert DriveIndex(tmp_path / "index").count() == (0, 0)


def kept(name: str, version: int = 1) -> RowInFolder:
    """A file as a snapshot holds it."""
    return (f"id-{name}", name, "text/plain", 1, "0", 1.0, version, 0.0, "", "")


def restore(index: DriveIndex, *folders: ListedFolder, changes: tuple[File, ...] = ()) -> None:
    page = Changes([Change(file.id, file) for file in changes], "9", True)
    index.restore(iter(folders), [page], "8")


def test_what_is_restored_is_known_as_if_it_was_listed(index: DriveIndex) -> None:
    restore(
        index,
        ListedFolder("top", True, [kept("a"), kept("b/c")]),
        ListedFolder("empty", True, []),
        ListedFolder("part", False, []),
    )
    assert shown(index) == {"a": "id-a", "b／c": "id-b/c"}
    assert [index.is_listed(one) for one in ("top", "empty", "part")] == [True, True, False]
    assert index.lookup("top", "a") == (True, made("a"))
    assert index.fact("token") == "9"


def test_what_is_known_already_stands_unless_it_is_older(index: DriveIndex) -> None:
    listed(index, "top", made("new", version=5), made("old", version=1, size=7), made("mine"))
    index.forget("id-mine")
    restore(index, ListedFolder("top", True, [kept("new", 3), kept("old", 2), kept("mine"), kept("more")]))
    assert {file.name: file.version for _, _, file in index.page("top")} == {"new": 5, "old": 2, "more": 1}


def test_names_that_stand_twice_in_what_is_restored_are_told_apart(index: DriveIndex) -> None:
    index.put(made("a", id="first"))
    restore(index, ListedFolder("top", True, [kept("a"), kept("b")]))
    assert shown(index) == {"a": "first", "a (1)": "id-a", "b": "id-b"}


def test_changes_since_are_in_what_is_restored(index: DriveIndex) -> None:
    restore(index, ListedFolder("top", True, [kept("a")]), changes=(made("a", version=2, size=7), made("b")))
    assert {name: file.size for _, name, file in index.page("top")} == {"a": 7, "b": 1}


def test_what_contradicts_itself_is_not_restored(index: DriveIndex) -> None:
    listed(index, "top", made("mine"))
    with pytest.raises(IntegrityError):
        restore(index, ListedFolder("top", True, [kept("a")]), ListedFolder("other", True, [kept("a")]))
    assert shown(index) == {"mine": "id-mine"}
    index.put(made("mine", version=2))
    assert index.count() == (1, 1)


def test_others_see_nothing_or_all_of_what_is_restored(index: DriveIndex, tmp_path: Path) -> None:
    other, seen = DriveIndex(tmp_path / "index"), []

    def watched() -> Iterator[ListedFolder]:
        yield ListedFolder("top", True, [kept("a")])
        seen.append(other.lookup("top", "a"))
        yield ListedFolder("other", True, [kept("b")])

    index.restore(watched(), [], "8")
    assert seen == [(False, None)]
    assert (other.lookup("top", "a"), other.is_listed("other")) == ((True, made("a")), True)
    other.put(made("a", version=2))
    assert index.get("id-a") == made("a", version=2)


_KILLED = """
import os, signal, sys
from pathlib import Path
from haversack.drive.index.index import DriveIndex
from haversack.drive.index.rows import ListedFolder

def folders():
    for number in range(200):
        if number == 150:
            os.kill(os.getpid(), signal.SIGKILL)
        files = [(f"{number}-{one}", str(one), "text/plain", 1, "", 1.0, 1, 1.0, "", "") for one in range(100)]
        yield ListedFolder(f"folder-{number}", True, files)

DriveIndex(Path(sys.argv[1])).restore(folders(), [], "8")
"""


def test_a_process_killed_while_it_restores_leaves_what_was_known(index: DriveIndex, tmp_path: Path) -> None:
    listed(index, "top", made("mine"))
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "index")], check=False)
    assert killed.returncode == -signal.SIGKILL
    later = DriveIndex(tmp_path / "index")
    assert (later.count(), later.fact("token")) == ((1, 1), "1")
    restore(later, ListedFolder("folder-1", True, [kept("a")]))
    assert later.lookup("folder-1", "a") == (True, made("a", "folder-1"))


_OPENS = """
import sys
from pathlib import Path
from haversack.drive.remote.calls import File
from haversack.drive.index.index import DriveIndex

sys.stdin.read()
for number in range(20):
    index = DriveIndex(Path(sys.argv[1]) / f"{number}")
    index.put(File(sys.argv[2], sys.argv[2], "top", "text/plain", 1, "", 1.0, 1))
"""


def test_processes_that_make_an_index_at_once_make_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _OPENS, str(tmp_path)]
    processes = [subprocess.Popen([*command, name], stdin=subprocess.PIPE) for name in ("a", "b", "c")]
    time.sleep(0.3)  # until each has come so far as to wait for its input's end
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert [DriveIndex(tmp_path / f"{number}").count()[0] for number in range(20)] == [3] * 20


_LEARNS = """
import os, signal, sys
from pathlib import Path
from haversack.drive.remote.calls import File
from haversack.drive.index.index import ListingPage, DriveIndex

def learn(index, parent):
    number, _ = index.begin_listing(parent)
    files = [File(f"{parent}-{one}", str(one), parent, "text/plain", 1, "", 1.0, 1) for one in range(100)]
    index.learn_pages([ListingPage(files, index.mark(), parent, completed=[parent], number=number)])

index = DriveIndex(Path(sys.argv[1]))
if sys.argv[2] == "killed":
    kill = lambda said: said.startswith("INSERT OR IGNORE INTO listed") and os.kill(os.getpid(), signal.SIGKILL)
    index._writer.set_trace_callback(kill)
for number in range(40):
    learn(index, f"{sys.argv[2]}-{number}")
"""


def test_a_process_killed_while_it_keeps_a_page_leaves_none_of_it(index: DriveIndex, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", _LEARNS, str(tmp_path / "index"), "killed"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert index.count() == (0, 0)
    listed(index, "killed-0", made("a", "killed-0"))
    assert shown(index, "killed-0") == {"a": "id-a"}


def test_processes_that_learn_at_once_know_it_all(index: DriveIndex, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LEARNS, str(tmp_path / "index")]
    others = [subprocess.Popen([*command, name]) for name in ("one", "other")]
    restored = 0
    while any(other.poll() is None for other in others):
        restore(index, ListedFolder(f"mine-{restored}", True, [kept(f"{restored}")]))
        restored += 1
        time.sleep(0.01)  # SQLite lets whoever comes at once have the next turn too
    assert [other.returncode for other in others] == [0, 0]
    assert index.count() == (2 * 40 * 100 + restored, 2 * 40 + restored)
