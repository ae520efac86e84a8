"""A file goes up while it is written, and becomes one only when it is committed."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from haversack.drive.filesystem import DriveFileSystem
from haversack.drive.fuse.mount import mount, unmount
from haversack.drive.tree import Drive
from haversack.drive.writeback.draft import Draft
from tests.conftest import RunningHub, start_hub
from tests.drive.conftest import Call, Proxy, kill

MB = 1 << 20
PIECE = 500_003


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_AHEAD", "1")


@pytest.fixture
def drive(proxy: Proxy) -> Iterator[Drive]:
    drive = DriveFileSystem().drive
    yield drive
    proxy.release.set()
    assert drive.journal.drain() == {}


@pytest.fixture
def there(hub: RunningHub, folder: str) -> Path:
    """The test's folder as the hub keeps it."""
    return hub.my_drive / folder


def until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def ahead(proxy: Proxy) -> list[Call]:
    """The calls that brought bytes of a file whose length nobody knew."""
    return [call for call in proxy.calls if call.range.endswith("/*") and call.size]


def sent(proxy: Proxy) -> int:
    return sum(call.size for call in proxy.calls if call.range)


def is_taken_back(proxy: Proxy) -> bool:
    return any(call.method == "DELETE" and "upload_id" in call.path for call in proxy.calls)


def written(drive: Drive, path: tuple[str, ...], data: bytes) -> Draft:
    """A draft with that content, not committed, written in order."""
    draft = drive.open_draft(path, truncate=True)
    for start in range(0, len(data), PIECE):
        drive.journal.write(draft, data[start : start + PIECE], None)
    return draft


def closed(drive: Drive, draft: Draft) -> None:
    drive.journal.commit(draft)
    drive.journal.wait(draft)
    drive.journal.release(draft)


def test_it_is_there_once_it_is_committed_and_each_byte_was_sent_once(
    proxy: Proxy, drive: Drive, folder: str, there: Path
) -> None:
    data = os.urandom(5 * MB + 17)
    draft = written(drive, (folder, "a"), data)
    until(lambda: sum(call.size for call in ahead(proxy)) > 4 * MB)
    assert list(there.iterdir()) == []
    closed(drive, draft)
    assert (there / "a").read_bytes() == data
    assert sent(proxy) == len(data)
    assert all(call.size % (256 << 10) == 0 for call in ahead(proxy))


def test_a_file_keeps_its_content_until_the_new_one_is_committed(
    proxy: Proxy, drive: Drive, folder: str, there: Path
) -> None:
    fs, data = DriveFileSystem(), os.urandom(3 * MB)
    fs.pipe_file(f"{folder}/a", b"old")
    before = fs.info(f"{folder}/a")["id"]
    draft = written(drive, (folder, "a"), data)
    until(lambda: ahead(proxy))
    assert (there / "a").read_bytes() == b"old"
    closed(drive, draft)
    assert (there / "a").read_bytes() == data
    assert fs.info(f"{folder}/a")["id"] == before


def test_a_write_below_what_was_sent_takes_it_back(proxy: Proxy, drive: Drive, folder: str, there: Path) -> None:
    data = os.urandom(3 * MB)
    draft = written(drive, (folder, "a"), data)
    until(lambda: ahead(proxy))
    drive.journal.write(draft, b"header", 0)
    until(lambda: is_taken_back(proxy))
    closed(drive, draft)
    assert (there / "a").read_bytes() == b"header" + data[6:]


def test_a_write_above_what_was_sent_does_not(proxy: Proxy, drive: Drive, folder: str, there: Path) -> None:
    data = os.urandom(3 * MB)
    draft = written(drive, (folder, "a"), data)
    until(lambda: ahead(proxy) and draft.streaming is not None and draft.streaming.position > 2 * MB)
    drive.journal.write(draft, b"last", 3 * MB - 4)
    closed(drive, draft)
    assert (there / "a").read_bytes() == data[:-4] + b"last"
    assert sent(proxy) == 3 * MB


