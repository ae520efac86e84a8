"""The log of calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from googleapiclient.http import MediaInMemoryUpload

from tests import calls
from tests.conftest import RunningHub, start_hub

from .conftest import google_client, send


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


@pytest.fixture
def logged(tmp_path: Path, log: Path) -> Iterator[RunningHub]:
    """A hub that writes `log`."""
    hub = start_hub(tmp_path / "root", "a-very-secret-token", "--log", str(log))
    yield hub
    hub.process.terminate()
    hub.process.wait(60)


def test_each_call_is_one_line_with_its_route_status_and_bytes(logged: RunningHub, log: Path) -> None:
    drive = google_client(logged)
    media = MediaInMemoryUpload(b"x" * 1000, "text/plain")
    file = drive.files().create(body={"name": "a"}, media_body=media).execute()["id"]
    reply = send(logged, "GET", f"/drive/v3/files/{file}?alt=media")
    send(logged, "GET", "/drive/v3/files/nowhere-to-be-found")
    send(logged, "GET", "/drive/v3/about?fields=user")
    found = [(line["route"], line["status"]) for line in calls.lines(log)]
    assert found == [("upload.multipart", 200), ("files.download", 200), ("files.get", 404), ("about.get", 200)]
    upload, download = calls.lines(log)[:2]
    assert upload["received"] > 1000
    assert download["sent"] == len(reply.body) == 1000


def test_a_batch_is_one_line_with_its_calls(logged: RunningHub, log: Path) -> None:
    drive: Any = google_client(logged)
    batch = drive.new_batch_http_request()
    batch.add(drive.files().list())
    batch.add(drive.files().get(fileId="root"))
    batch.add(drive.files().get(fileId="root"))
    batch.execute()
    (line,) = calls.lines(log)
    assert line["route"] == "batch"
    assert line["calls"] == {"files.list": 1, "files.get": 2}


def test_the_parts_of_a_resumable_upload_are_told_apart(logged: RunningHub, log: Path) -> None:
    media = MediaInMemoryUpload(b"x" * 600_000, "text/plain", chunksize=256 * 1024, resumable=True)
    google_client(logged).files().create(body={"name": "a"}, media_body=media).execute()
    assert calls.routes(log) == {"upload.begin": 1, "upload.chunk": 3}


def test_no_secret_and_no_name_is_written(logged: RunningHub, log: Path) -> None:
    drive = google_client(logged)
    drive.files().list(q="name = 'diary'").execute()
    send(logged, "GET", "/drive/v3/files?access_token=a-very-secret-token")
    location = send(logged, "POST", "/upload/drive/v3/files?uploadType=resumable", "{}").headers["Location"]
    send(logged, "PUT", location.removeprefix(logged.url), b"x")
    text = log.read_text()
    assert "diary" not in text
    assert "secret" not in text
    assert location.rpartition("=")[2] not in text


def test_a_log_that_cannot_be_written_is_said_in_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError, match="ended before"):
        start_hub(tmp_path / "root", "token", "--log", str(tmp_path / "not" / "there"))
    said = capfd.readouterr().err
    assert said.startswith("haversack: The log")
    assert said.count("\n") == 1
