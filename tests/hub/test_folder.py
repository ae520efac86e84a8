"""The folder is the truth: what is changed there by hand shows, and a name is looked up without listing."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from googleapiclient.errors import HttpError

from tests.conftest import RunningHub

from .conftest import send
from .test_drive import names_in, put


def the_one(drive: Any, folder: str, name: str) -> dict[str, Any]:
    q = f"name = '{name}' and '{folder}' in parents and trashed = false"
    (file,) = drive.files().list(q=q, fields="files(*)").execute()["files"]
    return file


def test_a_file_put_there_by_hand_is_found_by_name(drive: Any, folder: str, place: Path) -> None:
    (place / "hand.txt").write_bytes(b"by hand")
    file = the_one(drive, folder, "hand.txt")
    assert file["md5Checksum"] == hashlib.md5(b"by hand").hexdigest()
    assert drive.files().get_media(fileId=file["id"]).execute() == b"by hand"


def test_a_file_put_there_by_hand_is_listed_and_has_one_id(drive: Any, folder: str, place: Path) -> None:
    (place / "hand.txt").write_bytes(b"by hand")
    first = the_one(drive, folder, "hand.txt")["id"]
    assert names_in(drive, folder) == ["hand.txt"]
    assert the_one(drive, folder, "hand.txt")["id"] == first


def test_a_folder_copied_there_by_hand_is_found_with_all_below(drive: Any, folder: str, place: Path) -> None:
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "b" / "deep.txt").write_text("x")
    above = the_one(drive, the_one(drive, folder, "a")["id"], "b")["id"]
    assert names_in(drive, above) == ["deep.txt"]


def test_a_search_everywhere_finds_what_was_put_there_by_hand(own_hub: RunningHub) -> None:
    from .conftest import google_client

    (own_hub.my_drive / "deep" / "er").mkdir(parents=True)
    (own_hub.my_drive / "deep" / "er" / "needle.txt").write_text("x")
    found = google_client(own_hub).files().list(q="name = 'needle.txt'").execute()["files"]
    assert [file["name"] for file in found] == ["needle.txt"]


def test_a_file_edited_by_hand_shows_its_new_size_and_hash(drive: Any, folder: str, place: Path) -> None:
    file = put(drive, folder, "a.txt", b"before")
    (place / "a.txt").write_bytes(b"after it")
    found = drive.files().get(fileId=file["id"], fields="size,md5Checksum").execute()
    assert found == {"size": "8", "md5Checksum": hashlib.md5(b"after it").hexdigest()}


def test_a_file_replaced_by_hand_keeps_its_id(drive: Any, folder: str, place: Path) -> None:
    file = put(drive, folder, "a.txt", b"before")
    (place / "new").write_bytes(b"other")
    os.replace(place / "new", place / "a.txt")
    assert the_one(drive, folder, "a.txt")["id"] == file["id"]
    assert drive.files().get_media(fileId=file["id"]).execute() == b"other"


def test_a_file_renamed_by_hand_keeps_its_id(drive: Any, folder: str, place: Path) -> None:
    file = put(drive, folder, "a.txt", b"text", description="kept")
    (place / "a.txt").rename(place / "b.txt")
    assert drive.files().get(fileId=file["id"], fields="name,description").execute() == {
        "name": "b.txt",
        "description": "kept",
    }


def test_files_that_swap_their_names_by_hand_keep_their_ids(drive: Any, folder: str, place: Path) -> None:
    put(drive, folder, "a", b"1")
    put(drive, folder, "b", b"22")
    (place / "a").rename(place / "c")
    (place / "b").rename(place / "a")
    (place / "c").rename(place / "b")
    assert names_in(drive, folder, orderBy="name") == ["a", "b"]
    assert drive.files().get_media(fileId=the_one(drive, folder, "a")["id"]).execute() == b"22"


def test_a_file_removed_by_hand_is_gone(drive: Any, folder: str, place: Path) -> None:
    file = put(drive, folder, "a.txt")
    (place / "a.txt").unlink()
    with pytest.raises(HttpError, match="File not found"):
        drive.files().get(fileId=file["id"]).execute()
    assert names_in(drive, folder) == []


def test_a_folder_removed_by_hand_takes_its_files_along(drive: Any, folder: str, place: Path) -> None:
    file = put(drive, folder, "a.txt")
    shutil.rmtree(place)
    with pytest.raises(HttpError, match="File not found"):
        drive.files().get_media(fileId=file["id"]).execute()


def test_a_file_that_became_a_folder_is_a_folder(drive: Any, folder: str, place: Path) -> None:
    put(drive, folder, "thing")
    (place / "thing").unlink()
    (place / "thing").mkdir()
    assert the_one(drive, folder, "thing")["mimeType"] == "application/vnd.google-apps.folder"


def test_changes_tell_what_was_done_by_hand(drive: Any, folder: str, place: Path) -> None:
    gone = put(drive, folder, "gone")["id"]
    token = drive.changes().getStartPageToken().execute()["startPageToken"]
    (place / "gone").unlink()
    (place / "new").write_text("x")
    names_in(drive, folder)
    answer = drive.changes().list(pageToken=token).execute()
    assert gone in {change["fileId"] for change in answer["changes"] if change["removed"]}
    assert "new" in {change["file"]["name"] for change in answer["changes"] if not change["removed"]}


def test_links_are_not_followed(drive: Any, folder: str, place: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (place / "file").symlink_to(tmp_path / "secret")
    (place / "folder").symlink_to(tmp_path)
    assert names_in(drive, folder) == []
    assert names_in(drive, folder, "name = 'file'") == []


def test_a_folder_replaced_by_a_link_leads_nowhere(drive: Any, folder: str, place: Path, tmp_path: Path) -> None:
    file = put(drive, folder, "secret", b"mine")
    (tmp_path / "secret").write_text("theirs")
    shutil.rmtree(place)
    place.symlink_to(tmp_path)
    with pytest.raises(HttpError, match="File not found"):
        drive.files().get_media(fileId=file["id"]).execute()


def test_names_on_disk_that_are_no_text_are_served(drive: Any, folder: str, place: Path) -> None:
    Path(os.fsdecode(os.fsencode(place) + b"/caf\xe9")).write_text("x")
    (name,) = names_in(drive, folder)
    assert name == "caf�"
    assert drive.files().get_media(fileId=the_one(drive, folder, name)["id"]).execute() == b"x"


def test_an_upload_never_overwrites_what_was_put_there_by_hand(drive: Any, folder: str, place: Path) -> None:
    (place / "a.txt").write_text("by hand")
    put(drive, folder, "a.txt", b"uploaded")
    assert (place / "a.txt").read_text() == "by hand"
    assert (place / "a (1).txt").read_bytes() == b"uploaded"


def test_hashing_a_large_file_holds_up_nobody_else(hub: RunningHub, drive: Any, folder: str, place: Path) -> None:
    put(drive, folder, "small")
    with open(place / "large", "wb") as file:
        file.truncate(1 << 30)
    target = f"/drive/v3/files?q={quote(repr(folder) + ' in parents')}&fields=files(md5Checksum)"
    listing = threading.Thread(target=send, args=(hub, "GET", target))
    listing.start()
    for _ in range(5):
        assert the_one(drive, folder, "small")["size"] == "7"
    assert listing.is_alive()
    listing.join()


def test_the_records_can_be_lost(own_hub: RunningHub) -> None:
    from tests.conftest import start_hub

    from .conftest import google_client

    put(google_client(own_hub), "root", "a.txt", b"text")
    own_hub.process.terminate()
    own_hub.process.wait(60)
    for path in (own_hub.root / ".hub").glob("records.sqlite*"):
        path.unlink()
    again = start_hub(own_hub.root)
    try:
        assert the_one(google_client(again), "root", "a.txt")["size"] == "4"
    finally:
        again.process.terminate()
        again.process.wait(60)
