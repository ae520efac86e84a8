"""The page for people, as a browser talks to it: who may come in, and what is sent of users' files."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from haversack.hub.page.sessions import HubSessions
from tests.conftest import RunningHub

from .conftest import Reply, send


@dataclass(frozen=True)
class Visitor:
    """What a browser holds after sign-in."""

    hub: RunningHub
    cookie: str
    key: str

    def send(self, method: str, target: str, body: Any = None, **headers: str) -> Reply:
        given = {"Cookie": self.cookie, "X-Haversack-Key": self.key, "Origin": self.hub.url, **headers}
        return send(self.hub, method, target, None if body is None else json.dumps(body), given, signed_in=False)

    def links(self, file_id: str) -> dict[str, str]:
        return self.send("POST", "/page/links", {"ids": [file_id]}).json()["links"].get(file_id, {})


def post(hub: RunningHub, proof: dict[str, Any]) -> Reply:
    return send(hub, "POST", "/page/session", json.dumps(proof), {"Origin": hub.url}, signed_in=False)


@pytest.fixture
def visitor(hub: RunningHub) -> Visitor:
    reply = post(hub, {"token": hub.token})
    return Visitor(hub, reply.headers["Set-Cookie"].split(";")[0], reply.json()["key"])


def id_of(drive: Any, folder: str, name: str) -> str:
    found = drive.files().list(q=f"'{folder}' in parents and name = '{name}'").execute()["files"]
    return found[0]["id"]


def png(width: int, height: int) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (width, height), "olive").save(target, "PNG")
    return target.getvalue()


def bomb() -> bytes:
    """The head of a PNG of 100,000 by 100,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def test_the_page_itself_is_for_everyone_and_takes_nothing_from_elsewhere(hub: RunningHub) -> None:
    reply = send(hub, "GET", "/", signed_in=False)
    assert reply.status == 200
    assert b"<script>" not in reply.body
    assert b"https://" not in reply.body
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_the_pages_own_files_are_all_there_and_nothing_else(hub: RunningHub) -> None:
    index = send(hub, "GET", "/", signed_in=False).body.decode()
    for name in ("app.js", "page.css", "icon.svg"):
        assert f"/page/static/{name}" in index
        reply = send(hub, "GET", f"/page/static/{name}", signed_in=False)
        assert reply.status == 200
        again = send(hub, "GET", f"/page/static/{name}", headers={"If-None-Match": reply.headers["ETag"]})
        assert (again.status, again.body) == (304, b"")
    for name in ("nothing.js", "..%2Fsite.py", "../site.py"):
        assert send(hub, "GET", f"/page/static/{name}", signed_in=False).status in (404, 501)


@pytest.mark.parametrize("proof", [{}, {"token": "wrong"}, {"token": None}, {"code": "x"}, {"token": ["x"]}])
def test_without_the_token_there_is_no_session(hub: RunningHub, proof: dict[str, Any]) -> None:
    reply = post(hub, proof)
    assert reply.status == 401
    assert reply.headers["Set-Cookie"] is None


def test_scripts_cannot_read_the_cookie_and_other_sites_do_not_send_it(hub: RunningHub) -> None:
    reply = post(hub, {"token": hub.token})
    cookie = next(iter(SimpleCookie(reply.headers["Set-Cookie"]).values()))
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"
    assert hub.token not in reply.headers["Set-Cookie"] + reply.body.decode()


def test_cookie_and_key_open_the_drive_together_only(visitor: Visitor) -> None:
    assert visitor.send("GET", "/drive/v3/files").status == 200
    assert visitor.send("GET", "/drive/v3/files", Cookie="").status == 401
    assert visitor.send("GET", "/drive/v3/files", **{"X-Haversack-Key": "x"}).status == 401
    assert (
        send(visitor.hub, "GET", "/drive/v3/files", headers={"Cookie": visitor.cookie}, signed_in=False).status == 401
    )
    other = post(visitor.hub, {"token": visitor.hub.token}).json()["key"]
    assert visitor.send("GET", "/drive/v3/files", **{"X-Haversack-Key": other}).status == 401


