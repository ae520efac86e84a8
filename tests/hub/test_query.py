"""The language of `q`."""

from __future__ import annotations

from typing import Any

import pytest
from googleapiclient.errors import HttpError
from googleapiclient.http import MediaInMemoryUpload

from haversack.hub import query

from .conftest import FOLDER


@pytest.fixture(scope="module")
def library(request: pytest.FixtureRequest) -> Any:
    """Five files to look for; the client, and the folder's id."""
    from .conftest import google_client

    drive = google_client(request.getfixturevalue("shared_hub"))
    folder = drive.files().create(body={"name": "library", "mimeType": FOLDER}).execute()["id"]
    for name, mime, more in [
        ("Hello World.txt", "text/plain", {"starred": True}),
        ("it's.txt", "text/plain", {"modifiedTime": "2020-06-01T12:00:00.500Z"}),
        ("image.png", "image/png", {"appProperties": {"owner's": "haversack"}}),
        ("back\\slash", "application/octet-stream", {}),
    ]:
        body = {"name": name, "parents": [folder], "mimeType": mime, **more}
        drive.files().create(body=body, media_body=MediaInMemoryUpload(b"x", mime)).execute()
    drive.files().create(body={"name": "below", "mimeType": FOLDER, "parents": [folder]}).execute()
    return drive, folder


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("name = 'image.png'", {"image.png"}),
        ("name = 'IMAGE.PNG'", {"image.png"}),
        ("name = 'it\\'s.txt'", {"it's.txt"}),
        ("name = 'back\\\\slash'", {"back\\slash"}),
        ("name != 'image.png' and mimeType != 'text/plain'", {"back\\slash", "below"}),
        ("name contains 'hello'", {"Hello World.txt"}),
        ("name contains 'world'", {"Hello World.txt"}),
        ("name contains 'orld'", set()),
        ("mimeType contains 'image/'", {"image.png"}),
        (f"mimeType = '{FOLDER}'", {"below"}),
        ("starred = true", {"Hello World.txt"}),
        ("not starred = true and not mimeType = 'text/plain'", {"image.png", "back\\slash", "below"}),
        ("(name = 'image.png' or name = 'below') and trashed = false", {"image.png", "below"}),
        ("name = 'image.png' or name = 'below' and starred = true", {"image.png"}),
        ("modifiedTime < '2020-06-02T00:00:00'", {"it's.txt"}),
        ("modifiedTime = '2020-06-01T14:00:00.500+02:00'", {"it's.txt"}),
        ("modifiedTime >= '2020-06-01T12:00:00.501Z' and mimeType = 'text/plain'", {"Hello World.txt"}),
        ("createdTime > '2999-01-01T00:00:00Z'", set()),
        ("appProperties has { key='owner\\'s' and value='haversack' }", {"image.png"}),
        ("appProperties has { key='owner' and value='haversack' }", set()),
        ("sharedWithMe", set()),
        ("sharedWithMe = false and starred = true", {"Hello World.txt"}),
        ("trashed = true", set()),
        ("   trashed=false   and  name='below'  ", {"below"}),
    ],
)
def test_searching_a_folder(library: Any, q: str, expected: set[str]) -> None:
    drive, folder = library
    found = drive.files().list(q=f"'{folder}' in parents and ({q})").execute()["files"]
    assert {file["name"] for file in found} == expected


def test_searching_everywhere(library: Any) -> None:
    drive, _ = library
    found = drive.files().list(q="appProperties has { key='owner\\'s' and value='haversack' }").execute()["files"]
    assert [file["name"] for file in found] == ["image.png"]


def test_fifty_folders_in_one_query(library: Any) -> None:
    drive, folder = library
    others = " or ".join(f"'not-a-folder-{number}' in parents" for number in range(49))
    found = drive.files().list(q=f"('{folder}' in parents or {others}) and name = 'below'").execute()["files"]
    assert [file["name"] for file in found] == ["below"]


def test_a_folder_that_is_not_there_is_not_found(library: Any) -> None:
    with pytest.raises(HttpError, match="File not found"):
        library[0].files().list(q="'nowhere-to-be-found' in parents").execute()


@pytest.mark.parametrize(
    "q",
    [
        "name",
        "name =",
        "name = 'open",
        "name = unquoted",
        "name < 'a'",
        "(trashed = false",
        "trashed = false)",
        "trashed = maybe",
        "trashed = 'false'",
        "and trashed = false",
        "trashed = false or",
        "trashed = false trashed = false",
        "fullText contains 'x'",
        "'me' in owners",
        "modifiedTime > 'soon'",
        "appProperties has { key='k' }",
        "name = 'a'; DROP TABLE files",
        "'; --",
        "not " * 200 + "trashed = false",
        "(" * 200,
        "visibility = 'limited'",
    ],
)
def test_what_cannot_be_answered_is_refused(q: str) -> None:
    with pytest.raises(query.Refusal) as caught:
        query.parse(q, "root")
    assert caught.value.status == 400


def test_too_many_comparisons_are_refused() -> None:
    with pytest.raises(query.Refusal) as caught:
        query.parse(" or ".join(["trashed = false"] * 300), "root")
    assert caught.value.status == 413
