"""The only HTTP client: a connection pool for each service, a timeout on every wait, retries with backoff.

All requests to Google, Kaggle, hubs and the signed storage behind them go through this module, and it alone decides
what is retried: failures of the network and, by `answer.is_retryable`, rate limits and status 5xx. The pause before a
retry is exponential backoff with full jitter (Marc Brooker, AWS Architecture Blog, 2015) on top of `Retry-After`.
`rate_limit` decides how fast calls are sent at all. A body that makes no progress, in either direction, fails after the
read timeout. Authorization is sent to the server's own origin only, also after a redirect; it is renewed before it
expires, and once if it is refused.

Everything is a coroutine on fsspec's event loop, which runs in a thread of its own; `wait` calls it from other threads.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp
from fsspec.asyn import get_loop
from yarl import URL

from haversack import rate_limit, route, settings
from haversack.answer import Answer, error_of, is_retryable
from haversack.credentials import Renewable, Server
from haversack.errors import ConnectionFailed, RateLimited, RemoteError, SignInError
from haversack.route import origin

__all__ = ["Answer", "Http", "error_of", "wait"]

T = TypeVar("T")

# Seconds. If `Retry-After` asks for a longer pause, the error is raised instead of waiting.
_LONGEST_PAUSE = 120.0
# A rate limit gets more retries than a failure, so that a per-minute quota is outlasted.
_RATE_LIMIT_RETRIES = 5
_NETWORK_ERRORS = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, asyncio.TimeoutError)
# Seconds. A stalled download is resumed by a range request, so it fails sooner than a call that is slow to answer.
_STALL = 20.0
_PIECE = 1 << 20
_REDIRECTS = {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 5


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` on the event loop's thread, block until it ends, and return its result.

    Raises what the coroutine raises, and `RuntimeError` if called on the loop's own thread, which would wait for itself
    forever. An interrupt cancels the coroutine.
    """
    if asyncio._get_running_loop() is get_loop():
        coroutine.close()
        raise RuntimeError("wait() was called on the event loop's own thread: await the coroutine instead.")
    future = asyncio.run_coroutine_threadsafe(coroutine, get_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()  # an interrupt must end the work too, not only this wait
        raise


_open: weakref.WeakSet[Http] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close all connections while the loop's thread still runs."""
    for http in list(_open):
        if http.is_of_running_loop():
            asyncio.run_coroutine_threadsafe(http.close(), get_loop()).result(5)


def _close_soon(session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop) -> None:
    """Close the session of a garbage-collected client. Returns at once: the collector may run in any thread."""
    if not session.closed and loop.is_running():
        loop.call_soon_threadsafe(lambda: loop.create_task(session.close()))


class Http:
    """A client of one service, with a connection pool. Its coroutines run on fsspec's event loop only.

    Args:
        server: the service and its sign-in.
        attempts: the most requests per call, the first included; a rate limit gets 5 more, unless this is 1.
        connect, read: timeouts in seconds for a connection, and for the next bytes of a body, sent or received. A
            streamed body has a read timeout of at most 20 s.
        connections: the size of the connection pool.
        first_delay, longest_delay: the backoff in seconds: before its factor of 2 per attempt, and at most.
    """

    def __init__(
        self,
        server: Server,
        *,
        attempts: int = 7,
        connect: float = 10.0,
        read: float = 60.0,
        connections: int = 48,
        first_delay: float = 0.25,
        longest_delay: float = 32.0,
    ) -> None:
        self.server = server
        self.attempts = attempts
        self.read = read
        self.timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=read)
        self.streaming = aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=min(read, _STALL))
        self.connections = connections
        self.first_delay = first_delay
        self.longest_delay = longest_delay
        # One session for direct and HTTP-proxied connections (None), and one for each SOCKS proxy.
        self._sessions: dict[route.Proxy | None, aiohttp.ClientSession] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: Any = None,
        data: bytes | Callable[[], Any] | None = None,
        headers: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (),
        repeatable: bool | None = None,
        calls: int = 1,
    ) -> Answer:
        """Send one call, with retries, and return its whole answer. Redirects are returned, not followed.

        Args:
            method: the HTTP method.
            url: a path of the service, or a whole URL, which gets the sign-in only if it has the service's origin.
            params: added to the URL's query; None sends the URL exactly as it is.
            json: a value to send as a JSON body.
            data: the body, or a function that returns it, bytes or an async iterator of bytes, and is called for
                each attempt.
            headers: further headers; an `Authorization` among them replaces the sign-in's.
            accept: status codes of 400 or more that are returned instead of raised.
            repeatable: whether the call may be sent again although it may have been carried out; by default all but
                POST.
            calls: how many calls this one counts for in the rate limit.

        Raises the `RemoteError` or `SignInError` of `error_of` for an error answer, `ConnectionFailed` if there is no
        answer, and `InputError` if the proxy, `ca` or `quota` that is configured cannot be used.
        """
        repeatable = method != "POST" if repeatable is None else repeatable
        attempts = _Attempts(self)
        while True:
            try:
                async with self._sent(method, url, params, json, data, headers, attempts, calls) as response:
                    answer = Answer(response.status, response.headers, await response.read())
            except aiohttp.ClientConnectorError as error:
                await attempts.after(error)
                continue
            except _NETWORK_ERRORS as error:
                await attempts.after(error, repeatable)
                continue
            if answer.status < 400 or answer.status in accept:
                return answer
            await attempts.after_answer(answer, repeatable)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        refused: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one call, with retries, and yield the response with its body unread. Up to 5 redirects are followed.

        `method`, `url`, `params` and `headers` are as in `request`. Once the response is yielded, nothing is retried:
        if the body breaks off, the caller resumes it with a range request. `refused` is called for each attempt that
        fails by a network failure, 429 or 503.

        Raises the `RemoteError` or `SignInError` of `error_of` for an error answer, `RemoteError` for a sixth redirect,
        `ConnectionFailed` if there is no answer, and `InputError` if the proxy, `ca` or `quota` that is configured
        cannot be used. Reading the body raises `aiohttp.ClientError` or `TimeoutError`.
        """
        attempts = _Attempts(self)
        redirects = 0
        while True:
            sent = self._sent(method, url, params, None, None, headers, attempts, waits=self.streaming)
            try:
                response = await sent.__aenter__()
            except _NETWORK_ERRORS as error:
                refused()
                await attempts.after(error)
                continue
            try:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    if redirects == _MOST_REDIRECTS:
                        raise RemoteError(
                            f"{self.server.name} redirects more than {_MOST_REDIRECTS} times.",
                            "Try again later.",
                            status=response.status,
                        )
                    redirects += 1
                    url, params = urljoin(str(response.url), response.headers["Location"]), None
                    continue
                if response.status < 400:
                    yield response
                    return
                answer = Answer(response.status, response.headers, await response.read())
            finally:
                await sent.__aexit__(None, None, None)
            if answer.status in (429, 503):
                refused()
            await attempts.after_answer(answer, True)

    @property
    def rate_limiter(self) -> rate_limit.RateLimiter:
        """This process's rate limiter for the service. Raises `InputError` if the server's quota cannot be parsed."""
        return rate_limit.of(self.server.url, self.server.quota)

    def pause_after(self, answer: Answer, attempt: int, repeatable: bool = True) -> float | None:
        """Seconds to wait before the retry of a call that got the error `answer`; None if it must not be retried.

        `attempt` counts the attempts so far; `repeatable` as in `request`. None also if the attempts are used up or
        `Retry-After` is longer than 120 s.
        """
        failure = error_of(answer, self.server.name)
        attempts = self.attempts + _RATE_LIMIT_RETRIES * isinstance(failure, RateLimited) if self.attempts > 1 else 1
        if attempt >= attempts or not is_retryable(failure, repeatable) or answer.retry_after > _LONGEST_PAUSE:
            return None
        return answer.retry_after + self.delay(attempt)

    def delay(self, attempt: int) -> float:
        """The backoff after `attempt` attempts, in seconds.

        It is random, from 0 to `first_delay` times 2 to the power of `attempt`, but at most to `longest_delay`.
        """
        return random.uniform(0, min(self.longest_delay, self.first_delay * 2**attempt))

    def is_of_running_loop(self) -> bool:
        """Whether this client has open sessions on this process's event loop, not on that of a parent before a fork."""
        return bool(self._sessions) and self._loop is get_loop()

    async def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        while self._sessions:
            await self._sessions.popitem()[1].close()

    @asynccontextmanager
    async def _sent(
        self,
        method: str,
        url: str,
        params: Any,
        json: Any,
        data: Any,
        headers: Any,
        attempts: _Attempts,
        calls: int = 1,
        waits: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One attempt of a call, sent when the rate limit admits it."""
        whole = url if "://" in url else self.server.url + url
        own = origin(whole) == origin(self.server.url)
        # Ranges and hashes refer to the bytes themselves, so no content encoding is accepted.
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        # encoded=True: a signed URL must be sent exactly as it was signed.
        target = URL(whole, encoded=True) if params is None else URL(whole).update_query(params)
        proxy = route.proxy_for(whole)
        socks = proxy if proxy and proxy.is_socks else None
        by: dict[str, Any] = {"proxy": proxy.address, "proxy_headers": proxy.headers} if proxy and not socks else {}
        if proxy and by and target.scheme == "http":
            sent |= proxy.headers  # without TLS the proxy reads the request itself
        limiter = self.rate_limiter if own else rate_limit.of(f"{target.scheme}://{target.authority}")
        await limiter.acquire(_kind(method, target), calls)
        if own and (authorization := await self._authorization(attempts.refused)) is not None:
            attempts.sent = sent.setdefault("Authorization", authorization)
        body = data() if callable(data) else data
        if isinstance(body, bytes) and body:
            sent.setdefault("Content-Length", str(len(body)))
        async with asyncio.timeout(None) as limit:
            try:
                response = await self._pool(socks).request(
                    method,
                    target,
                    json=json,
                    data=self._watched(body, limit) if body else body,
                    headers=sent,
                    timeout=waits or self.timeout,
                    allow_redirects=False,
                    **by,
                )
            except route.socks_failures() as error:
                raise aiohttp.ClientConnectionError(f"by the proxy {socks}: {str(error).rstrip('.')}") from error
        async with response:
            if response.status == 429:
                limiter.refused(Answer(429, response.headers).retry_after)
            elif response.status < 400:
                limiter.accepted()
            attempts.limiter = limiter
            yield response

    def _pool(self, socks: route.Proxy | None) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # After a fork the old loop is the parent process's, and so are its connections.
            self._loop, self._sessions = loop, {}
        if socks not in self._sessions:
            _open.add(self)
            ca = settings.load().ca
            options: dict[str, Any] = {"limit": self.connections, "ssl": route.trust(str(ca)) if ca else True}
            connector = socks.connector(**options) if socks else aiohttp.TCPConnector(**options)
            session = aiohttp.ClientSession(connector=connector, timeout=self.timeout, auto_decompress=False)
            weakref.finalize(self, _close_soon, session, loop).atexit = False
            self._sessions[socks] = session
        return self._sessions[socks]

    async def _watched(self, body: Any, limit: asyncio.Timeout) -> AsyncIterator[Any]:
        """The body in pieces; `limit` expires if the server reads none of it for the read timeout."""
        loop = asyncio.get_running_loop()
        pieces = _as_async(_sliced(body)) if isinstance(body, bytes) else body
        async for piece in pieces:
            limit.reschedule(loop.time() + self.read)
            yield piece
        # From here on the session's own timeout for the answer applies.
        limit.reschedule(None)

    async def _authorization(self, refused: str | None) -> str | None:
        sign_in = self.server.sign_in
        if sign_in is None:
            return self.server.authorization
        header = sign_in.header()
        if header is None or header == refused:
            await _renewed(sign_in, refused)
            header = sign_in.header()
        return header


class _Attempts:
    """The attempts of one call of `http`: counts them, and pauses before a retry or raises the error.

    Attributes:
        attempt: the number of failed attempts.
        sent: the Authorization header of the last attempt; None if it had none.
        refused: the header that the server refused, so that the next attempt renews the sign-in; None if none was.
        limiter: the rate limiter of the last attempt that was answered.
    """

    def __init__(self, http: Http) -> None:
        self.http = http
        self.attempt = 0
        self.sent: str | None = None
        self.refused: str | None = None
        self.limiter: rate_limit.RateLimiter | None = None

    async def after(self, error: BaseException, repeatable: bool = True) -> None:
        """Pause after a network failure. Raises `ConnectionFailed` if no attempt is left or `repeatable` is false."""
        self.attempt += 1
        if repeatable and self.attempt < self.http.attempts:
            await asyncio.sleep(self.http.delay(self.attempt))
            return
        server = self.http.server
        number = getattr(error, "errno", None)
        why = os.strerror(number).lower() if number else str(error) or type(error).__name__
        raise ConnectionFailed(
            f"The {server.name} at {urlsplit(server.url).netloc} does not answer ({why}).",
            "Check that it runs and can be reached.",
        ) from error

    async def after_answer(self, answer: Answer, repeatable: bool) -> None:
        """Pause after an error answer if it can be retried, otherwise raise its error."""
        failure = error_of(answer, self.http.server.name)
        if isinstance(failure, SignInError) and self.sent and not self.refused and self.http.server.sign_in:
            self.refused = self.sent  # once: the next attempt renews the sign-in
            return
        self.attempt += 1
        if isinstance(failure, RateLimited) and answer.status != 429 and self.limiter is not None:
            self.limiter.refused(answer.retry_after)
        pause = self.http.pause_after(answer, self.attempt, repeatable)
        if pause is None:
            raise failure
        await asyncio.sleep(pause)


_renewals: weakref.WeakKeyDictionary[Renewable, asyncio.Task[None]] = weakref.WeakKeyDictionary()


async def _renewed(sign_in: Renewable, refused: str | None) -> None:
    """Renew a sign-in; concurrent callers share one renewal."""
    task = _renewals.get(sign_in)
    if task is None or task.done():
        http = Http(Server("sign-in service", sign_in.service, sign_in.source), attempts=4)
        loop = asyncio.get_running_loop()

        def ask(method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
            call = http.request(method, url, data=body, headers=headers, accept=tuple(range(400, 500)), repeatable=True)
            return asyncio.run_coroutine_threadsafe(call, loop).result()

        task = _renewals[sign_in] = asyncio.ensure_future(asyncio.to_thread(sign_in.renew, ask, refused))
        task.add_done_callback(lambda _: loop.create_task(http.close()))
    # Shielded: other callers wait for the same task.
    await asyncio.shield(task)


def _kind(method: str, url: URL) -> str:
    """The kind of a Drive call, one of `rate_limit.KINDS`."""
    if url.path.startswith("/batch/"):
        return "batch"
    if url.path.startswith("/upload/"):
        return "upload"
    if method != "GET":
        return "write"
    if url.query.get("alt") == "media":
        return "download"
    return "list" if url.path.endswith(("/files", "/changes")) else "get"


def _sliced(body: bytes) -> Iterator[memoryview]:
    view = memoryview(body)
    return (view[start : start + _PIECE] for start in range(0, len(view), _PIECE))


async def _as_async(pieces: Iterator[T]) -> AsyncIterator[T]:
    for piece in pieces:
        yield piece
