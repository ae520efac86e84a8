"""A shared drive in My Drive's place. A hub has none: a folder of its stands in, and a proxy says what Google would."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from haversack import credentials
from haversack.drive.remote.api import DriveApi
from haversack.drive.tree import Drive
from haversack.http import wait
from tests.conftest import RunningHub
from tests.drive.conftest import Call, Proxy

OF_A_DRIVE = ("/drive/v3/files", "/drive/v3/changes", "/drive/v3/changes/startPageToken", "/drive/v3/files/trash")


@pytest.fixture
def shared(proxy: Proxy, hub: RunningHub, folder: str, tmp_path: Path) -> Drive:
    """A drive whose root is a folder that the proxy calls a shared drive."""
    server = credentials.drive()
    api = DriveApi(server)
    [root] = wait(api.lookup(wait(api.get("root")).id, folder))

    def answers(call: Call) -> web.Response | None:
        asked = URL(call.path)
        which = {"driveId": root.id}
        return web.json_response(which) if asked.query.get("fields") == "driveId" else None

    proxy.answers = answers
    # What the hub does not know does not reach it, in batches neither.
    proxy.passed_on = lambda url, body: (
        url.without_query_params("driveId", "corpora"),
        re.sub(rb"(?<=[?&])(driveId|corpora)=[^& ]*&?", b"", body),
    )
    proxy.calls.clear()
    return Drive(replace(server, root=root.id), tmp_path / "data", tmp_path / "cache")


def test_its_searches_and_changes_are_asked_for_by_its_id(shared: Drive, proxy: Proxy) -> None:
    shared.make_folder(("folder",))
    assert list(shared.listing(())) == ["folder"]
    shared.follower.refresh()
    asked = [URL(call.path) for call in proxy.calls if call.method == "GET"]
    of_drive = [url for url in asked if url.path in OF_A_DRIVE]
    assert {url.path for url in of_drive} >= {"/drive/v3/files", "/drive/v3/changes"}
    assert {url.query.get("driveId") for url in of_drive} == {shared.root.id}
    assert {url.query.get("corpora") for url in of_drive if url.path == "/drive/v3/files"} == {"drive"}
    assert {url.query.get("supportsAllDrives") for url in of_drive} == {"true"}


def test_which_it_is_is_asked_once_and_never_for_my_drive(shared: Drive, proxy: Proxy) -> None:
    shared.listing(())
    api = DriveApi(replace(shared.server, root="root"))
    wait(api.changes_token())
    assert sum("fields=driveId" in call.path for call in proxy.calls) == 2  # at the first contact, and by the drive
