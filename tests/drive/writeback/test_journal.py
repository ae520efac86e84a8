"""What was written and is not on the drive yet, where disks and drives are full."""

from __future__ import annotations

import errno
import json
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiohttp import web

from haversack.drive.filesystem import DriveFileSystem, store
from haversack.drive.tree import Drive
from haversack.drive.writeback.draft import Draft
from haversack.errors import DiskFull, QuotaExceeded
from tests.conftest import RunningHub
from tests.drive.conftest import Call, Proxy


def test_a_full_disk_refuses_the_write_and_keeps_the_file(
    small_disk: Path, hub: RunningHub, folder: str, tmp_path: Path
) -> None:
    fs = DriveFileSystem()
    fs.pipe_file(f"{folder}/a", b"before")
    (tmp_path / "big").write_bytes(bytes(6 << 20))
    with pytest.raises(DiskFull):
        store(tmp_path / "big", f"{folder}/a")
    assert fs.cat_file(f"{folder}/a") == b"before"
    assert (hub.my_drive / folder / "a").read_bytes() == b"before"
    assert list(small_disk.rglob("*.data")) == []


def test_a_full_disk_of_the_cache_is_said(
    small_disk: Path, hub: RunningHub, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAVERSACK_DATA", str(small_disk.parent))
    monkeypatch.setenv("HAVERSACK_CACHE", str(small_disk))
    with pytest.raises(OSError, match="No space"):
        (small_disk / "fill").write_bytes(bytes(6 << 20))
    (small_disk / "fill").open("ab", buffering=0).truncate((small_disk / "fill").stat().st_size - (16 << 10))
    with pytest.raises(DiskFull, match="HAVERSACK_CACHE"):
        DriveFileSystem().ls(folder)


def test_nothing_of_a_refused_new_file_is_left(small_disk: Path, hub: RunningHub, folder: str, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(6 << 20))
    with pytest.raises(DiskFull):
        store(tmp_path / "big", f"{folder}/new")
    assert not DriveFileSystem().exists(f"{folder}/new")


def test_a_full_drive_is_said_and_the_bytes_wait(proxy: Proxy, folder: str) -> None:
    proxy.full = True
    fs = DriveFileSystem()
    with pytest.raises(QuotaExceeded) as raised:
        fs.pipe_file(f"{folder}/a", b"waits")
    assert raised.value.errno == errno.EDQUOT
    assert fs.cat_file(f"{folder}/a") == b"waits"
    proxy.full = False
    assert fs.drive.journal.drain() == {}
    assert fs.cat_file(f"{folder}/a") == b"waits"
    assert fs.info(f"{folder}/a")["md5"]


def test_a_try_that_was_under_way_is_not_the_last(proxy: Proxy, hub: RunningHub, folder: str) -> None:
    drive = DriveFileSystem().drive
    refused: list[Call] = []

    def answers(call: Call) -> web.Response | None:
        if "/upload/" not in call.path or refused:
            return None
        refused.append(call)
        return web.json_response({"error": {"errors": [{"reason": "storageQuotaExceeded"}]}}, status=403)

    proxy.stalls, proxy.answers = lambda call: "/upload/" in call.path, answers
    draft = drive.open_draft((folder, "a"), truncate=True)
    drive.journal.write(draft, b"fits by now", None)
    drive.journal.release(draft)
    assert proxy.stalled.wait(60)
    with ThreadPoolExecutor(1) as other:
        draining = other.submit(drive.journal.drain)
        time.sleep(0.2)
        proxy.release.set()
        assert draining.result() == {}
    assert (hub.my_drive / folder / "a").read_bytes() == b"fits by now"


def test_a_file_deleted_by_others_meanwhile_is_made_anew(proxy: Proxy, hub: RunningHub, folder: str) -> None:
    from haversack.http import wait

    fs = DriveFileSystem()
    fs.pipe_file(f"{folder}/a", b"one")
    draft = fs.drive.open_draft((folder, "a"), truncate=True)
    fs.drive.journal.write(draft, b"two", None)
    wait(fs.drive.api.delete(fs.info(f"{folder}/a")["id"]))
    fs.drive.journal.release(draft)
    while fs.drive.journal.drain():
        continue  # the first try meets what is gone
    assert fs.drive.journal.drain() == {}
    assert (hub.my_drive / folder / "a").read_bytes() == b"two"


def test_writing_again_ends_an_upload_under_way(proxy: Proxy, hub: RunningHub, folder: str) -> None:
    fs = DriveFileSystem()
    drive = fs.drive
    proxy.stalls = lambda call: call.range.startswith("bytes 0-")
    draft = drive.open_draft((folder, "a"), truncate=True)
    drive.journal.write(draft, bytes(9 << 20), None)
    drive.journal.commit(draft)
    assert proxy.stalled.wait(60)
    drive.journal.write(draft, b"end", None)
    proxy.release.set()
    drive.journal.commit(draft)
    drive.journal.wait(draft)
    drive.journal.release(draft)
    assert (hub.my_drive / folder / "a").read_bytes() == bytes(9 << 20) + b"end"


def test_a_cache_that_takes_nothing_only_makes_it_slower(fs: DriveFileSystem, folder: str, own_folders: Path) -> None:
    fs.pipe_file(f"{folder}/a", b"one")
    cache = fs.drive.content._folder
    shutil.rmtree(cache)
    cache.write_text("no folder")
    fs.pipe_file(f"{folder}/a", b"two")
    assert fs.info(f"{folder}/a")["size"] == 3
    assert list((own_folders / "data").rglob("*.data")) == []


def test_what_takes_a_files_place_while_it_is_uploaded_is_read_at_once(
    proxy: Proxy, hub: RunningHub, folder: str
) -> None:
    fs = DriveFileSystem()
    drive = fs.drive
    fs.pipe_file(f"{folder}/a", b"old")
    assert fs.cat_file(f"{folder}/a") == b"old"
    proxy.stalls = lambda call: call.method == "POST" and "/upload/" in call.path
    draft = drive.open_draft((folder, "a.new"), truncate=True)
    drive.journal.write(draft, b"new", None)
    drive.journal.set_modified(draft, 1_600_000_000)  # older than what it replaces, as copied files often are
    drive.journal.release(draft)
    assert proxy.stalled.wait(60)
    drive.rename((folder, "a.new"), (folder, "a"))
    proxy.release.set()
    assert drive.journal.drain() == {}
    assert fs.cat_file(f"{folder}/a") == b"new"


def test_what_is_removed_while_it_is_uploaded_stays_away(proxy: Proxy, hub: RunningHub, folder: str) -> None:
    fs = DriveFileSystem()
    drive = fs.drive
    fs.pipe_file(f"{folder}/a", b"old")
    proxy.stalls = lambda call: call.method == "PATCH" and "/upload/" in call.path
    draft = drive.open_draft((folder, "a"), truncate=True)
    drive.journal.write(draft, b"new", None)
    drive.journal.release(draft)
    assert proxy.stalled.wait(60)
    drive.remove((folder, "a"))
    assert not fs.exists(f"{folder}/a")
    proxy.release.set()
    assert drive.journal.drain() == {}
    assert not fs.exists(f"{folder}/a")


def test_a_record_that_cannot_be_read_holds_up_no_other_and_loses_nothing(
    fs: DriveFileSystem, hub: RunningHub, folder: str, own_folders: Path
) -> None:
    drive = fs.drive
    record = {"parent": drive.folder((folder,)).id, "modified": 1_600_000_000}
    dead = drive.journal._folder.with_name("1-dead")
    dead.mkdir()
    for name in ("a", "b", "c"):
        (dead / f"{name}.data").write_text(name)
        (dead / f"{name}.json").write_text(json.dumps({**record, "name": name, "data": f"{name}.data"}))
    (dead / "b.json").write_text("{")
    later = Drive(drive.server, own_folders / "data", own_folders / "cache")
    assert later.journal.drain() == {}
    later.journal.close()
    assert sorted(path.name for path in (hub.my_drive / folder).iterdir()) == ["a", "c"]
    assert (dead / "b.data").read_text() == "b"


def test_a_file_on_the_drive_takes_the_place_of_one_that_is_being_uploaded(
    proxy: Proxy, hub: RunningHub, folder: str
) -> None:
    fs = DriveFileSystem()
    drive = fs.drive
    fs.pipe_file(f"{folder}/a", b"of a")
    held = drive.open_draft((folder, "a"), truncate=False)  # as an open file has it
    proxy.stalls = lambda call: call.method == "POST" and "/upload/" in call.path
    draft = drive.open_draft((folder, "b"), truncate=True)
    drive.journal.write(draft, b"of b", None)
    drive.journal.release(draft)
    assert proxy.stalled.wait(60)
    drive.rename((folder, "a"), (folder, "b"))
    proxy.release.set()
    while draft.uploading:
        time.sleep(0.01)
    assert drive.journal.drain() == {}
    drive.journal.release(held)
    assert fs.cat_file(f"{folder}/b") == b"of a"
    assert [path.read_bytes() for path in (hub.my_drive / folder).iterdir()] == [b"of a"]


def wait_until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def begin_upload(drive: Drive, path: tuple[str, ...], content: bytes) -> Draft:
    draft = drive.open_draft(path, truncate=True)
    drive.journal.write(draft, content, None)
    drive.journal.release(draft)
    return draft


def test_what_is_replaced_while_both_are_uploaded_goes_once_it_has_arrived(
    proxy: Proxy, hub: RunningHub, folder: str
) -> None:
    first, second = threading.Event(), threading.Event()
    under_way = threading.Semaphore(0)

    def stalls(call: Call) -> bool:
        if call.method != "POST" or "/upload/" not in call.path:
            return False
        proxy.release = second if call.size > 100_000 else first
        under_way.release()
        return True

    proxy.stalls = stalls
    drive = DriveFileSystem().drive
    replaced = begin_upload(drive, (folder, "a"), bytes(200_000))
    taking = begin_upload(drive, (folder, "b"), b"of b")
    assert under_way.acquire(timeout=60)
    assert under_way.acquire(timeout=60)
    drive.rename((folder, "b"), (folder, "a"))
    first.set()
    wait_until(lambda: taking.exists)
    time.sleep(0.2)  # what must not be done now would be done by then
    second.set()
    wait_until(lambda: not replaced.uploading)
    assert drive.journal.drain() == {}
    assert [(path.name, path.read_bytes()) for path in (hub.my_drive / folder).iterdir()] == [("a", b"of b")]


def test_what_took_the_place_of_an_upload_and_is_removed_leaves_nothing(
    proxy: Proxy, hub: RunningHub, folder: str
) -> None:
    proxy.stalls = lambda call: call.method == "POST" and "/upload/" in call.path
    drive = DriveFileSystem().drive
    replaced = begin_upload(drive, (folder, "a"), b"of a")
    assert proxy.stalled.wait(60)
    begin_upload(drive, (folder, "b"), b"of b")
    drive.rename((folder, "b"), (folder, "a"))
    drive.remove((folder, "a"))
    assert drive.listing((folder,)) == {}
    proxy.release.set()
    wait_until(lambda: not replaced.uploading)
    assert drive.journal.drain() == {}
    assert list((hub.my_drive / folder).iterdir()) == []
