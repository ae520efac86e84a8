"""A drive that is full."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from googleapiclient.errors import HttpError
from googleapiclient.http import MediaInMemoryUpload

from tests.conftest import RunningHub, start_hub

from .conftest import google_client, send
from .test_drive import put


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub of 100 kB."""
    hub = start_hub(tmp_path_factory.mktemp("quota") / "root", None, "--quota", "100kB")
    yield hub
    hub.process.terminate()
    hub.process.wait(60)


@pytest.fixture
def client(small: RunningHub) -> Iterator[Any]:
    drive = google_client(small)
    yield drive
    for file in drive.files().list().execute()["files"]:
        drive.files().delete(fileId=file["id"]).execute()


def quota(drive: Any) -> dict[str, int]:
    found = drive.about().get(fields="storageQuota").execute()["storageQuota"]
    return {name: int(value) for name, value in found.items()}


def test_the_quota_is_told_with_what_the_trash_holds(client: Any) -> None:
    put(client, "root", "kept", b"x" * 1000)
    gone = put(client, "root", "gone", b"x" * 500)
    client.files().update(fileId=gone["id"], body={"trashed": True}).execute()
    told = {"limit": 100_000, "usage": 1500, "usageInDrive": 1000, "usageInDriveTrash": 500}
    assert quota(client) == told


@pytest.mark.parametrize("resumable", [False, True])
def test_what_does_not_fit_is_refused_in_googles_words_and_leaves_nothing(
    client: Any, small: RunningHub, resumable: bool
) -> None:
    put(client, "root", "there", b"x" * 60_000)
    media = MediaInMemoryUpload(b"x" * 60_000, "text/plain", resumable=resumable)
    with pytest.raises(HttpError) as caught:
        client.files().create(body={"name": "more"}, media_body=media).execute()
    detail = caught.value.error_details[0]
    assert (caught.value.status_code, detail["reason"]) == (403, "storageQuotaExceeded")
    assert detail["message"] == "The user's Drive storage quota has been exceeded."
    assert [path.name for path in small.my_drive.iterdir()] == ["there"]


def test_an_upload_of_unknown_length_is_refused_at_its_end(client: Any, small: RunningHub) -> None:
    location = send(small, "POST", "/upload/drive/v3/files?uploadType=resumable", "{}").headers["Location"]
    assert send(small, "PUT", location.removeprefix(small.url), b"x" * 200_000).status == 403
    assert list(small.my_drive.iterdir()) == []


def test_a_copy_that_does_not_fit_is_refused(client: Any) -> None:
    file = put(client, "root", "there", b"x" * 60_000)
    with pytest.raises(HttpError, match="quota has been exceeded"):
        client.files().copy(fileId=file["id"]).execute()


def test_smaller_content_fits_a_full_drive(client: Any) -> None:
    file = put(client, "root", "there", b"x" * 100_000)
    media = MediaInMemoryUpload(b"x" * 90_000, "text/plain")
    assert client.files().update(fileId=file["id"], media_body=media, fields="size").execute() == {"size": "90000"}


def test_emptying_the_trash_makes_room(client: Any) -> None:
    file = put(client, "root", "there", b"x" * 90_000)
    client.files().update(fileId=file["id"], body={"trashed": True}).execute()
    with pytest.raises(HttpError, match="quota has been exceeded"):
        put(client, "root", "new", b"x" * 90_000)
    client.files().emptyTrash().execute()
    assert put(client, "root", "new", b"x" * 90_000)["size"] == "90000"


def test_a_folder_needs_no_room(client: Any) -> None:
    put(client, "root", "there", b"x" * 100_000)
    body = {"name": "folder", "mimeType": "application/vnd.google-apps.folder"}
    assert client.files().create(body=body).execute()["name"] == "folder"


def test_a_quota_that_cannot_be_meant_is_said_in_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError, match="ended before"):
        start_hub(tmp_path / "root", "token", "--quota", "much")
    said = "haversack: --quota does not accept 'much'. Give a size, for example 100MB or 15GB.\n"
    assert capfd.readouterr().err == said
