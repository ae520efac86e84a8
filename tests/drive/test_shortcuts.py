"""Shortcuts are followed and never lead round in a circle; removed is the shortcut alone. Documents have no bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.drive.filesystem import DriveFileSystem
from haversack.drive.remote.api import SHORTCUT
from haversack.drive.resolve import TARGETS
from haversack.errors import Forbidden, NotAFolder, NotFound
from haversack.http import wait
from tests.conftest import RunningHub


@pytest.fixture
def here(hub: RunningHub, folder: str) -> Path:
    return hub.my_drive / folder


def shortcut(fs: DriveFileSystem, path: str, target: str) -> None:
    about = {
        "name": path.rpartition("/")[2],
        "parents": [fs.info(fs._parent(path))["id"]],
        "mimeType": SHORTCUT,
        "shortcutDetails": {"targetId": fs.info(target)["id"]},
    }
    wait(fs.drive.api.http.request("POST", "/drive/v3/files", json=about))
    fs.drive.follower.refresh()


def test_a_shortcut_reads_and_writes_what_it_leads_to(fs: DriveFileSystem, folder: str, here: Path) -> None:
    fs.pipe_file(f"{folder}/a", b"target")
    shortcut(fs, f"{folder}/s", f"{folder}/a")
    assert fs.cat_file(f"{folder}/s") == b"target"
    fs.pipe_file(f"{folder}/s", b"written")
    assert (here / "a").read_bytes() == b"written"
    assert fs.cat_file(f"{folder}/s") == b"written"
    assert fs.info(f"{folder}/s")["size"] == 7


def test_a_path_goes_through_a_shortcut_to_a_folder(fs: DriveFileSystem, folder: str, here: Path) -> None:
    fs.makedirs(f"{folder}/x/y")
    fs.pipe_file(f"{folder}/x/y/a", b"deep")
    shortcut(fs, f"{folder}/s", f"{folder}/x")
    assert fs.cat_file(f"{folder}/s/y/a") == b"deep"
    assert [entry["type"] for entry in fs.ls(folder)] == ["directory", "directory"]
    assert fs.find(f"{folder}/s") == [f"{folder}/s/y/a"]


def test_shortcuts_in_a_circle_end(fs: DriveFileSystem, folder: str, here: Path) -> None:
    for name in ("x", "y"):
        fs.mkdir(f"{folder}/{name}")
        fs.pipe_file(f"{folder}/{name}/in-{name}", b"")
    shortcut(fs, f"{folder}/x/to-y", f"{folder}/y")
    shortcut(fs, f"{folder}/y/to-x", f"{folder}/x")
    shortcut(fs, f"{folder}/x/to-itself", f"{folder}/x")
    assert fs.find(f"{folder}/x") == [f"{folder}/x/in-x", f"{folder}/x/to-y/in-y"]
    assert not fs.exists(f"{folder}/x/to-y/to-x")


def test_removing_a_shortcut_leaves_what_it_leads_to(fs: DriveFileSystem, folder: str, here: Path) -> None:
    fs.mkdir(f"{folder}/x")
    fs.pipe_file(f"{folder}/x/a", b"kept")
    shortcut(fs, f"{folder}/s", f"{folder}/x")
    with pytest.raises(NotAFolder):
        fs.rmdir(f"{folder}/s")
    fs.rm(f"{folder}/s", recursive=True)
    assert not fs.exists(f"{folder}/s")
    assert (here / "x" / "a").read_bytes() == b"kept"


def test_renaming_a_shortcut_leaves_what_it_leads_to(fs: DriveFileSystem, folder: str, here: Path) -> None:
    fs.pipe_file(f"{folder}/a", b"kept")
    shortcut(fs, f"{folder}/s", f"{folder}/a")
    fs.mv(f"{folder}/s", f"{folder}/t")
    assert fs.ls(folder, detail=False) == [f"{folder}/a", f"{folder}/t"]
    fs.rm(f"{folder}/a")
    assert fs.info(f"{folder}/t")["size"] == 0
    with pytest.raises(Forbidden):
        fs.cat_file(f"{folder}/t")


def test_a_file_takes_the_place_of_a_shortcut_and_not_of_its_target(
    fs: DriveFileSystem, folder: str, here: Path
) -> None:
    fs.pipe_file(f"{folder}/a", b"kept")
    shortcut(fs, f"{folder}/s", f"{folder}/a")
    fs.pipe_file(f"{folder}/new", b"new")
    fs.mv(f"{folder}/new", f"{folder}/s")
    assert (fs.cat_file(f"{folder}/s"), fs.cat_file(f"{folder}/a")) == (b"new", b"kept")


def test_what_shortcuts_lead_to_is_reached_by_its_id(fs: DriveFileSystem, folder: str, here: Path) -> None:
    fs.mkdir(f"{folder}/x")
    fs.pipe_file(f"{folder}/x/a", b"by id")
    target = fs.info(f"{folder}/x")["id"]
    shortcut(fs, f"{folder}/s", f"{folder}/x")
    assert fs.drive.link(fs.drive.find((folder, "s"), follow=False)) == f"{TARGETS}/{target}/x"
    assert fs.cat_file(f"{TARGETS}/{target}/x/a") == b"by id"
    with pytest.raises(NotFound):
        fs.info(f"{TARGETS}/{target}/other")


def test_a_document_is_shown_and_says_that_it_cannot_be_read(fs: DriveFileSystem, folder: str, here: Path) -> None:
    (here / "Report.gdoc").write_text("words")
    assert [(entry["name"], entry["size"]) for entry in fs.ls(folder)] == [(f"{folder}/Report.gdoc", 0)]
    with pytest.raises(Forbidden, match="Export"):
        fs.cat_file(f"{folder}/Report.gdoc")
    fs.mv(f"{folder}/Report.gdoc", f"{folder}/Final.gdoc")
    assert fs.drive.find((folder, "Final.gdoc")).name == "Final"
