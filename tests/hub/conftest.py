"""Google's own client against the hub, and a folder of each test's own in the suite's hub."""

from __future__ import annotations

import http.client
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build_from_document
from googleapiclient.discovery_cache import get_static_doc

from tests.conftest import RunningHub

FOLDER = "application/vnd.google-apps.folder"


def discovery_document() -> dict[str, Any]:
    return json.loads(get_static_doc("drive", "v3"))


def google_client(hub: RunningHub) -> Any:
    document = discovery_document()
    document["rootUrl"] = hub.url + "/"
    return build_from_document(document, credentials=Credentials(token=hub.token))


@dataclass(frozen=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The plain sentence of an error."""
        error = self.json()
        return error["error"]["message"] if "error" in error else error["message"]


def send(
    hub: RunningHub,
    method: str,
    target: str,
    body: bytes | str | None = None,
    headers: dict[str, str] | None = None,
    *,
    signed_in: bool = True,
) -> Reply:
    """One request as it stands, for what the official clients would never send."""
    connection = http.client.HTTPConnection(str(urlsplit(hub.url).netloc), timeout=30)
    given = {"Authorization": f"Bearer {hub.token}"} if signed_in else {}
    connection.request(method, target, body, {**given, **(headers or {})})
    response = connection.getresponse()
    reply = Reply(response.status, response.headers, response.read())
    connection.close()
    return reply


@pytest.fixture
def drive(hub: RunningHub) -> Any:
    return google_client(hub)


@pytest.fixture
def folder(drive: Any) -> str:
    """The id of a new folder in My Drive."""
    body = {"name": f"test {uuid.uuid4().hex}", "mimeType": FOLDER}
    return drive.files().create(body=body).execute()["id"]


@pytest.fixture
def place(hub: RunningHub, drive: Any, folder: str) -> Path:
    """Where that folder lies on disk."""
    return hub.my_drive / drive.files().get(fileId=folder).execute()["name"]
