"""Files that haversack keeps for itself on the drive: made once under an id, and deleted for good by their mark."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.drive.filesystem import DriveFileSystem
from haversack.errors import AlreadyExists, Forbidden, NotFound
from tests.conftest import RunningHub


@pytest.fixture
def drive(own_hub: RunningHub) -> DriveFileSystem:
    return DriveFileSystem(own_hub.url)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "source"
    file.write_bytes(b"a checkpoint")
    return file


def test_a_delivered_file_is_on_the_drive(drive: DriveFileSystem, own_hub: RunningHub, source: Path) -> None:
    drive.deliver(source, "a.bin", mark="checkpoint")
    assert (own_hub.my_drive / "a.bin").read_bytes() == b"a checkpoint"
    assert drive.cat_file("a.bin") == b"a checkpoint"


def test_only_the_first_to_use_an_id_succeeds(drive: DriveFileSystem, source: Path) -> None:
    file_id = drive.reserve()
    drive.deliver(source, "first", mark="checkpoint", file_id=file_id)
    source.write_bytes(b"another")
    with pytest.raises(AlreadyExists):
        drive.deliver(source, "second", mark="checkpoint", file_id=file_id)
    assert drive.cat_file("first") == b"a checkpoint"
    assert not drive.exists("second")


def test_an_id_is_not_free_again_after_its_file_is_deleted(drive: DriveFileSystem, source: Path) -> None:
    file_id = drive.reserve()
    drive.deliver(source, "first", mark="checkpoint", file_id=file_id)
    drive.purge("first")
    source.write_bytes(b"another")
    with pytest.raises(AlreadyExists):
        drive.deliver(source, "second", mark="checkpoint", file_id=file_id)


def test_a_name_is_taken_once(drive: DriveFileSystem, source: Path) -> None:
    drive.deliver(source, "a.bin", mark="checkpoint")
    with pytest.raises(AlreadyExists):
        drive.deliver(source, "a.bin", mark="checkpoint")
    assert [entry["name"] for entry in drive.ls("")] == ["a.bin"]


def test_a_name_is_taken_once_under_an_id_too(drive: DriveFileSystem, source: Path) -> None:
    drive.deliver(source, "a.bin", mark="checkpoint")
    source.write_bytes(b"another")
    with pytest.raises(AlreadyExists):
        drive.deliver(source, "a.bin", mark="checkpoint", file_id=drive.reserve())
    assert drive.cat_file("a.bin") == b"a checkpoint"


def test_what_is_purged_is_not_in_the_trash(drive: DriveFileSystem, own_hub: RunningHub, source: Path) -> None:
    drive.deliver(source, "a.bin", mark="checkpoint")
    drive.purge("a.bin")
    assert not drive.exists("a.bin")
    assert not [path for path in own_hub.root.rglob("*") if path.is_file() and path.read_bytes() == b"a checkpoint"]


def test_what_is_not_ours_is_never_purged(drive: DriveFileSystem) -> None:
    drive.pipe_file("mine", b"a user's")
    drive.mkdir("folder")
    for name in ("mine", "folder"):
        with pytest.raises(Forbidden, match="not made by haversack"):
            drive.purge(name)
    with pytest.raises(NotFound):
        drive.purge("nothing")
    assert drive.cat_file("mine") == b"a user's"


def test_what_another_machine_wrote_is_seen_when_asked_again(drive: DriveFileSystem, own_hub: RunningHub) -> None:
    assert drive.ls("") == []
    (own_hub.my_drive / "late").write_bytes(b"1")
    drive.invalidate_cache("")
    assert drive.ls("", detail=False) == ["late"]
