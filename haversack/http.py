"""The only HTTP client: one pool per service, a timeout on every wait, retries by reason.

Google's and Kaggle's services, a hub, and signed storage behind them all answer through this module, and it alone
decides what is tried again (`_is_passing`) and which exception an answer becomes (`error_of`). Waiting between tries
follows "full jitter" (Marc Brooker, AWS Architecture Blog, 2015) with `Retry-After` as the floor.

Everything is a coroutine on fsspec's own loop thread; `wait` is the way in from ordinary code.
"""

from __future__ import annotations

import asyncio
import atexit
import json as jsonlib
import os
import random
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
from fsspec.asyn import get_loop
from yarl import URL

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

T = TypeVar("T")

# Reasons from https://developers.google.com/workspace/drive/api/guides/handle-errors
_RATE = {"rateLimitExceeded", "userRateLimitExceeded"}
_QUOTA = {
    "activeItemCreationLimitExceeded",
    "myDriveHierarchyDepthLimitExceeded",
    "numChildrenInNonRootLimitExceeded",
    "storageQuotaExceeded",
    "teamDriveFileLimitExceeded",
}
# A server that asks for a longer pause than this many seconds is not waited for; the caller hears of it instead.
_LONGEST_PAUSE = 120.0
_NETWORK_ERRORS = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, asyncio.TimeoutError)


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` on the loop thread and return what it returns. Not to be called from that thread."""
    future = asyncio.run_coroutine_threadsafe(coroutine, get_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()  # an interrupt ends the work too, not only the waiting for it
        raise


@dataclass(frozen=True)
class Answer:
    """A whole answer: status, headers, and the body's bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body's JSON object, {} for an empty body. Raises `RemoteError` where it is something else."""
        try:
            found = jsonlib.loads(self.body) if self.body else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RemoteError(
                "The server's answer is not one of its API.", "Check the address: another server may be there."
            )
        return found


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
    for a connection and between two reads. The service's authorization goes to its own host only.
    """

    def __init__(
        self,
        server: Server,
        *,
        attempts: int = 7,
        connect: float = 10.0,
        read: float = 60.0,
        connections: int = 32,
        first_delay: float = 0.25,
        longest_delay: float = 16.0,
    ) -> None:
        self.server = server
        self.attempts = attempts
        self.timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=read)
        self.connections = connections
        self.first_delay = first_delay
        self.longest_delay = longest_delay
        self._session: aiohttp.ClientSession | None = None
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
    ) -> Answer:
        """One call, tried again while that can help; returns the whole answer.

        `url` is a path of the service or a whole URL. `data` as a function is called anew for each try. A status of 400
        or more raises what `error_of` says, unless `accept` names it. `again` tells that the call may be repeated
        although it may have been carried out; by default every method but POST may.
        """
        repeatable = method != "POST" if again is None else again
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self._send(method, url, params, json, data, headers) as response:
                    answer = Answer(response.status, response.headers, await response.read())
            except aiohttp.ClientConnectorError as error:
                await self._pause_or_raise(attempt, error)
                continue
            except _NETWORK_ERRORS as error:
                await self._pause_or_raise(attempt if repeatable else self.attempts, error)
                continue
            if answer.status < 400 or answer.status in accept:
                return answer
            await self._pause_or_raise_answer(attempt, answer, repeatable)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to one call with its body still to be read, for what does not fit in memory.

        Tried again only until the answer begins; who reads the body goes on with a range when it breaks off.
        Raises as `request` does; a broken body raises `aiohttp.ClientError` or `TimeoutError`.
        """
        attempt = 0
        while True:
            attempt += 1
            sent = self._send(method, url, params, None, None, headers)
            try:
                response = await sent.__aenter__()
            except _NETWORK_ERRORS as error:
                await self._pause_or_raise(attempt, error)
                continue
            try:
                if response.status < 400:
                    yield response
                    return
                answer = Answer(response.status, response.headers, await response.read())
            finally:
                await sent.__aexit__(None, None, None)
            await self._pause_or_raise_answer(attempt, answer, True)

    def is_of_running_loop(self) -> bool:
        """Whether connections are open that belong to this process's loop thread."""
        return self._session is not None and self._loop is get_loop()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _send(self, method: str, url: str, params: Any, json: Any, data: Any, headers: Any) -> Any:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            # Another loop is that of a parent process: what it holds open stays its own.
            self._loop = loop
            _open.add(self)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.connections), timeout=self.timeout, auto_decompress=False
            )
            weakref.finalize(self, _close_soon, self._session, loop).atexit = False
        whole = url if "://" in url else self.server.url + url
        # Ranges and hashes are of the bytes themselves, so they are asked for as they are.
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        if self.server.authorization and _origin(whole) == _origin(self.server.url):
            sent.setdefault("Authorization", self.server.authorization)
        body = data() if callable(data) else data
        # encoded=True: a signed URL must arrive as it was signed.
        target = URL(whole, encoded=True) if params is None else URL(whole).update_query(params)
        return self._session.request(method, target, json=json, data=body, headers=sent, allow_redirects=False)

    async def _pause_or_raise(self, attempt: int, error: BaseException) -> None:
        if attempt < self.attempts:
            await asyncio.sleep(self._delay(attempt))
            return
        host = urlsplit(self.server.url).netloc
        number = getattr(error, "errno", None)
        why = os.strerror(number).lower() if number else str(error) or type(error).__name__
        raise ConnectionFailed(
            f"The {self.server.name} at {host} does not answer ({why}).", "Check that it runs and can be reached."
        ) from error

    def pause_after(self, answer: Answer, attempt: int, repeatable: bool = True) -> float | None:
        """How many seconds to wait before the call that was answered so is tried again; None when it is not to be."""
        said = answer.headers.get("Retry-After", "")
        floor = float(said) if said.isdigit() else 0.0
        passing = _is_passing(answer.status, error_of(answer, self.server.name), repeatable)
        if attempt >= self.attempts or not passing or floor > _LONGEST_PAUSE:
            return None
        return floor + self._delay(attempt)

    async def _pause_or_raise_answer(self, attempt: int, answer: Answer, repeatable: bool) -> None:
        pause = self.pause_after(answer, attempt, repeatable)
        if pause is None:
            raise error_of(answer, self.server.name)
        await asyncio.sleep(pause)

    def _delay(self, attempt: int) -> float:
        return random.uniform(0, min(self.longest_delay, self.first_delay * 2**attempt))


def error_of(answer: Answer, name: str) -> RemoteError | SignInError:
    """The exception for an answer that is an error, from its status and the reason in Google's or Kaggle's body."""
    message, reason = _message_and_reason(answer)
    said = f"The {name} answered {answer.status}: {message}."
    if answer.status == 401:
        return SignInError(f"The {name} refused the sign-in: {message}.", "Check HAVERSACK_TOKEN, or sign in anew.")
    if answer.status == 404:
        return NotFound(said, "Check the name; a private one needs its owner's sign-in.", status=404, reason=reason)
    if answer.status == 409:
        return AlreadyExists(said, "Choose another name.", status=409, reason=reason)
    if answer.status == 507 or reason in _QUOTA:
        return QuotaExceeded(said, "Free space on the drive, its trash included.", status=answer.status, reason=reason)
    if answer.status == 429 or reason in _RATE:
        return RateLimited(said, "Wait a minute and try again.", status=answer.status, reason=reason)
    if answer.status == 403:
        return Forbidden(said, "Ask its owner for access.", status=403, reason=reason)
    return RemoteError(said, status=answer.status, reason=reason)


def _message_and_reason(answer: Answer) -> tuple[str, str]:
    try:
        body = jsonlib.loads(answer.body or b"{}")
    except ValueError:
        text = " ".join(answer.body[:200].decode(errors="replace").split())
        return text if text and not text.startswith("<") else "no explanation in plain words", ""
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return str(error)[:200], ""
    reasons = [entry.get("reason", "") for entry in error.get("errors") or [] if isinstance(entry, dict)]
    return str(error.get("message") or "no explanation").rstrip("."), reasons[0] if reasons else ""


def _is_passing(status: int, failure: Exception, repeatable: bool) -> bool:
    """Whether the same call may succeed later. A rate limit was not carried out, so it may always be repeated."""
    if isinstance(failure, RateLimited):
        return True
    return repeatable and status >= 500 and not isinstance(failure, QuotaExceeded)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
