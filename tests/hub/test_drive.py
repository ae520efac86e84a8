"""Drive v3 as Google's own client uses it."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import pytest
from googleapiclient.errors import HttpError
from googleapiclient.http import MediaInMemoryUpload, MediaIoBaseDownload, MediaIoBaseUpload

from tests.conftest import RunningHub

from .conftest import FOLDER, send


def put(drive: Any, folder: str, name: str, content: bytes = b"content", **body: Any) -> dict[str, Any]:
    body = {"name": name, "parents": [folder], **body}
    media = MediaInMemoryUpload(content, "application/octet-stream")
    return drive.files().create(body=body, media_body=media, fields="*").execute()


def names_in(drive: Any, folder: str, q: str = "trashed = false", **more: Any) -> list[str]:
    found = drive.files().list(q=f"'{folder}' in parents and {q}", fields="files(name)", **more).execute()
    return [file["name"] for file in found["files"]]


def test_an_uploaded_file_lies_in_the_plain_folder(drive: Any, folder: str, place: Path) -> None:
    put(drive, folder, "notes.txt", b"hello")
    assert (place / "notes.txt").read_bytes() == b"hello"


def test_an_uploaded_file_tells_size_hash_and_parent(drive: Any, folder: str) -> None:
    file = put(drive, folder, "notes.txt", b"hello")
    assert file["size"] == "5"
    assert file["md5Checksum"] == hashlib.md5(b"hello").hexdigest()
    assert file["parents"] == [folder]


def test_a_resumable_upload_in_small_chunks_arrives_whole(drive: Any, folder: str, place: Path) -> None:
    content = os.urandom(1_500_000)
    media = MediaIoBaseUpload(io.BytesIO(content), "image/png", chunksize=256 * 1024, resumable=True)
    body = {"name": "a.png", "parents": [folder]}
    file = drive.files().create(body=body, media_body=media, fields="md5Checksum,mimeType").execute()
    assert file == {"md5Checksum": hashlib.md5(content).hexdigest(), "mimeType": "image/png"}
    assert (place / "a.png").read_bytes() == content


@pytest.mark.parametrize("resumable", [False, True])
def test_an_empty_file_can_be_uploaded(drive: Any, folder: str, place: Path, resumable: bool) -> None:
    media = MediaInMemoryUpload(b"", "text/plain", resumable=resumable)
    drive.files().create(body={"name": "empty", "parents": [folder]}, media_body=media).execute()
    assert (place / "empty").read_bytes() == b""


def test_a_file_is_downloaded_in_ranges(drive: Any, folder: str) -> None:
    content = os.urandom(1_000_000)
    file = put(drive, folder, "data.bin", content)
    received = io.BytesIO()
    download = MediaIoBaseDownload(received, drive.files().get_media(fileId=file["id"]), chunksize=300_000)
    while not download.next_chunk()[1]:
        pass
    assert received.getvalue() == content


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [
        ("bytes=2-4", 206, b"cde"),
        ("bytes=7-", 206, b"hij"),
        ("bytes=-3", 206, b"hij"),
        ("bytes=8-99", 206, b"ij"),
        ("bytes=0-1,3-4", 200, b"abcdefghij"),
        ("bytes=10-", 416, None),
        ("bytes=5-2", 416, None),
        ("bytes=x-y", 416, None),
        ("bytes=-", 416, None),
    ],
)
def test_ranges(drive: Any, folder: str, hub: RunningHub, asked: str, status: int, body: bytes | None) -> None:
    file = put(drive, folder, "letters", b"abcdefghij")
    reply = send(hub, "GET", f"/drive/v3/files/{file['id']}?alt=media", headers={"Range": asked})
    assert reply.status == status
    assert body is None or reply.body == body


def test_a_file_beside_its_compressed_copy_is_served_as_it_is(drive: Any, folder: str, hub: RunningHub) -> None:
    file = put(drive, folder, "table.csv", b"plain")
    put(drive, folder, "table.csv.gz", b"packed")
    reply = send(hub, "GET", f"/drive/v3/files/{file['id']}?alt=media", headers={"Accept-Encoding": "gzip"})
    assert reply.body == b"plain"


def test_new_content_keeps_the_id_and_raises_the_version(drive: Any, folder: str, place: Path) -> None:
    file = put(drive, folder, "model.h5", b"old")
    media = MediaInMemoryUpload(b"new one", "application/octet-stream")
    changed = drive.files().update(fileId=file["id"], media_body=media, fields="*").execute()
    assert changed["id"] == file["id"]
    assert changed["size"] == "7"
    assert int(changed["version"]) > int(file["version"])
    assert (place / "model.h5").read_bytes() == b"new one"


def test_new_content_may_come_resumable(drive: Any, folder: str, place: Path) -> None:
    file = put(drive, folder, "model.h5", b"old")
    media = MediaIoBaseUpload(io.BytesIO(b"x" * 600_000), "text/plain", chunksize=256 * 1024, resumable=True)
    drive.files().update(fileId=file["id"], media_body=media, body={"description": "newer"}).execute()
    assert (place / "model.h5").stat().st_size == 600_000


def test_renaming_and_moving_keep_the_id(drive: Any, folder: str, place: Path) -> None:
    below = drive.files().create(body={"name": "below", "mimeType": FOLDER, "parents": [folder]}).execute()["id"]
    file = put(drive, folder, "a.txt")
    drive.files().update(fileId=file["id"], body={"name": "b.txt"}, addParents=below, removeParents=folder).execute()
    assert (place / "below" / "b.txt").read_bytes() == b"content"
    assert not (place / "a.txt").exists()
    assert drive.files().get(fileId=file["id"], fields="parents").execute() == {"parents": [below]}


def test_a_folder_cannot_be_moved_into_itself(drive: Any, folder: str) -> None:
    below = drive.files().create(body={"name": "below", "mimeType": FOLDER, "parents": [folder]}).execute()["id"]
    with pytest.raises(HttpError, match="into itself"):
        drive.files().update(fileId=folder, addParents=below, removeParents="root").execute()


def test_what_is_said_of_a_file_is_kept(drive: Any, folder: str) -> None:
    said = {
        "description": "best so far",
        "starred": True,
        "appProperties": {"haversack": "checkpoint"},
        "modifiedTime": "2020-02-29T12:00:00.123Z",
    }
    file = put(drive, folder, "weights.h5", **said)
    again = drive.files().get(fileId=file["id"], fields=",".join(said)).execute()
    assert again == said


def test_a_modified_time_is_that_of_the_file_on_disk(drive: Any, folder: str, place: Path) -> None:
    file = put(drive, folder, "old.txt")
    drive.files().update(fileId=file["id"], body={"modifiedTime": "2001-09-09T01:46:40Z"}).execute()
    assert (place / "old.txt").stat().st_mtime == 1_000_000_000


def test_a_property_of_value_null_is_removed(drive: Any, folder: str) -> None:
    file = put(drive, folder, "a", appProperties={"one": "1", "two": "2"})
    changed = (
        drive.files().update(fileId=file["id"], body={"appProperties": {"one": None}}, fields="appProperties").execute()
    )
    assert changed == {"appProperties": {"two": "2"}}


def test_what_is_trashed_leaves_the_folder_and_comes_back(drive: Any, folder: str, place: Path) -> None:
    file = put(drive, folder, "a.txt")
    drive.files().update(fileId=file["id"], body={"trashed": True}).execute()
    assert not (place / "a.txt").exists()
    assert names_in(drive, folder) == []
    assert names_in(drive, folder, "trashed = true") == ["a.txt"]
    drive.files().update(fileId=file["id"], body={"trashed": False}).execute()
    assert (place / "a.txt").read_bytes() == b"content"


def test_what_lies_in_a_trashed_folder_is_trashed_and_readable(drive: Any, folder: str) -> None:
    file = put(drive, folder, "a.txt")
    drive.files().update(fileId=folder, body={"trashed": True}).execute()
    found = drive.files().get(fileId=file["id"], fields="trashed,explicitlyTrashed").execute()
    assert found == {"trashed": True, "explicitlyTrashed": False}
    assert drive.files().get_media(fileId=file["id"]).execute() == b"content"


def test_deleting_a_folder_deletes_all_below(drive: Any, folder: str, place: Path) -> None:
    file = put(drive, folder, "a.txt")
    drive.files().delete(fileId=folder).execute()
    assert not place.exists()
    with pytest.raises(HttpError, match="File not found"):
        drive.files().get(fileId=file["id"]).execute()


def test_emptying_the_trash_leaves_the_rest(own_hub: RunningHub) -> None:
    from .conftest import google_client

    drive = google_client(own_hub)
    kept, gone = put(drive, "root", "kept"), put(drive, "root", "gone")
    drive.files().update(fileId=gone["id"], body={"trashed": True}).execute()
    drive.files().emptyTrash().execute()
    assert [file["id"] for file in drive.files().list().execute()["files"]] == [kept["id"]]


def test_a_copy_is_another_file_of_the_same_content(drive: Any, folder: str, place: Path) -> None:
    file = put(drive, folder, "a.txt", b"text", appProperties={"k": "v"})
    copy = drive.files().copy(fileId=file["id"], body={"name": "b.txt"}, fields="*").execute()
    assert copy["id"] != file["id"]
    assert copy["appProperties"] == {"k": "v"}
    assert (place / "b.txt").read_bytes() == (place / "a.txt").read_bytes() == b"text"


def test_two_files_of_one_name_may_stand_in_one_folder(drive: Any, folder: str, place: Path) -> None:
    first, second = put(drive, folder, "a.txt", b"1"), put(drive, folder, "a.txt", b"2")
    assert names_in(drive, folder, "name = 'a.txt'") == ["a.txt", "a.txt"]
    assert (place / "a (1).txt").read_bytes() == b"2"
    assert drive.files().get_media(fileId=first["id"]).execute() == b"1"
    assert drive.files().get_media(fileId=second["id"]).execute() == b"2"


@pytest.mark.parametrize("name", ["a/b", "../../escape", "..", ".", "nul\0byte", "ü" * 300, " ", "a\nb", "a'b\\c"])
def test_any_name_is_kept_and_stays_in_its_folder(drive: Any, folder: str, place: Path, name: str) -> None:
    file = put(drive, folder, name)
    assert drive.files().get(fileId=file["id"]).execute()["name"] == name
    assert [path.read_bytes() for path in place.iterdir()] == [b"content"]
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    assert names_in(drive, folder, f"name = '{quoted}'") == [name]


def test_a_generated_id_is_used_once(drive: Any, folder: str) -> None:
    (new_id,) = drive.files().generateIds(count=1).execute()["ids"]
    assert put(drive, folder, "a", id=new_id)["id"] == new_id
    with pytest.raises(HttpError) as caught:
        put(drive, folder, "b", id=new_id)
    assert caught.value.status_code == 409
    assert names_in(drive, folder) == ["a"]


def test_the_id_of_a_deleted_file_is_not_given_again(drive: Any, folder: str) -> None:
    file = put(drive, folder, "a")
    drive.files().delete(fileId=file["id"]).execute()
    with pytest.raises(HttpError, match="already exists"):
        put(drive, folder, "b", id=file["id"])


def test_a_list_in_pages_has_every_file_once(drive: Any, folder: str) -> None:
    expected = [f"{number:02}" for number in range(23)]
    for name in reversed(expected):
        put(drive, folder, name)
    found, request = [], drive.files().list(q=f"'{folder}' in parents", orderBy="name", pageSize=5)
    while request is not None:
        page = request.execute()
        found += [file["name"] for file in page["files"]]
        request = drive.files().list_next(request, page)
    assert found == expected


def test_a_page_goes_on_where_it_was_when_files_were_deleted(drive: Any, folder: str) -> None:
    for number in range(6):
        put(drive, folder, str(number))
    request = drive.files().list(q=f"'{folder}' in parents", orderBy="name", pageSize=3)
    page = request.execute()
    for file in page["files"]:
        drive.files().delete(fileId=file["id"]).execute()
    rest = drive.files().list_next(request, page).execute()
    assert [file["name"] for file in rest["files"]] == ["3", "4", "5"]


def test_files_are_sorted_as_asked(drive: Any, folder: str) -> None:
    put(drive, folder, "b", modifiedTime="2020-01-01T00:00:00Z")
    put(drive, folder, "A", modifiedTime="2021-01-01T00:00:00Z")
    drive.files().create(body={"name": "z", "mimeType": FOLDER, "parents": [folder]}).execute()
    assert names_in(drive, folder, orderBy="folder,name") == ["z", "A", "b"]
    assert names_in(drive, folder, f"mimeType != '{FOLDER}'", orderBy="modifiedTime") == ["b", "A"]
    assert names_in(drive, folder, orderBy="name desc") == ["z", "b", "A"]


def test_only_the_fields_asked_for_are_answered(drive: Any, folder: str) -> None:
    file = put(drive, folder, "a")
    found = drive.files().get(fileId=file["id"], fields="id,owners/me,capabilities(canEdit)").execute()
    assert found == {"id": file["id"], "owners": [{"me": True}], "capabilities": {"canEdit": True}}


def test_changes_tell_what_was_made_changed_and_removed(drive: Any, folder: str) -> None:
    kept, gone = put(drive, folder, "kept"), put(drive, folder, "gone")
    token = drive.changes().getStartPageToken().execute()["startPageToken"]
    drive.files().update(fileId=kept["id"], body={"name": "renamed"}).execute()
    drive.files().delete(fileId=gone["id"]).execute()
    made = put(drive, folder, "made")
    answer = drive.changes().list(pageToken=token).execute()
    found = {change["fileId"]: change.get("file", {}).get("name") for change in answer["changes"]}
    mine = {kept["id"], gone["id"], made["id"]}
    assert {key: found[key] for key in mine} == {kept["id"]: "renamed", gone["id"]: None, made["id"]: "made"}
    after = drive.changes().list(pageToken=answer["newStartPageToken"]).execute()
    assert mine.isdisjoint(change["fileId"] for change in after["changes"])


def test_changes_come_in_pages(drive: Any, folder: str) -> None:
    token = drive.changes().getStartPageToken().execute()["startPageToken"]
    made = {put(drive, folder, str(number))["id"] for number in range(5)}
    found, request = set(), drive.changes().list(pageToken=token, pageSize=2)
    while request is not None:
        page = request.execute()
        found |= {change["fileId"] for change in page["changes"]}
        request = drive.changes().list_next(request, page)
    assert made <= found


def test_a_batch_answers_each_call_by_itself(drive: Any, folder: str) -> None:
    file = put(drive, folder, "a")
    answers: dict[str, Any] = {}
    batch = drive.new_batch_http_request(callback=lambda key, answer, error: answers.update({key: (answer, error)}))
    batch.add(drive.files().get(fileId=file["id"]), request_id="there")
    batch.add(drive.files().get(fileId="not-there-at-all"), request_id="away")
    batch.add(drive.files().create(body={"name": "made", "parents": [folder]}), request_id="made")
    batch.execute()
    assert answers["there"][0]["name"] == "a"
    assert answers["away"][1].status_code == 404
    assert answers["made"][0]["name"] == "made"


def test_about_tells_user_and_space(drive: Any) -> None:
    about = drive.about().get(fields="user(displayName),storageQuota").execute()
    assert about["user"] == {"displayName": "haversack"}
    assert int(about["storageQuota"]["limit"]) > int(about["storageQuota"]["usage"])


def test_about_needs_fields(hub: RunningHub) -> None:
    assert send(hub, "GET", "/drive/v3/about").status == 400


@pytest.mark.parametrize("call", ["delete", "rename", "trash"])
def test_my_drive_itself_stays(drive: Any, call: str) -> None:
    files = drive.files()
    request = {
        "delete": lambda: files.delete(fileId="root"),
        "rename": lambda: files.update(fileId="root", body={"name": "x"}),
        "trash": lambda: files.update(fileId="root", body={"trashed": True}),
    }[call]()
    with pytest.raises(HttpError, match="My Drive itself"):
        request.execute()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("[]", 400),
        ("[" * 100_000, 400),
        ('{"name": 5}', 400),
        ('{"name": ""}', 400),
        ('{"name": "\\ud800"}', 400),
        ('{"parents": ["a", "b"]}', 400),
        ('{"parents": ["nowhere-to-be-found"]}', 404),
        ('{"parents": ["\\ud800"]}', 400),
        ('{"id": "../../etc"}', 400),
        ('{"modifiedTime": "yesterday"}', 400),
        ('{"modifiedTime": "9999-12-31T00:00:00Z"}', 400),
        ('{"starred": "yes"}', 400),
        ('{"appProperties": {"k": 1}}', 400),
        ('{"size": "5"}', 403),
        ('{"mimeType": "application/vnd.google-apps.form"}', 501),
    ],
)
def test_a_bad_body_is_refused_in_plain_words(hub: RunningHub, body: str, status: int) -> None:
    reply = send(hub, "POST", "/drive/v3/files", body, {"Content-Type": "application/json"})
    assert reply.status == status
    assert reply.message.endswith(".")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/drive/v3/files?fields=files(id", 400),
        ("/drive/v3/files?fields=files(nmae)", 400),
        ("/drive/v3/files?pageSize=0", 400),
        ("/drive/v3/files?pageSize=1001", 400),
        ("/drive/v3/files?pageToken=%21%21", 400),
        ("/drive/v3/files?pageToken=WzRd&orderBy=name", 400),
        ("/drive/v3/files?orderBy=colour", 400),
        ("/drive/v3/files?driveId=0A", 501),
        ("/drive/v3/files?spaces=appDataFolder", 501),
        ("/drive/v3/files/nowhere-to-be-found", 404),
        ("/drive/v3/files/nowhere-to-be-found?alt=media", 404),
        ("/drive/v3/files/root?alt=media", 403),
        ("/drive/v3/changes", 400),
        ("/drive/v3/changes?pageToken=-1", 400),
        ("/drive/v3/drives/0A", 501),
        ("/drive/v3/files/root/permissions", 501),
        ("/drive/v3/../../etc/passwd", 501),
        ("/nothing/here", 501),
    ],
)
def test_a_bad_call_is_refused_in_googles_words(hub: RunningHub, target: str, status: int) -> None:
    reply = send(hub, "GET", target)
    assert reply.status == status
    error = reply.json()["error"]
    assert error["code"] == status
    assert error["errors"][0]["message"] == error["message"]


def test_moving_without_a_new_folder_is_refused(drive: Any, folder: str) -> None:
    file = put(drive, folder, "a")
    with pytest.raises(HttpError, match="exactly one folder"):
        drive.files().update(fileId=file["id"], removeParents=folder).execute()


def test_all_hashes_are_told_and_follow_the_content(drive: Any, folder: str, place: Path) -> None:
    file = put(drive, folder, "a", b"first")
    for content in (b"first", b"second"):
        (place / "a").write_bytes(content)
        found = drive.files().get(fileId=file["id"], fields="md5Checksum,sha1Checksum,sha256Checksum").execute()
        assert found == {
            f"{name}Checksum": hashlib.new(name, content).hexdigest() for name in ("md5", "sha1", "sha256")
        }


def test_the_head_revision_changes_with_the_content_and_with_nothing_else(drive: Any, folder: str) -> None:
    file = put(drive, folder, "a")
    about = {"name": "b", "starred": True, "modifiedTime": "2020-01-01T00:00:00Z"}
    said = drive.files().update(fileId=file["id"], body=about, fields="headRevisionId,version").execute()
    assert said["headRevisionId"] == file["headRevisionId"]
    assert int(said["version"]) > int(file["version"])
    media = MediaInMemoryUpload(b"other", "text/plain")
    changed = drive.files().update(fileId=file["id"], media_body=media, fields="headRevisionId").execute()
    assert changed["headRevisionId"] != file["headRevisionId"]


def test_a_content_link_needs_no_sign_in_and_is_an_attachment(drive: Any, folder: str, hub: RunningHub) -> None:
    file = put(drive, folder, "page.html", b"<script>", mimeType="text/html")
    reply = send(hub, "GET", file["webContentLink"].removeprefix(hub.url), signed_in=False)
    assert reply.body == b"<script>"
    assert reply.headers["Content-Disposition"] == 'attachment; filename="page.html"'
    assert reply.headers["Content-Security-Policy"] == "sandbox"


def test_a_content_link_is_good_for_its_file_and_its_time_only(drive: Any, folder: str, hub: RunningHub) -> None:
    one, other = put(drive, folder, "one"), put(drive, folder, "other")
    link = one["webContentLink"].removeprefix(hub.url)
    for wrong in (link.replace(one["id"], other["id"]), link.replace("expires=", "expires=9"), link.partition("?")[0]):
        assert send(hub, "GET", wrong, signed_in=False).status == 403


def test_who_has_the_bytes_is_not_sent_them_again(drive: Any, folder: str, hub: RunningHub) -> None:
    target = f"/drive/v3/files/{put(drive, folder, 'a')['id']}?alt=media"
    tag = send(hub, "GET", target).headers["ETag"]
    again = send(hub, "GET", target, headers={"If-None-Match": tag})
    assert (again.status, again.body) == (304, b"")


def test_a_large_file_comes_whole_and_in_ranges(drive: Any, folder: str, hub: RunningHub, place: Path) -> None:
    content = os.urandom(3_000_000)
    target = f"/drive/v3/files/{put(drive, folder, 'large', content)['id']}?alt=media"
    assert send(hub, "GET", target).body == content
    reply = send(hub, "GET", target, headers={"Range": "bytes=1000000-2999998"})
    assert (reply.status, reply.headers["Content-Range"]) == (206, "bytes 1000000-2999998/3000000")
    assert reply.body == content[1_000_000:2_999_999]
    assert send(hub, "HEAD", target).headers["Content-Length"] == "3000000"


def test_a_batch_of_more_than_a_hundred_calls_is_refused(drive: Any, hub: RunningHub) -> None:
    part = "--e\r\nContent-Type: application/http\r\n\r\nGET /drive/v3/files/root HTTP/1.1\r\n\r\n"
    headers = {"Content-Type": "multipart/mixed; boundary=e"}
    assert send(hub, "POST", "/batch/drive/v3", part * 100 + "--e--", headers).body.count(b"HTTP/1.1 200 OK") == 100
    assert send(hub, "POST", "/batch/drive/v3", part * 101 + "--e--", headers).status == 400


def test_there_are_no_shared_drives(drive: Any) -> None:
    assert drive.drives().list().execute()["drives"] == []
