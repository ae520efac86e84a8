"""A drive where FUSE is not to be had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from haversack.drive.mount import is_mounted, mount, unmount
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


def test_a_read_only_mount_never_becomes_a_link(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="could not refuse writes"):
        mount(tmp_path / "mnt", hub="embedded", readonly=True)
    assert not os.path.lexists(tmp_path / "mnt")


def test_a_remote_drive_is_refused_with_what_helps(hub: RunningHub, tmp_path: Path) -> None:
    with pytest.raises(MountError, match="haversack drive get"):
        mount(tmp_path / "mnt")
    assert not os.path.lexists(tmp_path / "mnt")
