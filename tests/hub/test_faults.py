"""A bad network and a strict service, rehearsed."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from haversack.errors import InputError
from haversack.hub.faults import parse_fault_plan
from haversack.settings import parse_size
from tests.conftest import RunningHub, start_hub

from .conftest import Reply, google_client, send

ABOUT = "/drive/v3/about?fields=user"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningHub]]:
    """Starts a hub with options."""
    started: list[RunningHub] = []

    def begin(*options: str) -> RunningHub:
        started.append(start_hub(tmp_path / f"root{len(started)}", None, *options))
        return started[-1]

    yield begin
    for hub in started:
        hub.process.terminate()
    for hub in started:
        hub.process.wait(60)


def reasons(hub: RunningHub, count: int, target: str = ABOUT) -> Counter[str]:
    """How `count` calls were answered: ok, the reason of the error, or cut."""
    found: Counter[str] = Counter()
    for _ in range(count):
        try:
            found[reason(send(hub, "GET", target))] += 1
        except (http.client.HTTPException, ConnectionError):
            found["cut"] += 1
    return found


def reason(reply: Reply) -> str:
    return "ok" if reply.status == 200 else f"{reply.status} {reply.json()['error']['errors'][0]['reason']}"


def upload(hub: RunningHub, body: bytes, name: str = "a") -> Reply:
    target = "/upload/drive/v3/files?uploadType=resumable"
    location = send(hub, "POST", target, json.dumps({"name": name})).headers["Location"]
    return send(hub, "PUT", location.removeprefix(hub.url), body)


def test_calls_do_not_wait_for_one_another(start: Callable[..., RunningHub]) -> None:
    hub = start("--latency", "1s")
    started = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: send(hub, "GET", ABOUT), range(16)))
    took = time.monotonic() - started
    assert {reply.status for reply in replies} == {200}
    assert 1 <= took < 16


def test_bytes_come_no_faster_than_the_bandwidth(start: Callable[..., RunningHub]) -> None:
    hub = start("--bandwidth", "4MB")
    started = time.monotonic()
    file = upload(hub, b"x" * 2_000_000).json()["id"]
    assert time.monotonic() - started >= 0.45
    started = time.monotonic()
    assert len(send(hub, "GET", f"/drive/v3/files/{file}?alt=media").body) == 2_000_000
    assert time.monotonic() - started >= 0.45


def test_more_calls_than_the_limit_are_refused_by_either_reason(start: Callable[..., RunningHub]) -> None:
    found = reasons(start("--rate-limit", "5/min"), 9)
    assert found["ok"] == 1
    assert found["403 rateLimitExceeded"] == found["403 userRateLimitExceeded"] == 4


def test_calls_fail_as_often_as_asked_and_again_the_same(start: Callable[..., RunningHub]) -> None:
    options = ["--fail", "503:0.2", "--fail", "403.userRateLimitExceeded:0.2", "--fail", "cut:0.1", "--seed", "7"]
    first, second = reasons(start(*options), 200), reasons(start(*options), 200)
    assert first == second
    assert first["ok"] > first["503 backendError"] > 20
    assert first["403 userRateLimitExceeded"] > 20
    assert first["cut"] > 5


def test_429_tells_when_to_come_again(start: Callable[..., RunningHub]) -> None:
    reply = send(start("--fail", "429:1"), "GET", ABOUT)
    assert reply.status == 429
    assert reply.headers["Retry-After"] == "1"


def test_a_burst_refuses_so_many_calls_in_a_row(start: Callable[..., RunningHub]) -> None:
    hub = start("--fail", "429x5:0.1", "--seed", "4")
    refused = "".join("x" if send(hub, "GET", ABOUT).status == 429 else " " for _ in range(60))
    bursts = refused.strip("x").split()
    assert bursts
    assert min(map(len, bursts)) >= 5


def test_half_of_the_writes_that_fail_were_carried_out(start: Callable[..., RunningHub]) -> None:
    hub = start("--fail", "500:1")
    statuses = {send(hub, "POST", "/drive/v3/files", json.dumps({"name": str(number)})).status for number in range(20)}
    assert statuses == {500}
    assert 0 < len(list(hub.my_drive.iterdir())) < 20


def test_a_download_breaks_off_in_its_body(start: Callable[..., RunningHub]) -> None:
    hub = start("--fail", "cut:0.5", "--seed", "3")
    (hub.my_drive / "large").write_bytes(b"x" * 3_000_000)
    received = []
    for _ in range(12):
        try:
            q = send(hub, "GET", "/drive/v3/files").json()["files"][0]["id"]
            received.append(len(send(hub, "GET", f"/drive/v3/files/{q}?alt=media").body))
        except http.client.IncompleteRead as error:
            received.append(len(error.partial))
        except (http.client.HTTPException, ConnectionError):
            continue
    assert 3_000_000 in received
    assert any(200 < count < 3_000_000 for count in received)


def test_what_a_stalled_client_waits_for_holds_up_nobody_else(start: Callable[..., RunningHub]) -> None:
    hub = start("--fail", "stall:0.5", "--seed", "1")
    address = hub.url.removeprefix("http://")

    def ask(_: int) -> str:
        connection = http.client.HTTPConnection(address, timeout=1)
        try:
            connection.request("GET", ABOUT, headers={"Authorization": f"Bearer {hub.token}"})
            return f"{len(connection.getresponse().read())} bytes"
        except TimeoutError:
            return "stalled"
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        found = Counter(pool.map(ask, range(16)))
    assert found["stalled"] > 2
    assert sum(found.values()) - found["stalled"] > 2


def test_an_upload_that_was_cut_keeps_what_arrived(start: Callable[..., RunningHub]) -> None:
    hub = start("--fail", "cut:0.3", "--seed", "5")
    content = bytes(range(256)) * 8192
    location = ""
    while not location:
        try:
            target = "/upload/drive/v3/files?uploadType=resumable"
            location = send(hub, "POST", target, "{}").headers["Location"].removeprefix(hub.url)
        except (http.client.HTTPException, ConnectionError):
            continue
    offsets, done = [0], False
    while not done:
        try:
            reply = send(hub, "PUT", location, None, {"Content-Range": f"bytes */{len(content)}"})
            if reply.status == 308:
                offsets.append(int((reply.headers["Range"] or "bytes=0--1").split("-", 1)[1]) + 1)
                span = f"bytes {offsets[-1]}-{len(content) - 1}/{len(content)}"
                reply = send(hub, "PUT", location, content[offsets[-1] :], {"Content-Range": span})
            done = reply.status == 200
        except (http.client.HTTPException, ConnectionError):
            continue
    assert offsets == sorted(offsets)
    assert (hub.my_drive / "Untitled").read_bytes() == content


def test_the_calls_of_a_batch_fail_one_by_one(start: Callable[..., RunningHub]) -> None:
    drive: Any = google_client(start("--fail", "403.userRateLimitExceeded:0.5", "--seed", "2"))
    statuses: Counter[int] = Counter()

    def answered(key: str, answer: Any, error: Any) -> None:
        statuses[error.status_code if error else 200] += 1

    batch = drive.new_batch_http_request(callback=answered)
    for _ in range(40):
        batch.add(drive.files().get(fileId="root"))
    batch.execute()
    assert statuses[200] > 5
    assert statuses[403] > 5


def test_the_hubs_own_doors_stay_open(start: Callable[..., RunningHub]) -> None:
    assert send(start("--fail", "500:1"), "GET", "/haversack/kaggle.json").status == 200


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"latency": "20"}, "--latency does not accept '20'. Give a time, for example 20ms or 1.5s."),
        ({"bandwidth": "fast"}, "--bandwidth does not accept 'fast'. Give a size, for example 100MB or 15GB."),
        ({"rate_limit": "10"}, "--rate-limit does not accept '10'. Give calls per time, for example 10/s or 600/min."),
        ({"failures": ["500"]}, "--fail does not accept the kind '500'."),
        ({"failures": ["404:0.1"]}, "--fail does not accept the kind '404'."),
        ({"failures": ["403:0.1"]}, "--fail does not accept the kind '403'."),
        ({"failures": ["429x0:0.1"]}, "--fail does not accept the kind '429x0'."),
        ({"failures": ["cut:often"]}, "--fail does not accept the rate 'often'."),
        ({"failures": ["cut:1.5"]}, "--fail does not accept the rate '1.5'."),
        ({"failures": ["cut:nan"]}, "--fail does not accept the rate 'nan'."),
    ],
)
def test_what_cannot_be_meant_is_said_in_plain_words(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_fault_plan(**given)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(("text", "bytes_"), [("15GB", 15 * 10**9), ("1.5 MB", 1_500_000), ("2GiB", 2**31), ("9", 9)])
def test_sizes_are_read_as_people_write_them(text: str, bytes_: int) -> None:
    assert parse_size(text, "--quota") == bytes_
