"""What a drive holds beside files and folders: Google's documents, and shortcuts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from googleapiclient.errors import HttpError
from googleapiclient.http import MediaInMemoryUpload

from haversack.hub.documents import DOCUMENT, SHEET, SHORTCUT
from tests.conftest import RunningHub

from .conftest import FOLDER, send
from .test_drive import names_in, put
from .test_folder import the_one


def make_shortcut(drive: Any, folder: str, target: str, name: str = "short") -> dict[str, Any]:
    body = {"name": name, "mimeType": SHORTCUT, "parents": [folder], "shortcutDetails": {"targetId": target}}
    return drive.files().create(body=body, fields="*").execute()


def reason(error: HttpError) -> str:
    return error.error_details[0]["reason"]


def test_a_document_put_there_by_hand_has_no_bytes_but_exports(drive: Any, folder: str, place: Path) -> None:
    (place / "notes.gdoc").write_text("first\n<second>\n")
    file = the_one(drive, folder, "notes")
    assert file["mimeType"] == DOCUMENT
    assert not {"size", "md5Checksum", "headRevisionId", "webContentLink"} & set(file)
    assert set(file["exportLinks"]) == {"text/plain", "text/html", "text/markdown"}
    assert drive.files().export(fileId=file["id"], mimeType="text/plain").execute() == b"first\n<second>\n"
    assert b"<p>&lt;second&gt;</p>" in drive.files().export(fileId=file["id"], mimeType="text/html").execute()


def test_an_export_link_is_followed_with_the_token(drive: Any, folder: str, place: Path, hub: RunningHub) -> None:
    (place / "table.gsheet").write_text('a,"b,c"\n')
    links = the_one(drive, folder, "table")["exportLinks"]
    reply = send(hub, "GET", links["text/tab-separated-values"].removeprefix(hub.url))
    assert reply.body == b"a\tb,c\r\n"
    assert reply.headers["Content-Disposition"] == "attachment"


def test_a_document_is_not_downloaded(drive: Any, folder: str, place: Path) -> None:
    (place / "notes.gdoc").write_text("text")
    with pytest.raises(HttpError, match="Use Export") as caught:
        drive.files().get_media(fileId=the_one(drive, folder, "notes")["id"]).execute()
    assert (caught.value.status_code, reason(caught.value)) == (403, "fileNotDownloadable")


def test_a_document_is_made_of_text(drive: Any, folder: str, place: Path) -> None:
    body = {"name": "notes", "mimeType": DOCUMENT, "parents": [folder]}
    media = MediaInMemoryUpload(b"text", "text/plain")
    made = drive.files().create(body=body, media_body=media).execute()
    assert made["mimeType"] == DOCUMENT
    assert (place / "notes.gdoc").read_bytes() == b"text"


def test_a_document_keeps_its_suffix_on_disk_when_it_is_renamed_and_copied(
    drive: Any, folder: str, place: Path
) -> None:
    (place / "notes.gdoc").write_text("text")
    file = the_one(drive, folder, "notes")["id"]
    drive.files().update(fileId=file, body={"name": "v1.2"}).execute()
    drive.files().copy(fileId=file, body={"name": "copy"}).execute()
    assert sorted(path.name for path in place.iterdir()) == ["copy.gdoc", "v1.2.gdoc"]
    assert sorted(names_in(drive, folder, f"mimeType = '{DOCUMENT}'")) == ["copy", "v1.2"]


@pytest.mark.parametrize(
    ("name", "wanted", "status", "why"),
    [
        ("notes.gdoc", "application/pdf", 400, "badRequest"),
        ("plain.txt", "text/plain", 403, "fileNotExportable"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    drive: Any, folder: str, place: Path, name: str, wanted: str, status: int, why: str
) -> None:
    (place / name).write_text("text")
    file = the_one(drive, folder, name.removesuffix(".gdoc"))["id"]
    with pytest.raises(HttpError) as caught:
        drive.files().export(fileId=file, mimeType=wanted).execute()
    assert (caught.value.status_code, reason(caught.value)) == (status, why)


def test_a_document_is_not_overwritten_with_bytes(drive: Any, folder: str, place: Path) -> None:
    (place / "table.gsheet").write_text("a,b\n")
    file = the_one(drive, folder, "table")
    assert file["mimeType"] == SHEET
    with pytest.raises(HttpError, match="does not edit"):
        drive.files().update(fileId=file["id"], media_body=MediaInMemoryUpload(b"x", "text/csv")).execute()


def test_a_shortcut_tells_what_it_leads_to(drive: Any, folder: str) -> None:
    target = put(drive, folder, "target.png", mimeType="image/png")
    shortcut = make_shortcut(drive, folder, target["id"])
    assert shortcut["mimeType"] == SHORTCUT
    assert shortcut["shortcutDetails"] == {"targetId": target["id"], "targetMimeType": "image/png"}
    assert "size" not in shortcut


def test_a_shortcut_outlives_its_target(drive: Any, folder: str) -> None:
    target = put(drive, folder, "target")["id"]
    shortcut = make_shortcut(drive, folder, target)["id"]
    drive.files().delete(fileId=target).execute()
    found = drive.files().get(fileId=shortcut, fields="shortcutDetails").execute()
    assert found == {"shortcutDetails": {"targetId": target}}


def test_a_shortcut_may_lead_to_a_folder_and_is_copied_as_a_shortcut(drive: Any, folder: str) -> None:
    shortcut = make_shortcut(drive, folder, folder)["id"]
    copy = drive.files().copy(fileId=shortcut, fields="mimeType,shortcutDetails").execute()
    assert copy == {"mimeType": SHORTCUT, "shortcutDetails": {"targetId": folder, "targetMimeType": FOLDER}}


def test_a_shortcut_is_a_small_file_on_disk_and_known_again(drive: Any, folder: str, place: Path) -> None:
    target = put(drive, folder, "target")["id"]
    make_shortcut(drive, folder, target)
    assert json.loads((place / "short.gshortcut").read_text()) == {"target": target}
    (place / "by hand.gshortcut").write_text(json.dumps({"target": target}))
    (place / "broken.gshortcut").write_text("[")
    assert the_one(drive, folder, "by hand")["shortcutDetails"]["targetId"] == target
    assert "shortcutDetails" not in the_one(drive, folder, "broken")


def test_a_shortcut_is_not_downloaded(drive: Any, folder: str) -> None:
    shortcut = make_shortcut(drive, folder, folder)["id"]
    with pytest.raises(HttpError, match="Only files with binary content"):
        drive.files().get_media(fileId=shortcut).execute()


@pytest.mark.parametrize(
    "body",
    [
        {"mimeType": SHORTCUT},
        {"mimeType": SHORTCUT, "shortcutDetails": {"targetId": "../x"}},
        {"mimeType": SHORTCUT, "shortcutDetails": "x"},
        {"shortcutDetails": {"targetId": "a" * 33}},
    ],
)
def test_a_shortcut_that_leads_nowhere_is_refused(drive: Any, body: dict[str, Any]) -> None:
    with pytest.raises(HttpError) as caught:
        drive.files().create(body={"name": "short", **body}).execute()
    assert caught.value.status_code == 400


def test_a_file_does_not_become_a_shortcut(drive: Any, folder: str) -> None:
    file = put(drive, folder, "file")["id"]
    with pytest.raises(HttpError, match="cannot become"):
        drive.files().update(fileId=file, body={"mimeType": SHORTCUT}).execute()