def test_a_foreign_page_is_refused_with_cookie_and_key_too(visitor: Visitor) -> None:
    assert visitor.send("PATCH", "/drive/v3/files/root", {}, Origin="http://127.0.0.1:9").status == 403


def test_who_signed_out_is_out(visitor: Visitor) -> None:
    assert visitor.send("DELETE", "/page/session").status == 204
    assert visitor.send("GET", "/drive/v3/files").status == 401


def test_a_code_signs_in_once() -> None:
    sessions = HubSessions()
    code = sessions.new_code()
    assert not sessions.redeem(code + "x")
    assert sessions.redeem(code)
    assert not sessions.redeem(code)


def test_a_new_code_makes_the_one_before_it_void() -> None:
    sessions = HubSessions()
    first, second = sessions.new_code(), sessions.new_code()
    assert not sessions.redeem(first)
    assert sessions.redeem(second)


def test_a_session_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haversack.hub.page.sessions.LIFETIME", -1)
    sessions = HubSessions()
    session = sessions.open()
    assert not sessions.has(session.cookie, session.key)


def test_very_many_sessions_push_out_the_oldest() -> None:
    sessions = HubSessions()
    opened = [sessions.open() for _ in range(1001)]
    assert not sessions.has(opened[0].cookie, opened[0].key)
    assert sessions.has(opened[-1].cookie, opened[-1].key)


def test_a_download_is_an_attachment_that_no_browser_runs(
    visitor: Visitor, drive: Any, folder: str, place: Path
) -> None:
    (place / "page.html").write_text("<script>alert(1)</script>")
    link = visitor.links(id_of(drive, folder, "page.html"))["download"]
    reply = send(visitor.hub, "GET", link, signed_in=False)
    assert reply.body == b"<script>alert(1)</script>"
    assert reply.headers["Content-Disposition"].startswith("attachment")
    assert "sandbox" in reply.headers["Content-Security-Policy"]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_a_download_goes_on_in_the_middle(visitor: Visitor, drive: Any, folder: str, place: Path) -> None:
    (place / "a.bin").write_bytes(bytes(100))
    link = visitor.links(id_of(drive, folder, "a.bin"))["download"]
    reply = send(visitor.hub, "GET", link, headers={"Range": "bytes=90-"}, signed_in=False)
    assert (reply.status, len(reply.body)) == (206, 10)


def test_links_need_a_sign_in_and_fit_one_file(visitor: Visitor, drive: Any, folder: str, place: Path) -> None:
    (place / "a").write_text("a")
    (place / "b").write_text("b")
    a, b = id_of(drive, folder, "a"), id_of(drive, folder, "b")
    assert send(visitor.hub, "POST", "/page/links", json.dumps({"ids": [a]}), signed_in=False).status == 401
    link = visitor.links(a)["download"]
    assert send(visitor.hub, "GET", link.split("?")[0], signed_in=False).status == 403
    assert send(visitor.hub, "GET", link.replace(a, b), signed_in=False).status == 403
    assert send(visitor.hub, "GET", link.replace("expires=", "expires=9"), signed_in=False).status == 403
    assert visitor.links(folder) == {}
    assert visitor.links("no-such-file") == {}


def test_a_link_is_about_the_bytes_it_was_made_for(visitor: Visitor, drive: Any, folder: str, place: Path) -> None:
    (place / "a").write_text("before")
    link = visitor.links(id_of(drive, folder, "a"))["download"]
    (place / "a").write_text("after it")
    assert send(visitor.hub, "GET", link, signed_in=False).status == 404