@pytest.mark.parametrize("size", [0, 100, 2 * MB])
def test_truncating_takes_it_back(proxy: Proxy, drive: Drive, folder: str, there: Path, size: int) -> None:
    data = os.urandom(3 * MB)
    draft = written(drive, (folder, "a"), data)
    until(lambda: ahead(proxy))
    drive.journal.truncate(draft, size)
    until(lambda: is_taken_back(proxy))
    drive.journal.write(draft, b"end", None)
    closed(drive, draft)
    assert (there / "a").read_bytes() == data[:size] + b"end"


def test_what_is_deleted_while_it_is_written_never_arrives(
    proxy: Proxy, drive: Drive, folder: str, there: Path
) -> None:
    draft = written(drive, (folder, "a"), os.urandom(3 * MB))
    until(lambda: ahead(proxy))
    drive.remove((folder, "a"))
    until(lambda: is_taken_back(proxy))
    drive.journal.release(draft)
    assert drive.journal.drain() == {}
    assert list(there.iterdir()) == []


def test_a_file_that_is_renamed_meanwhile_arrives_under_its_new_name(
    proxy: Proxy, drive: Drive, folder: str, there: Path
) -> None:
    data = os.urandom(3 * MB)
    draft = written(drive, (folder, "a"), data)
    until(lambda: ahead(proxy))
    drive.rename((folder, "a"), (folder, "b"))
    closed(drive, draft)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {"b": data}
    assert sent(proxy) == len(data)


def test_a_file_that_it_takes_the_place_of_keeps_its_id(proxy: Proxy, drive: Drive, folder: str, there: Path) -> None:
    fs, data = DriveFileSystem(), os.urandom(3 * MB)
    fs.pipe_file(f"{folder}/model", b"old")
    before = fs.info(f"{folder}/model")["id"]
    draft = written(drive, (folder, "a"), data)
    until(lambda: ahead(proxy))
    drive.rename((folder, "a"), (folder, "model"))
    closed(drive, draft)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {"model": data}
    assert fs.info(f"{folder}/model")["id"] == before


def test_what_was_synced_in_the_middle_is_on_the_drive_as_it_was(
    proxy: Proxy, drive: Drive, folder: str, there: Path
) -> None:
    first, second = os.urandom(3 * MB), os.urandom(4 * MB)
    draft = written(drive, (folder, "a"), first)
    drive.journal.commit(draft)
    drive.journal.wait(draft)
    assert (there / "a").read_bytes() == first
    before = len(ahead(proxy))
    for start in range(0, len(second), MB):
        drive.journal.write(draft, second[start : start + MB], None)
    until(lambda: len(ahead(proxy)) > before)
    assert (there / "a").read_bytes() == first
    closed(drive, draft)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {"a": first + second}


