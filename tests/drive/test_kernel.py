"""What the kernel believes of a mount is taken back when others change the drive."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from haversack import credentials
from haversack.drive.mount import is_mounted, mount, unmount
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
    end = time.monotonic() + 30
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
    assert [call.path for call in proxy.calls[before:] if "/changes" not in call.path and "name" not in call.path] == []
    unmount(mountpoint)


def test_a_shortcut_is_a_link_to_what_it_leads_to(here: Path, elsewhere: Drive, folder: str) -> None:
    from haversack.drive.calls import SHORTCUT
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
