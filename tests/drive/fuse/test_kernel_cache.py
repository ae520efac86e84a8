"""What the kernel believes of a mount is taken back when others change the drive."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from haversack import credentials
from haversack.drive.fuse import registry
from haversack.drive.fuse.mount import is_mounted, mount, unmount
from haversack.drive.tree import Drive
from tests.conftest import RunningHub
from tests.drive.conftest import Proxy

pytestmark = pytest.mark.fuse


@pytest.fixture
def here(hub: RunningHub, folder: str, mountpoint: Path) -> Iterator[Path]:
    yield mount(mountpoint).my_drive / folder
    if is_mounted(mountpoint):
        unmount(mountpoint)


@pytest.fixture
def elsewhere(hub: RunningHub, tmp_path: Path) -> Drive:
    """The same drive, seen from another machine."""
    return Drive(credentials.drive(), tmp_path / "other-data", tmp_path / "other-cache")


def write(drive: Drive, path: tuple[str, ...], data: bytes) -> None:
    draft = drive.open_draft(path, truncate=True)
    drive.journal.write(draft, data, None)
    drive.journal.commit(draft)
    drive.journal.wait(draft)
    drive.journal.release(draft)


def soon(is_so: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if is_so():
            return True
        time.sleep(0.1)
    return False


def test_what_others_change_make_and_remove_is_seen(here: Path, elsewhere: Drive, folder: str) -> None:
    write(elsewhere, (folder, "changed"), b"before")
    write(elsewhere, (folder, "removed"), b"x")
    assert soon((here / "removed").exists)
    assert (here / "changed").read_bytes() == b"before"
    assert not (here / "made").exists()
    write(elsewhere, (folder, "changed"), b"behind")
    write(elsewhere, (folder, "made"), b"new")
    elsewhere.remove((folder, "removed"))
    assert soon((here / "made").exists)
    assert soon(lambda: not (here / "removed").exists())
    assert soon(lambda: (here / "changed").read_bytes() == b"behind")


def test_a_folder_that_others_move_is_found_where_it_is(here: Path, elsewhere: Drive, folder: str) -> None:
    (here / "old").mkdir()
    (here / "old" / "a").write_bytes(b"x")
    with open(here / "old" / "a", "rb") as file:
        os.fsync(file.fileno())
    assert soon(lambda: elsewhere.exists((folder, "old", "a")))
    elsewhere.rename((folder, "old"), (folder, "new"))
    assert soon((here / "new" / "a").exists)
    assert soon(lambda: not (here / "old").exists())


def test_what_is_known_is_not_asked_again(hub: RunningHub, proxy: Proxy, folder: str, mountpoint: Path) -> None:
    for number in range(20):
        (hub.my_drive / folder / f"{number}.txt").write_text("x")
    here = mount(mountpoint).my_drive / folder
    read = {name: (here / name).read_bytes() for name in os.listdir(here)}
    before = len(proxy.calls)
    time.sleep(0.5)
    for _ in range(3):
        assert {name: (here / name).read_bytes() for name in os.listdir(here)} == read
        assert not (here / "none").exists()
    asked = [call.path for call in proxy.calls[before:] if call.path.startswith("/drive/v3/files")]
    assert [path for path in asked if "name" not in path] == []  # `none` alone is asked for
    unmount(mountpoint)


def test_a_shortcut_is_a_link_to_what_it_leads_to(here: Path, elsewhere: Drive, folder: str) -> None:
    from haversack.drive.remote.calls import SHORTCUT
    from haversack.http import wait

    elsewhere.make_folder((folder, "target"))
    write(elsewhere, (folder, "target", "a"), b"led to")
    about = {
        "name": "short",
        "mimeType": SHORTCUT,
        "parents": [elsewhere.find((folder,)).id],
        "shortcutDetails": {"targetId": elsewhere.find((folder, "target")).id},
    }
    wait(elsewhere.api.http.request("POST", "/drive/v3/files", json=about))
    assert soon((here / "short").is_symlink)
    assert (here / "short" / "a").read_bytes() == b"led to"
    (here / "short").unlink()
    assert (here / "target" / "a").read_bytes() == b"led to"


def test_several_names_of_one_folder_are_looked_up_at_once(proxy: Proxy, here: Path) -> None:
    here.stat()
    proxy.stalls = lambda call: "/drive/v3/files?" in call.path and "GET" in call.method
    before = len(proxy.calls)
    with ThreadPoolExecutor(4) as threads:
        found = [threads.submit((here / f"{number}.txt").exists) for number in range(4)]
        try:
            assert soon(lambda: sum(proxy.stalls(call) for call in proxy.calls[before:]) >= 4)
        finally:
            proxy.stalls = lambda call: False
            proxy.release.set()
        assert not any(one.result() for one in found)


def pid_of(mountpoint: Path) -> int:
    record = registry.find(mountpoint)
    assert record is not None
    return record.pid


def test_what_a_listing_told_is_not_asked_again(hub: RunningHub, folder: str, here: Path, mountpoint: Path) -> None:
    (hub.my_drive / folder / "folder").mkdir()
    (hub.my_drive / folder / "file").write_bytes(b"12345")
    assert soon(lambda: sorted(os.listdir(here)) == ["file", "folder"])
    os.listdir(here)  # the first time the names came from the drive
    os.kill(pid_of(mountpoint), signal.SIGSTOP)
    try:
        looked = subprocess.run(["stat", "-c", "%s", here / "file", here / "folder"], capture_output=True, timeout=10)
    finally:
        os.kill(pid_of(mountpoint), signal.SIGCONT)
    assert looked.stdout == b"5\n4096\n"


@pytest.fixture
def crowd(hub: RunningHub, folder: str, here: Path) -> Path:
    """A folder whose listing the kernel fetches in several parts, known to the mount."""
    (hub.my_drive / folder / "crowd").mkdir()
    for number in range(1200):
        (hub.my_drive / folder / "crowd" / f"{number:04d} {'x' * 50}").write_bytes(b"x")
    assert soon((here / "crowd").exists)
    assert soon(lambda: len(os.listdir(here / "crowd")) == 1200)
    return here / "crowd"


def late(crowd: Path) -> Path:
    """What comes late when the folder is listed, and is taken from the index early."""
    return crowd / os.listdir(crowd)[900]


def test_an_old_listing_does_not_bring_back_what_was_written_since(crowd: Path) -> None:
    changed = late(crowd)
    with os.scandir(crowd) as entries:
        next(entries).stat()
        with open(changed, "wb", buffering=0) as file:
            file.write(b"longer")
            os.fsync(file.fileno())
        for entry in entries:
            entry.stat()
    assert changed.stat().st_size == 6
    assert changed.read_bytes() == b"longer"


def test_an_old_listing_does_not_bring_back_what_was_removed_since(crowd: Path) -> None:
    gone = late(crowd)
    with os.scandir(crowd) as entries:
        next(entries).stat()
        gone.unlink()
        for entry in entries:
            with suppress(FileNotFoundError):
                entry.stat()
    assert not gone.exists()


def test_an_old_listing_does_not_bring_back_what_others_changed_since(
    crowd: Path, elsewhere: Drive, folder: str
) -> None:
    changed = late(crowd)
    with os.scandir(crowd) as entries:
        next(entries).stat()
        write(elsewhere, (folder, "crowd", changed.name), b"longer")
        assert soon(lambda: changed.stat().st_size == 6)
        for entry in entries:
            entry.stat()
    assert changed.stat().st_size == 6


def test_a_listed_file_that_is_being_written_has_the_size_it_has(here: Path) -> None:
    with open(here / "a", "wb", buffering=0) as file:
        for size in (1, 2, 3):
            file.write(b"x")
            with os.scandir(here) as entries:
                assert [entry.stat().st_size for entry in entries] == [size]


def test_below_a_folder_that_was_renamed_is_what_was_below_it(here: Path) -> None:
    for name in ("one", "other"):
        (here / name / "below").mkdir(parents=True)
        (here / name / "below" / "a").write_text(name)
    assert next(sorted(names) for _, names, _ in os.walk(here)) == ["one", "other"]
    (here / "one").rename(here / "aside")
    (here / "other").rename(here / "one")
    (here / "aside").rename(here / "other")
    assert {name: (here / name / "below" / "a").read_text() for name in ("one", "other")} == {
        "one": "other",
        "other": "one",
    }
    assert os.listdir(here / "one" / "below") == ["a"]
