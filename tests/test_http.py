"""The HTTP client against a real server on loopback that answers as it is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from haversack import route
from haversack.answer import Ask
from haversack.credentials import Server
from haversack.errors import (
    AlreadyExists,
    ConnectionFailed,
    Forbidden,
    InputError,
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
    assert started.wait(60)
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
    assert wait(service.http().request("POST", "/x", repeatable=True)).status == 200


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


def test_a_download_that_stands_still_ends_and_does_so_sooner(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stalls(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"some")
        await asyncio.sleep(3600)
        return response

    async def read() -> None:
        async with service.http().stream("GET", "/x") as response:
            await response.read()

    monkeypatch.setattr("haversack.http._STALL", 0.2)
    service.answers = [stalls]
    with pytest.raises(TimeoutError):
        wait(read())


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


async def stops_reading(request: web.Request) -> web.StreamResponse:
    await request.content.readany()
    await asyncio.sleep(3600)
    return web.Response()


def test_a_body_that_the_server_does_not_take_is_given_up(service: Service) -> None:
    service.answers = [stops_reading]
    with pytest.raises(ConnectionFailed, match="does not answer"):
        wait(service.http(attempts=1, read=0.3).request("PUT", "/x", data=bytes(64 << 20)))


def test_a_body_may_take_longer_than_the_timeout(service: Service) -> None:
    async def reads_slowly(request: web.Request) -> web.StreamResponse:
        size = 0
        async for piece in request.content.iter_chunked(1 << 20):
            size += len(piece)
            await asyncio.sleep(0.02)
        return web.json_response({"size": size, "length": request.content_length})

    service.answers = [reads_slowly]
    answer = wait(service.http(attempts=1, read=0.5).request("PUT", "/x", data=bytes(40 << 20)))
    assert answer.json() == {"size": 40 << 20, "length": 40 << 20}


def test_a_stream_follows_a_redirect_without_the_token(service: Service) -> None:
    other = service.url.replace("127.0.0.1", "localhost")
    service.answers = [
        says(302, Location=f"{other}/storage?signature=%2B"),
        says(307, Location="/there"),
        says(200, "x"),
    ]

    async def read() -> bytes:
        async with service.http().stream(
            "GET", "/x", params={"alt": "media"}, headers={"Range": "bytes=0-0"}
        ) as response:
            return await response.read()

    assert wait(read()) == b"x"
    assert [request["path"] for request in service.requests] == ["/x?alt=media", "/storage?signature=%2B", "/there"]
    assert [request.get("Authorization") for request in service.requests] == ["Bearer secret", None, None]
    assert [request["Range"] for request in service.requests] == ["bytes=0-0"] * 3


def test_redirects_in_a_circle_come_to_an_end(service: Service) -> None:
    service.answers = [says(302, Location="/x")]

    async def read() -> bytes:
        async with service.http().stream("GET", "/x") as response:
            return await response.read()

    with pytest.raises(RemoteError, match="redirects more than 5 times"):
        wait(read())
    assert len(service.requests) == 6


@dataclass(eq=False)
class Tokens:
    """A sign-in whose tokens are numbers; `valid` is the last that the server takes."""

    source: str = "a test"
    service: str = "http://127.0.0.1:9"
    token: int = 1
    renewals: int = 0

    def header(self) -> str | None:
        return f"Bearer {self.token}" if self.token else None

    def renew(self, ask: Ask, refused: str | None) -> None:
        if self.header() in (None, refused):
            self.renewals += 1
            self.token = 2


def only(token: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.02)
        return web.Response(status=200 if request.headers.get("Authorization") == f"Bearer {token}" else 401)

    return answer


@pytest.mark.parametrize("first", [0, 1])
def test_an_expired_sign_in_is_renewed_once_for_all_its_callers(service: Service, first: int) -> None:
    service.answers, tokens = [only("2")], Tokens(token=first)
    http = Http(Server("service", service.url, "a test", sign_in=tokens))

    async def many() -> list[Answer]:
        return await asyncio.gather(*(http.request("GET", f"/{number}") for number in range(50)))

    assert {answer.status for answer in wait(many())} == {200}
    assert tokens.renewals == 1


def test_a_renewed_sign_in_that_is_refused_is_not_renewed_for_ever(service: Service) -> None:
    service.answers, tokens = [only("3")], Tokens()
    with pytest.raises(SignInError):
        wait(Http(Server("service", service.url, "a test", sign_in=tokens)).request("GET", "/x"))
    assert len(service.requests) == 2


def test_a_renewable_token_goes_to_its_own_server_only(service: Service) -> None:
    service.answers = [says(200)]
    wait(Http(Server("elsewhere", "http://127.0.0.1:9", "a test", sign_in=Tokens())).request("GET", f"{service.url}/x"))
    assert service.requests[0].get("Authorization") is None


def test_a_proxy_is_taken_to_a_remote_server_and_never_to_this_machine(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, service.url.replace("://", "://user:pass@"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    service.answers = [says(200)]
    wait(service.http().request("GET", "/direct"))
    wait(Http(Server("remote", "http://drive.example", "a test", "Bearer secret")).request("GET", "/x"))
    direct, through = service.requests
    assert ("Proxy-Authorization" in direct, "Proxy-Authorization" in through) == (False, True)
    assert through["Host"] == "drive.example"


def test_a_host_named_in_no_proxy_is_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "drive.example")
    assert route.proxy_for("https://drive.example/x") is None
    assert route.proxy_for("https://other.example/x") == route.Proxy(URL("http://127.0.0.1:9"))


def test_a_file_without_certificates_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(InputError, match="holds no certificates"):
        route.trust(str(tmp_path / "ca.pem"))


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
    assert str(error_of(Answer(501, {}, b"<html>\n<p>hello</p>"), "hub")) == "The hub answered 501: no explanation."


def test_waiting_on_the_loops_own_thread_is_refused() -> None:
    async def inner() -> str:
        return "never"

    async def outer() -> str:
        return wait(inner())

    with pytest.raises(RuntimeError, match="await the coroutine"):
        wait(outer())
