"""The only HTTP client: one pool per service, a timeout on every wait, retries by reason.

Google's and Kaggle's services, a hub, and signed storage behind them all answer through this module, and it alone
decides what is tried again (`answer.is_passing`). Waiting between tries follows "full jitter" (Marc Brooker, AWS
Architecture Blog, 2015) with `Retry-After` as the floor; how fast calls go at all is `pace`'s. A body that stands
still, in either direction, is given up after the read timeout. What signs in a server is sent to that server alone,
also when it sends a call elsewhere, and is renewed before it expires and once when it is refused.

Everything is a coroutine on fsspec's own loop thread; `wait` is the way in from ordinary code.
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

from haversack import pace, route, settings
from haversack.answer import Answer, error_of, is_passing
from haversack.credentials import Renewable, Server
from haversack.errors import ConnectionFailed, RateLimited, SignInError
from haversack.route import origin

__all__ = ["Answer", "Http", "error_of", "wait"]

T = TypeVar("T")

# A server that asks for a longer pause than this many seconds is not waited for; the caller hears of it instead.
_LONGEST_PAUSE = 120.0
# A quota by the minute is outlasted: refusals for the rate are borne longer than failures.
_MORE_PATIENCE = 5
_NETWORK_ERRORS = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, asyncio.TimeoutError)
# A download that stands still goes on with a range, so it is given up sooner than a call whose answer takes its time.
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
        future.cancel()  # an interrupt ends the work too, not only the waiting for it
        raise


_open: weakref.WeakSet[Http] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Connections are closed before the loop's thread goes with the process."""
    for http in list(_open):
        if http.is_of_running_loop():
            asyncio.run_coroutine_threadsafe(http.close(), get_loop()).result(5)


def _close_soon(session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop) -> None:
    """Close what a client that nobody has any more left open. Not waited for: any thread may come here."""
    if not session.closed and loop.is_running():
        loop.call_soon_threadsafe(lambda: loop.create_task(session.close()))


