"""Resumable uploads: what is asked, what is answered, and what outlives the hub."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import RunningHub, start_hub

from .conftest import Reply, google_client, send

UNIT = 256 * 1024


def begin(hub: RunningHub, body: str = '{"name": "big.bin"}', **headers: str) -> str:
    """Open a session; the path of its URI."""
    target = "/upload/drive/v3/files?uploadType=resumable&fields=id,size,md5Checksum"
    reply = send(hub, "POST", target, body, {"Content-Type": "application/json", **headers})
    assert reply.status == 200
    location = urlsplit(reply.headers["Location"])
    assert f"{location.scheme}://{location.netloc}" == hub.url
    return f"{location.path}?{location.query}"


def chunk(hub: RunningHub, session: str, span: str, body: bytes = b"", method: str = "PUT") -> Reply:
    return send(hub, method, session, body, {"Content-Range": f"bytes {span}"})


def test_nothing_received_is_answered_without_a_range(hub: RunningHub) -> None:
    reply = chunk(hub, begin(hub), "*/1000")
    assert reply.status == 308
    assert reply.headers["Range"] is None


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_chunks_add_up_to_the_file(hub: RunningHub, method: str) -> None:
    content = os.urandom(UNIT + 1000)
    session = begin(hub)
    first = chunk(hub, session, f"0-{UNIT - 1}/*", content[:UNIT], method)
    assert (first.status, first.headers["Range"]) == (308, f"bytes=0-{UNIT - 1}")
    last = chunk(hub, session, f"{UNIT}-{len(content) - 1}/{len(content)}", content[UNIT:], method)
    assert last.status == 200
    assert last.json()["md5Checksum"] == hashlib.md5(content).hexdigest()


def test_an_upload_of_unknown_length_is_no_file_before_its_total_is_named(hub: RunningHub, drive: Any) -> None:
    content = os.urandom(2 * UNIT)
    session = begin(hub, '{"name": "unknown length"}')
    chunk(hub, session, f"0-{2 * UNIT - 1}/*", content)
    asked = chunk(hub, session, "*/*")
    assert (asked.status, asked.headers["Range"]) == (308, f"bytes=0-{2 * UNIT - 1}")
    assert drive.files().list(q="name = 'unknown length'").execute()["files"] == []
    assert chunk(hub, session, f"*/{2 * UNIT}").json()["md5Checksum"] == hashlib.md5(content).hexdigest()


def test_the_whole_may_come_at_once(hub: RunningHub) -> None:
    reply = send(hub, "PUT", begin(hub), b"all of it")
    assert reply.json()["size"] == "9"


def test_asking_after_the_end_answers_the_file_again(hub: RunningHub) -> None:
    session = begin(hub)
    done = send(hub, "PUT", session, b"all of it")
    assert chunk(hub, session, "*/9").json() == done.json()


def test_bytes_sent_twice_are_taken_once(hub: RunningHub) -> None:
    content = os.urandom(2 * UNIT)
    session = begin(hub)
    chunk(hub, session, f"0-{UNIT - 1}/{len(content)}", content[:UNIT])
    reply = chunk(hub, session, f"0-{len(content) - 1}/{len(content)}", content)
    assert reply.json()["md5Checksum"] == hashlib.md5(content).hexdigest()


@pytest.mark.parametrize(
    ("span", "body"),
    [
        (f"{UNIT}-{2 * UNIT - 1}/*", b"x" * UNIT),
        ("0-999/*", b"x" * 1000),
        (f"0-{UNIT - 1}/*", b"x" * 1000),
        ("0-999/500", b"x" * 1000),
        ("5-4/10", b""),
        ("a-b/c", b"x"),
        ("0-9", b"x" * 10),
    ],
)
def test_a_chunk_that_does_not_fit_is_refused_and_stores_nothing(hub: RunningHub, span: str, body: bytes) -> None:
    session = begin(hub)
    assert chunk(hub, session, span, body).status == 400
    assert chunk(hub, session, "*/*").headers["Range"] is None


def test_a_length_that_was_announced_is_kept_to(hub: RunningHub) -> None:
    session = begin(hub, **{"X-Upload-Content-Length": "9"})
    assert send(hub, "PUT", session, b"ten bytes!").status == 400
    assert send(hub, "PUT", session, b"all of it").status == 200


def test_an_unknown_session_must_be_started_again(hub: RunningHub) -> None:
    assert chunk(hub, "/upload/drive/v3/files?uploadType=resumable&upload_id=nope", "*/9").status == 404


def test_a_session_needs_the_token(hub: RunningHub) -> None:
    assert send(hub, "PUT", begin(hub), b"x", signed_in=False).status == 401


def test_a_session_can_be_cancelled(hub: RunningHub) -> None:
    session = begin(hub)
    assert send(hub, "DELETE", session).status == 499
    assert chunk(hub, session, "*/9").status == 404


@pytest.mark.parametrize("body", ['{"parents": ["nowhere-to-be-found"]}', '{"name": ""}'])
def test_what_can_never_end_well_is_refused_before_any_byte(hub: RunningHub, body: str) -> None:
    target = "/upload/drive/v3/files?uploadType=resumable"
    assert send(hub, "POST", target, body, {"Content-Type": "application/json"}).status in (400, 404)


def test_a_body_that_breaks_off_keeps_what_arrived(hub: RunningHub) -> None:
    session = begin(hub)
    address = urlsplit(hub.url)
    head = f"PUT {session} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {hub.token}\r\n"
    head += f"Content-Range: bytes 0-{4 * UNIT - 1}/{4 * UNIT}\r\nContent-Length: {4 * UNIT}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + b"x" * 2 * UNIT)
        time.sleep(0.5)  # what is still on its way when the connection breaks may be lost
    assert chunk(hub, session, f"*/{4 * UNIT}").headers["Range"] == f"bytes=0-{2 * UNIT - 1}"
    rest = chunk(hub, session, f"{2 * UNIT}-{4 * UNIT - 1}/{4 * UNIT}", b"x" * 2 * UNIT)
    assert rest.json()["md5Checksum"] == hashlib.md5(b"x" * 4 * UNIT).hexdigest()


def test_an_upload_goes_on_after_the_hub_was_killed(tmp_path: Path) -> None:
    content = os.urandom(3 * UNIT + 5)
    hub = start_hub(tmp_path / "root")
    session = begin(hub)
    chunk(hub, session, f"0-{2 * UNIT - 1}/{len(content)}", content[: 2 * UNIT])
    hub.process.send_signal(signal.SIGKILL)
    hub.process.wait(60)
    again = start_hub(hub.root, hub.token)
    try:
        assert chunk(again, session, f"*/{len(content)}").headers["Range"] == f"bytes=0-{2 * UNIT - 1}"
        reply = chunk(again, session, f"{2 * UNIT}-{len(content) - 1}/{len(content)}", content[2 * UNIT :])
        assert reply.json()["md5Checksum"] == hashlib.md5(content).hexdigest()
        assert (again.my_drive / "big.bin").read_bytes() == content
    finally:
        again.process.terminate()
        again.process.wait(60)


def test_a_killed_hub_leaves_nothing_half_written_in_sight(tmp_path: Path) -> None:
    hub = start_hub(tmp_path / "root")
    address = urlsplit(hub.url)
    head = "POST /upload/drive/v3/files?uploadType=media HTTP/1.1\r\n"
    head += f"Host: {address.netloc}\r\nAuthorization: Bearer {hub.token}\r\nContent-Length: 9000000\r\n\r\n"
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + b"x" * 5_000_000)
        hub.process.send_signal(signal.SIGKILL)
        hub.process.wait(60)
    again = start_hub(hub.root, hub.token)
    try:
        assert list(again.my_drive.iterdir()) == []
        assert list((again.root / ".hub" / "incoming").iterdir()) == []
    finally:
        again.process.terminate()
        again.process.wait(60)


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_multipart_bodies_with_either_line_break(hub: RunningHub, drive: Any, line_break: str) -> None:
    content = b"first\r\n--edg\nlast\r\n"
    head = ["--edge", "Content-Type: application/json", "", '{"name": "multi"}']
    head += ["--edge", "Content-Type: text/plain", "", ""]
    body = line_break.join(head).encode() + content + f"{line_break}--edge--{line_break}".encode()
    headers = {"Content-Type": "multipart/related; boundary=edge"}
    file = send(hub, "POST", "/upload/drive/v3/files?uploadType=multipart", body, headers).json()
    assert drive.files().get_media(fileId=file["id"]).execute() == content


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/related", b""),
        ("multipart/related; boundary=e", b""),
        ("multipart/related; boundary=e", b"--e\n\n{}\n--e--\n"),
        ("multipart/related; boundary=e", b"--e\n\n{}\n--e\n\nnever ends"),
        ("multipart/related; boundary=e", b"--e\n\nno json\n--e\n\nx\n--e--\n"),
        ("multipart/related; boundary=e", b"--e\n" + b"x" * 1_000_000),
        ("application/json", b"{}"),
    ],
)
def test_a_broken_multipart_body_is_refused(hub: RunningHub, content_type: str, body: bytes) -> None:
    reply = send(hub, "POST", "/upload/drive/v3/files?uploadType=multipart", body, {"Content-Type": content_type})
    assert reply.status == 400


def test_the_token_of_a_restarted_hub_stays_good(tmp_path: Path) -> None:
    hub = start_hub(tmp_path / "root")
    file = google_client(hub).files().create(body={"name": "a"}).execute()
    hub.process.terminate()
    hub.process.wait(60)
    again = start_hub(hub.root, hub.token)
    try:
        assert google_client(again).files().get(fileId=file["id"]).execute()["name"] == "a"
    finally:
        again.process.terminate()
        again.process.wait(60)