def test_two_who_write_one_file_get_what_they_wrote(proxy: Proxy, drive: Drive, folder: str, there: Path) -> None:
    draft = written(drive, (folder, "a"), bytes(2 * MB))
    other = drive.open_draft((folder, "a"), truncate=False)
    assert other is draft
    ends = bytearray(bytes(2 * MB))

    def append() -> None:
        for number in range(40):
            drive.journal.write(draft, bytes([number]) * (MB // 8), None)

    thread = threading.Thread(target=append)
    thread.start()
    for number in range(20):
        drive.journal.write(other, bytes([200 + number]), number * 100_000)
        ends[number * 100_000] = 200 + number
    thread.join()
    drive.journal.release(other)
    closed(drive, draft)
    assert (there / "a").read_bytes() == bytes(ends) + b"".join(bytes([one]) * (MB // 8) for one in range(40))


def test_only_what_is_written_in_order_goes_ahead(proxy: Proxy, drive: Drive, folder: str, there: Path) -> None:
    draft = drive.open_draft((folder, "a"), truncate=True)
    drive.journal.truncate(draft, 6 * MB)
    for start in range(0, 6 * MB, MB):
        drive.journal.write(draft, b"x" * MB, start)
    closed(drive, draft)
    assert ahead(proxy) == []
    assert (there / "a").read_bytes() == b"x" * 6 * MB


def test_nothing_goes_ahead_where_that_is_not_wanted(
    proxy: Proxy, folder: str, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAVERSACK_AHEAD", "0")
    drive = DriveFileSystem().drive
    closed(drive, written(drive, (folder, "a"), bytes(6 * MB)))
    assert ahead(proxy) == []
    assert (there / "a").stat().st_size == 6 * MB


def test_a_drive_that_is_full_stops_what_goes_ahead_and_says_nothing(
    proxy: Proxy, drive: Drive, folder: str, there: Path
) -> None:
    proxy.full = True
    data = os.urandom(3 * MB)
    draft = written(drive, (folder, "a"), data)
    until(lambda: draft.streaming is not None and not draft.streaming.is_usable)
    proxy.full = False
    closed(drive, draft)
    assert draft.error is None
    assert (there / "a").read_bytes() == data


def test_an_id_that_is_in_use_already_gets_the_content(proxy: Proxy, drive: Drive, folder: str, there: Path) -> None:
    fs, data = DriveFileSystem(), os.urandom(3 * MB)
    fs.pipe_file(f"{folder}/before", b"arrived, and nobody heard of it")
    draft = drive.open_draft((folder, "a"), truncate=True)
    draft.file_id = fs.info(f"{folder}/before")["id"]
    for start in range(0, len(data), PIECE):
        drive.journal.write(draft, data[start : start + PIECE], None)
    closed(drive, draft)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {"a": data}


def test_what_the_drive_has_against_it_is_nobodys_concern(proxy: Proxy, drive: Drive, folder: str, there: Path) -> None:
    data = os.urandom(3 * MB)
    draft = written(drive, (folder, "a"), data)
    until(lambda: ahead(proxy))
    session = ahead(proxy)[0].path
    proxy.answers = lambda call: (
        web.Response(status=400) if call.path == session and not call.range.endswith("/*") else None
    )
    closed(drive, draft)
    assert draft.error is None
    assert (there / "a").read_bytes() == data


def test_who_writes_faster_than_the_link_does_not_wait(
    proxy: Proxy, folder: str, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAVERSACK_AHEAD", "9")
    drive = DriveFileSystem().drive
    proxy.stalls = lambda call: call.range.endswith("/*")
    data = os.urandom(MB) * 31
    draft = written(drive, (folder, "a"), data)
    assert proxy.stalled.wait(60)
    assert draft.size == len(data)
    proxy.release.set()
    closed(drive, draft)
    assert (there / "a").read_bytes() == data
    assert sent(proxy) == len(data)


def test_files_that_are_written_slowly_hold_up_no_other(proxy: Proxy, drive: Drive, folder: str, there: Path) -> None:
    slow = [written(drive, (folder, f"slow {number}"), bytes(2 * MB)) for number in range(30)]
    until(lambda: len(ahead(proxy)) >= 8)
    draft = written(drive, (folder, "small"), b"small")
    closed(drive, draft)
    assert (there / "small").read_bytes() == b"small"
    for one in slow:
        drive.journal.release(one)
    assert drive.journal.drain() == {}
    assert sum(path.stat().st_size for path in there.iterdir()) == 30 * 2 * MB + 5


@pytest.mark.parametrize(
    "faults", [("500:0.2", "503:0.1"), ("cut:0.3",), ("429:0.1", "403.userRateLimitExceeded:0.1")], ids=" ".join
)
def test_calls_that_fail_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: tuple[str, ...]
) -> None:
    hub = start_hub(tmp_path / "hub", None, "--seed", "3", *(word for fault in faults for word in ("--fail", fault)))
    monkeypatch.setenv("HAVERSACK_HUB", hub.url)
    monkeypatch.setenv("HAVERSACK_TOKEN", hub.token)
    drive, data = DriveFileSystem().drive, os.urandom(12 * MB)
    draft = drive.open_draft(("a",), truncate=True)
    for start in range(0, len(data), MB):
        drive.journal.write(draft, data[start : start + MB], None)
        time.sleep(0.05)
    drive.journal.release(draft)
    assert drive.journal.drain() == {}
    hub.process.terminate()
    hub.process.wait(60)
    assert (hub.my_drive / "a").read_bytes() == data


def test_a_hub_that_is_ended_and_begun_anew_meanwhile_gets_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    hub = start_hub(tmp_path / "hub", None, "--port", port)
    monkeypatch.setenv("HAVERSACK_HUB", hub.url)
    monkeypatch.setenv("HAVERSACK_TOKEN", hub.token)
    drive, data = DriveFileSystem().drive, os.urandom(8 * MB)
    draft = written(drive, ("a",), data[: 4 * MB])
    until(lambda: draft.streaming is not None and draft.streaming.position > 0)
    hub.process.kill()
    hub.process.wait(60)
    drive.journal.write(draft, data[4 * MB :], None)
    hub = start_hub(tmp_path / "hub", hub.token, "--port", port)
    drive.journal.release(draft)
    assert drive.journal.drain() == {}
    assert (hub.my_drive / "a").read_bytes() == data
    hub.process.terminate()
    hub.process.wait(60)


@pytest.mark.fuse
def test_a_mount_that_is_killed_while_a_file_is_written_leaves_nothing_of_it(
    hub: RunningHub, proxy: Proxy, folder: str, there: Path, mountpoint: Path
) -> None:
    (there / "kept").write_bytes(b"old")
    here = mount(mountpoint).my_drive / folder
    files = [os.open(here / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in ("new", "kept")]
    for file in files:
        os.write(file, os.urandom(4 * MB))
    until(lambda: len({call.path for call in ahead(proxy)}) == 2)
    kill(mountpoint)
    for file in files:
        with pytest.raises(OSError, match="connect"):
            os.close(file)
    mount(mountpoint)
    unmount(mountpoint)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {"kept": b"old"}


@pytest.mark.fuse
@pytest.mark.parametrize("existed", [False, True])
def test_a_mount_that_is_killed_before_it_hears_of_the_end_has_the_file_once(
    proxy: Proxy, folder: str, there: Path, mountpoint: Path, existed: bool
) -> None:
    if existed:
        (there / "a").write_bytes(b"old")
    heard, data = threading.Event(), os.urandom(4 * MB)

    def unheard(body: bytes) -> bytes:
        if any(call.range.endswith(f"/{len(data)}") for call in proxy.calls):
            heard.set()
            proxy.release.wait()
        return body

    proxy.rewrite = unheard
    here = mount(mountpoint).my_drive / folder
    (here / "a").write_bytes(data)
    assert heard.wait(60)
    kill(mountpoint)
    proxy.rewrite = lambda body: body
    proxy.release.set()
    mount(mountpoint)
    unmount(mountpoint)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {"a": data}


@pytest.mark.fuse
def test_a_mount_that_is_killed_after_the_commit_goes_on_with_what_went_ahead(
    proxy: Proxy, folder: str, there: Path, own_folders: Path, mountpoint: Path
) -> None:
    data = os.urandom(6 * MB)
    proxy.stalls = lambda call: call.range.endswith(f"/{len(data)}") and call.size > 0
    here = mount(mountpoint).my_drive / folder
    with (here / "a").open("wb", buffering=0) as file:
        file.write(data)
        until(lambda: sum(call.size for call in ahead(proxy)) > 5 * MB)
    assert proxy.stalled.wait(60)
    records = own_folders / "data" / "drives"
    until(lambda: any('"digest": ""' not in record.read_text() for record in records.glob("*/*/*.json")))
    kill(mountpoint)
    proxy.stalls, before = lambda call: False, len(proxy.calls)
    proxy.release.set()
    mount(mountpoint)
    unmount(mountpoint)
    assert (there / "a").read_bytes() == data
    assert sum(call.size for call in proxy.calls[before:] if call.range) < MB


@pytest.mark.fuse
def test_programs_that_write_through_the_mount_send_ahead(
    proxy: Proxy, folder: str, there: Path, mountpoint: Path
) -> None:
    data = os.urandom(5 * MB + 1)
    here = mount(mountpoint).my_drive / folder
    with (here / "a").open("wb", buffering=0) as file:
        file.write(data[:-1])
        until(lambda: ahead(proxy))
        file.write(data[-1:])
        os.fsync(file.fileno())
        assert (there / "a").read_bytes() == data
    assert sent(proxy) == len(data)
    unmount(mountpoint)
