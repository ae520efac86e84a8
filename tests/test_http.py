"""The HTTP client against a real server on loopback that answers as it is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from haversack.credentials import Server
from haversack.errors import (
    AlreadyExists,
    ConnectionFailed,
    Forbidden,
    NotFound,
    QuotaExceeded,
    RateLimited,
    RemoteError,
    SignInError,
)
from haversack.http import Answer, Http, error_of, wait


@dataclass
class Service:
    """Answers with `answers`, one after the other, the last again and again; remembers what it was sent."""

    answers: list[Callable[[web.Request], Awaitable[web.StreamResponse]]] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append({"method": request.method, "path": request.path_qs, **request.headers})
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)

    def http(self, **options: float) -> Http:
        return Http(Server("service", self.url, "a test", "Bearer secret"), first_delay=0.001, **options)  # type: ignore[arg-type]


@pytest.fixture
def service() -> Iterator[Service]:
    service, started, stopped = Service(), threading.Event(), threading.Event()

    async def main() -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", service.handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        await asyncio.to_thread(stopped.wait)
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert started.wait(10)
    yield service
    stopped.set()
    thread.join()


def says(status: int, text: str = "{}", **headers: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(
            status=status, text=text, headers={name.replace("_", "-"): headers[name] for name in headers}
        )

    return answer


async def hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hangs(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    return web.Response()


@pytest.mark.parametrize("passing", [says(503), says(500), says(429), hangs_up])
def test_what_passes_is_tried_again(service: Service, passing) -> None:  # type: ignore[no-untyped-def]
    service.answers = [passing, passing, says(200, '{"ok": true}')]
    assert wait(service.http().request("GET", "/x")).json() == {"ok": True}
    assert len(service.requests) == 3


@pytest.mark.parametrize("failing", [says(503), hangs_up])
def test_a_post_that_may_have_been_carried_out_is_not_repeated(service: Service, failing) -> None:  # type: ignore[no-untyped-def]
    service.answers = [failing, says(200)]
    with pytest.raises((RemoteError, ConnectionFailed)):
        wait(service.http().request("POST", "/x"))
    assert len(service.requests) == 1


def test_a_post_is_repeated_where_that_is_said_to_be_safe(service: Service) -> None:
    service.answers = [says(503), hangs_up, says(200)]
    assert wait(service.http().request("POST", "/x", again=True)).status == 200


def test_a_rate_limited_post_is_repeated(service: Service) -> None:
    service.answers = [says(429, Retry_After="0"), says(200)]
    assert wait(service.http().request("POST", "/x")).status == 200


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
def test_what_is_final_is_said_at_once(service: Service, status: int) -> None:
    service.answers = [says(status)]
    with pytest.raises((RemoteError, SignInError)):
        wait(service.http().request("GET", "/x"))
    assert len(service.requests) == 1


def test_a_very_long_pause_is_not_waited_for(service: Service) -> None:
    service.answers = [says(429, Retry_After="86400")]
    with pytest.raises(RateLimited):
        wait(service.http().request("GET", "/x"))


def test_a_silent_server_is_given_up(service: Service) -> None:
    service.answers = [hangs]
    with pytest.raises(ConnectionFailed, match="does not answer"):
        wait(service.http(attempts=2, read=0.1).request("GET", "/x"))
    assert len(service.requests) == 2


def test_nobody_listening_is_said_without_the_token() -> None:
    http = Http(Server("hub", "http://127.0.0.1:9", "a test", "Bearer secret"), attempts=1)
    with pytest.raises(ConnectionFailed) as raised:
        wait(http.request("GET", "/x"))
    assert "127.0.0.1:9" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_the_token_goes_to_its_own_server_only(service: Service) -> None:
    service.answers = [says(200)]
    http = Http(Server("elsewhere", "http://127.0.0.1:9", "a test", "Bearer secret"))
    wait(http.request("GET", f"{service.url}/signed?x=%2F"))
    wait(service.http().request("GET", "/x"))
    assert [request.get("Authorization") for request in service.requests] == [None, "Bearer secret"]
    assert service.requests[0]["path"] == "/signed?x=%2F"


def test_a_redirect_is_handed_back(service: Service) -> None:
    service.answers = [says(302, Location="http://127.0.0.1:9/elsewhere")]
    assert wait(service.http().request("GET", "/x")).headers["Location"] == "http://127.0.0.1:9/elsewhere"


def test_a_body_is_made_anew_for_each_try(service: Service) -> None:
    bodies: list[bytes] = []

    async def reads(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.read())
        return web.Response(status=503 if len(bodies) < 2 else 200)

    async def body():  # type: ignore[no-untyped-def]
        yield b"by"
        yield b"tes"

    service.answers = [reads]
    wait(service.http().request("PUT", "/x", data=lambda: body()))
    assert bodies == [b"bytes", b"bytes"]


def test_a_stream_is_begun_again_until_it_is_answered(service: Service) -> None:
    service.answers = [says(503), hangs_up, says(200, "bytes")]

    async def read() -> bytes:
        async with service.http().stream("GET", "/x") as response:
            return await response.read()

    assert wait(read()) == b"bytes"


def body_of(reason: str) -> bytes:
    return b'{"error": {"code": 403, "message": "No.", "errors": [{"reason": "%s"}]}}' % reason.encode()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, b"{}", SignInError),
        (403, b"{}", Forbidden),
        (403, body_of("rateLimitExceeded"), RateLimited),
        (403, body_of("userRateLimitExceeded"), RateLimited),
        (403, body_of("storageQuotaExceeded"), QuotaExceeded),
        (403, body_of("numChildrenInNonRootLimitExceeded"), QuotaExceeded),
        (404, b'{"code": 404, "message": "Not here"}', NotFound),
        (409, b"<html>", AlreadyExists),
        (429, b"", RateLimited),
        (500, b'["a list"]', RemoteError),
        (502, b"\xff\xfe", RemoteError),
        (400, b'{"error": "text"}', RemoteError),
    ],
)
def test_an_answer_becomes_the_error_it_means(status: int, body: bytes, error: type[Exception]) -> None:
    raised = error_of(Answer(status, {}, body), "service")
    assert type(raised) is error
    assert "service" in str(raised)


@pytest.mark.parametrize("body", [b"<html>\n<p>hello</p>", b"\xff\xfe", b'["a list"]'])
def test_what_is_no_answer_of_an_api_is_an_error(body: bytes) -> None:
    with pytest.raises(RemoteError, match="Check the address"):
        Answer(200, {}, body).json()


def test_a_web_page_is_not_shown_as_an_explanation() -> None:
    assert (
        str(error_of(Answer(501, {}, b"<html>\n<p>hello</p>"), "hub"))
        == "The hub answered 501: no explanation in plain words."
    )