class Http:
    """Calls to one service.

    `attempts` counts every try of one call, the first included; `connect` and `read` are the longest waits in seconds
    for a connection and for the next bytes of a body, either way. The authorization goes to its own host only.
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
        # One for the ordinary way, and one for each SOCKS proxy, whose connections are made differently.
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
        again: bool | None = None,
        calls: int = 1,
    ) -> Answer:
        """One call, tried again while that can help; returns the whole answer.

        `url` is a path of the service or a whole URL. `data` as a function is called anew for each try. A status of 400
        or more raises what `error_of` says, unless `accept` names it; a redirect is handed back. `again` tells that the
        call may be repeated although it may have been carried out; by default every method but POST may. `calls` is
        what it counts for where the service limits the rate.
        """
        repeatable = method != "POST" if again is None else again
        tries = _Tries(self)
        while True:
            try:
                async with self._sent(method, url, params, json, data, headers, tries, calls) as response:
                    answer = Answer(response.status, response.headers, await response.read())
            except aiohttp.ClientConnectorError as error:
                await tries.after(error)
                continue
            except _NETWORK_ERRORS as error:
                await tries.after(error, repeatable)
                continue
            if answer.status < 400 or answer.status in accept:
                return answer
            await tries.after_answer(answer, repeatable)

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
        """The answer to one call with its body still to be read, for what does not fit in memory; follows redirects.

        Tried again only until the answer begins; who reads the body goes on with a range when it breaks off. `refused`
        is called whenever the server did not take the connection, or not the call for its load (429, 503).
        Raises as `request` does; a broken body raises `aiohttp.ClientError` or `TimeoutError`.
        """
        tries = _Tries(self)
        redirects = 0
        while True:
            sent = self._sent(method, url, params, None, None, headers, tries, waits=self.streaming)
            try:
                response = await sent.__aenter__()
            except _NETWORK_ERRORS as error:
                refused()
                await tries.after(error)
                continue
            try:
                if response.status in _REDIRECTS and "Location" in response.headers and redirects < _MOST_REDIRECTS:
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
            await tries.after_answer(answer, True)

    @property
    def tempo(self) -> pace.Pace:
        """The pace that this process keeps with the service."""
        return pace.of(self.server.url, self.server.quota)

    def pause_after(self, answer: Answer, attempt: int, repeatable: bool = True) -> float | None:
        """How many seconds to wait before the call that was answered so is tried again; None when it is not to be."""
        failure = error_of(answer, self.server.name)
        attempts = self.attempts + _MORE_PATIENCE * isinstance(failure, RateLimited) if self.attempts > 1 else 1
        if attempt >= attempts or not is_passing(failure, repeatable) or answer.retry_after > _LONGEST_PAUSE:
            return None
        return answer.retry_after + self.delay(attempt)

    def delay(self, attempt: int) -> float:
        """A random pause after that many tries, in seconds."""
        return random.uniform(0, min(self.longest_delay, self.first_delay * 2**attempt))

    def is_of_running_loop(self) -> bool:
        """Whether connections are open that belong to this process's loop thread."""
        return bool(self._sessions) and self._loop is get_loop()

    async def close(self) -> None:
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
        tries: _Tries,
        calls: int = 1,
        waits: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One try of a call, once it is its turn."""
        whole = url if "://" in url else self.server.url + url
        own = origin(whole) == origin(self.server.url)
        # Ranges and hashes are of the bytes themselves, so they are asked for as they are.
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        # encoded=True: a signed URL must arrive as it was signed.
        target = URL(whole, encoded=True) if params is None else URL(whole).update_query(params)
        proxy = route.proxy_for(whole)
        socks = proxy if proxy and proxy.is_socks else None
        by: dict[str, Any] = {"proxy": proxy.address, "proxy_headers": proxy.headers} if proxy and not socks else {}
        if proxy and by and target.scheme == "http":
            sent |= proxy.headers  # without TLS the proxy reads the call itself
        tempo = self.tempo if own else pace.of(f"{target.scheme}://{target.authority}")
        await tempo.turn(_kind(method, target), calls)
        if own and (authorization := await self._authorization(tries.refused)) is not None:
            tries.sent = sent.setdefault("Authorization", authorization)
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
                tempo.refused(Answer(429, response.headers).retry_after)
            elif response.status < 400:
                tempo.accepted()
            tries.tempo = tempo
            yield response

    def _pool(self, socks: route.Proxy | None) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # Another loop is that of a parent process: what it holds open stays its own.
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
        """A body in pieces, given up when the other side takes none for the length of the read timeout."""
        loop = asyncio.get_running_loop()
        pieces = _as_async(_sliced(body)) if isinstance(body, bytes) else body
        async for piece in pieces:
            limit.reschedule(loop.time() + self.read)
            yield piece
        # From here on the client's own timeout for the answer runs.
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


class _Tries:
    """The tries of one call: how many there were, and what to do after each."""

    def __init__(self, http: Http) -> None:
        self.http = http
        self.attempt = 0
        self.sent: str | None = None
        self.refused: str | None = None
        self.tempo: pace.Pace | None = None

    async def after(self, error: BaseException, repeatable: bool = True) -> None:
        """Pause after a failure of the network; raises `ConnectionFailed` instead when that was the last try."""
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
        """Pause after an answer that is an error, or raise that."""
        failure = error_of(answer, self.http.server.name)
        if isinstance(failure, SignInError) and self.sent and not self.refused and self.http.server.sign_in:
            self.refused = self.sent  # once: the next try renews the sign-in
            return
        self.attempt += 1
        if isinstance(failure, RateLimited) and answer.status != 429 and self.tempo is not None:
            self.tempo.refused(answer.retry_after)
        pause = self.http.pause_after(answer, self.attempt, repeatable)
        if pause is None:
            raise failure
        await asyncio.sleep(pause)


_renewals: weakref.WeakKeyDictionary[Renewable, asyncio.Task[None]] = weakref.WeakKeyDictionary()


async def _renewed(sign_in: Renewable, refused: str | None) -> None:
    """Renew a sign-in once for all who wait for it."""
    task = _renewals.get(sign_in)
    if task is None or task.done():
        http = Http(Server("sign-in service", sign_in.service, sign_in.source), attempts=4)
        loop = asyncio.get_running_loop()

        def ask(method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
            call = http.request(method, url, data=body, headers=headers, accept=tuple(range(400, 500)), again=True)
            return asyncio.run_coroutine_threadsafe(call, loop).result()

        task = _renewals[sign_in] = asyncio.ensure_future(asyncio.to_thread(sign_in.renew, ask, refused))
        task.add_done_callback(lambda _: loop.create_task(http.close()))
    # Shielded: others wait for it too.
    await asyncio.shield(task)


def _kind(method: str, url: URL) -> str:
    """The kind of a call of Drive, as `pace.KINDS` names it."""
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
