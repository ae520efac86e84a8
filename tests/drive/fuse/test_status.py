"""What `haversack drive status` says."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from haversack.drive.fuse.mount import mount, unmount
from haversack.errors import MountError
from tests.conftest import RunningHub
from tests.drive.conftest import Proxy, kill

pytestmark = pytest.mark.fuse


def status(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "haversack", "drive", "status", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def when(said: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The activity of the one mount, as soon as it is so."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        activity = json.loads(status("--json"))["mounts"][0]["activity"]
        if said(activity):
            return activity
    raise AssertionError(activity)


def test_without_a_mount_there_is_nothing_to_say() -> None:
    assert status() == "No drive is mounted.\n"


def test_what_is_pending_is_said_until_it_is_on_the_drive(
    hub: RunningHub, proxy: Proxy, folder: str, mountpoint: Path
) -> None:
    proxy.stalls = lambda call: "/upload/" in call.path
    (mount(mountpoint).my_drive / folder / "a").write_bytes(b"12345")
    activity = when(lambda activity: activity["uploading"] == 1)
    assert (activity["pending"], activity["size"], activity["waiting"][0]["name"]) == (1, 5, "a")
    assert "1 file (5 B) pending" in status(mountpoint)
    proxy.release.set()
    when(lambda activity: activity["pending"] == 0)
    unmount(mountpoint)


def test_why_the_drive_refuses_something_is_said(hub: RunningHub, proxy: Proxy, folder: str, mountpoint: Path) -> None:
    proxy.full = True
    (mount(mountpoint).my_drive / folder / "a").write_bytes(b"12345")
    activity = when(lambda activity: activity["failed"] == 1)
    assert "full" in activity["waiting"][0]["error"]
    proxy.full = False
    unmount(mountpoint)


def test_what_a_dead_mount_left_is_counted(hub: RunningHub, proxy: Proxy, folder: str, mountpoint: Path) -> None:
    proxy.stalls = lambda call: "/upload/" in call.path
    (mount(mountpoint).my_drive / folder / "a").write_bytes(b"12345")
    kill(mountpoint)
    said = json.loads(status("--json"))
    assert (said["mounts"][0]["state"], said["left"], said["left_size"]) == ("dead", 1, 5)
    proxy.release.set()
    unmount(mountpoint)
    assert json.loads(status("--json")) == {"mounts": [], "left": 0, "left_size": 0}


def test_a_folder_without_a_mount_is_said(tmp_path: Path) -> None:
    from haversack.drive.fuse.status import status as of

    with pytest.raises(MountError, match="No drive is mounted"):
        of(tmp_path)
