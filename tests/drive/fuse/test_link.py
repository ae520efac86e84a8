"""A drive where FUSE is not to be had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from haversack.drive.fuse.mount import is_mounted, mount, unmount
from haversack.errors import MountError
from tests.conftest import RunningHub


@pytest.fixture(autouse=True)
def _no_fuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_FUSE", "off")


def test_the_embedded_drive_becomes_a_link_to_its_folder(tmp_path: Path, own_folders: Path) -> None:
    mounted = mount(tmp_path / "mnt", hub="embedded")
    assert mounted.kind == "link"
    assert "symbolic link" in mounted.note
    (tmp_path / "mnt" / "MyDrive" / "a").write_text("x")
    assert (own_folders / "data" / "hub" / "My Drive" / "a").read_text() == "x"
    assert is_mounted(tmp_path / "mnt")
    assert mount(tmp_path / "mnt", hub="embedded").my_drive == mounted.my_drive
    unmount(tmp_path / "mnt")
    assert not (tmp_path / "mnt").exists()
    assert (own_folders / "data" / "hub" / "My Drive" / "a").read_text() == "x"


def test_in_the_foreground_the_link_stays_until_it_is_interrupted(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "haversack", "mount", str(tmp_path / "mnt"), "--hub", "embedded", "--foreground"]
    staying = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert staying.stderr is not None
    assert "symbolic link" in staying.stderr.readline()
    assert (tmp_path / "mnt" / "My Drive").is_symlink()
    staying.send_signal(signal.SIGINT)
    staying.communicate()
    assert staying.returncode == 0
    assert not (tmp_path / "mnt").exists()


def test_a_read_only_mount_never_becomes_a_link(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="could not refuse writes"):
        mount(tmp_path / "mnt", hub="embedded", readonly=True)
    assert not os.path.lexists(tmp_path / "mnt")


def test_a_remote_drive_is_refused_with_what_helps(hub: RunningHub, tmp_path: Path) -> None:
    with pytest.raises(MountError, match="haversack drive get"):
        mount(tmp_path / "mnt")
    assert not os.path.lexists(tmp_path / "mnt")