@pytest.mark.parametrize("body", [None, [], {"ids": "x"}, {"ids": [1]}, {"ids": ["x"] * 501}])
def test_a_call_for_links_that_is_none_is_refused(visitor: Visitor, body: Any) -> None:
    assert visitor.send("POST", "/page/links", body).status == 400


def test_a_picture_is_shown_and_has_a_thumbnail(visitor: Visitor, drive: Any, folder: str, place: Path) -> None:
    (place / "a.png").write_bytes(png(1200, 600))
    links = visitor.links(id_of(drive, folder, "a.png"))
    shown = send(visitor.hub, "GET", links["view"], signed_in=False)
    assert (shown.body, shown.headers["Content-Type"]) == (png(1200, 600), "image/png")
    small = send(visitor.hub, "GET", links["thumbnail"], signed_in=False)
    assert Image.open(io.BytesIO(small.body)).size == (400, 200)
    assert "sandbox" in small.headers["Content-Security-Policy"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "F", "CMYK"])
def test_pictures_of_every_kind_of_pixel_are_shown(
    visitor: Visitor, drive: Any, folder: str, place: Path, mode: str
) -> None:
    Image.new(mode, (40, 30)).save(place / "a.tif")
    links = visitor.links(id_of(drive, folder, "a.tif"))
    for kind in ("view", "thumbnail"):
        reply = send(visitor.hub, "GET", links[kind], signed_in=False)
        assert reply.status == 200
        assert Image.open(io.BytesIO(reply.body)).size == (40, 30)


@pytest.mark.parametrize("content", [b"<html><script>alert(1)</script>", b"", bomb()])
def test_what_only_calls_itself_a_picture_is_not_shown(
    visitor: Visitor, drive: Any, folder: str, place: Path, content: bytes
) -> None:
    (place / "a.png").write_bytes(content)
    links = visitor.links(id_of(drive, folder, "a.png"))
    assert send(visitor.hub, "GET", links["thumbnail"], signed_in=False).status == 415
    shown = send(visitor.hub, "GET", links["view"], signed_in=False)
    assert shown.headers["Content-Type"].partition(";")[0] in ("image/png", "application/json")


def test_a_drawing_that_can_hold_scripts_is_downloaded_only(
    visitor: Visitor, drive: Any, folder: str, place: Path
) -> None:
    (place / "a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    assert set(visitor.links(id_of(drive, folder, "a.svg"))) == {"download"}


def test_a_document_is_downloaded_as_its_text_and_a_shortcut_not_at_all(
    visitor: Visitor, drive: Any, folder: str, place: Path
) -> None:
    (place / "cells.gsheet").write_text("a,b\n1,2\n")
    sheet = id_of(drive, folder, "cells")
    reply = send(visitor.hub, "GET", visitor.links(sheet)["download"], signed_in=False)
    assert reply.body == b"a,b\n1,2\n"
    assert "cells.csv" in reply.headers["Content-Disposition"]
    body = {"name": "to it", "mimeType": "application/vnd.google-apps.shortcut", "parents": [folder]}
    shortcut = drive.files().create(body={**body, "shortcutDetails": {"targetId": sheet}}).execute()["id"]
    assert visitor.links(shortcut) == {}


def test_data_sets_are_listed_with_a_link_to_each(visitor: Visitor, tmp_path: Path) -> None:
    from haversack.datasets.publication import put

    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.csv").write_text("a,b\n")
    name = f"page-{os.urandom(4).hex()}"
    put(tmp_path / "set", f"kaggle:me/{name}", title="<b>Mine</b>")
    assert send(visitor.hub, "GET", "/page/datasets", signed_in=False).status == 401
    sets = visitor.send("GET", "/page/datasets").json()["datasets"]
    mine = next(one for one in sets if one["ref"] == f"me/{name}")
    assert (mine["title"], mine["version"]) == ("<b>Mine</b>", 1)
    assert send(visitor.hub, "GET", mine["download"], signed_in=False).body.startswith(b"PK")
