"""The hub's server: the application, who may come in, and how long it lives.

It listens on the loopback interface only. A page in a browser on this machine could still send requests to it, so the
Host of each must be a name of this machine (against DNS rebinding), and an Origin must be the hub's own. Requests in
absolute form (`GET http://localhost/… HTTP/1.1`) are answered as well, since Kaggle's clients reach a hub through
`http_proxy`; nothing is ever fetched from anywhere else. Over TLS the hub answers to Google's names, too: see `proxy`.

The embedded default ends with its last user: each holds a lease, an open answer that the system closes when its process
dies, however it dies.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import signal
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web
from filelock import FileLock, Timeout

from haversack import disk
from haversack.errors import InputError
from haversack.hub.calls import CallLog
from haversack.hub.drive import DriveService
from haversack.hub.faults import FaultRehearsal, Faults
from haversack.hub.kaggle import Kaggle
from haversack.hub.media import Media
from haversack.hub.page.site import Site
from haversack.hub.proxy import GOOGLE, ConnectProxy
from haversack.hub.records import Records
from haversack.hub.refusal import Refusal, of_disk
from haversack.hub.shelf import Shelf
from haversack.hub.signin import KAGGLE_USERNAME, SignIn
from haversack.hub.tree import Tree
from haversack.hub.uploads import Uploads

_HOST = "127.0.0.1"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_UNUSED_AFTER = 2.0
_NEVER_USED_AFTER = 15.0
_LEASE_BEAT = 1.0
_WATCH_BEAT = 0.25
# At the end, what is being answered may go on so long; then it is broken off, and has as long to hear of it.
_LAST_ANSWERS = 0.5
_PREDECESSOR = 4.0
_THREADS = 32

_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def serve(
    root: Path,
    port: int,
    token: str,
    *,
    quota: int | None = None,
    rehearsal: FaultRehearsal | None = None,
    log: Path | None = None,
    tls: Path | None = None,
    state: Path | None = None,
    until_unused: bool = False,
) -> None:
    """Serve `root` until SIGTERM or SIGINT, and with `until_unused` until its last lease is gone.

    Args:
        root: the folder; `My Drive` and `kaggle` in it are what is served. Made when it is not there.
        port: on 127.0.0.1; 0 takes a free one.
        token: what clients sign in with.
        quota: how many bytes the drive may hold, its trash included; what the disk has room for when not given.
        rehearsal: faults that calls are to meet; none when not given.
        log: a file that gets one line for each call that was answered; see `calls`.
        tls: a folder for the hub's own authority; it then answers over TLS as well, and through a proxy.
        state: a file that tells address and sign-in, written (mode 600) once the hub answers.
        until_unused: end 2 s after the last lease was let go, or 15 s after the start if nobody took one.

    Raises `InputError` when the port is taken, the folder cannot be used or another hub serves it.
    """
    hub = Hub(root.absolute(), token, quota=quota, rehearsal=rehearsal, log=log)
    try:
        asyncio.run(hub.run(port, tls, state, until_unused))
    finally:
        hub.close()


class Hub:
    """The parts of one hub, and the leases on it."""

    def __init__(
        self,
        root: Path,
        token: str,
        *,
        quota: int | None = None,
        rehearsal: FaultRehearsal | None = None,
        log: Path | None = None,
    ) -> None:
        inside = root / ".hub"
        try:
            for folder in (inside, root / "My Drive", root / "kaggle"):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700 if folder == inside else 0o777)
        except OSError as error:
            raise InputError(f"The hub cannot use the folder {root} ({error.strerror}).", "Name another.") from error
        if (root / "My Drive").stat().st_dev != inside.stat().st_dev:
            raise InputError(f"{root / 'My Drive'} lies on another disk than {inside}.", "Put both on one.")
        # A hub that is just ending still holds it for a moment.
        self.lock = FileLock(inside / "lock")
        try:
            self.lock.acquire(timeout=_PREDECESSOR)
        except Timeout:
            raise InputError(f"Another hub serves {root}.", "Use that one, or name another folder.") from None
        self.root = root
        self.signin = SignIn(token)
        self.token = token
        self.records = Records(inside / "records.sqlite")
        uploads = Uploads(inside / "incoming", self.records)
        self.tree = Tree(root / "My Drive", inside, self.records, quota)
        self.ended = asyncio.Event()
        self.log = CallLog(log) if log else None
        self.faults = Faults(rehearsal, self.ended) if rehearsal else None
        self.media = Media(DriveService(self.tree, uploads.folder, self.signin), uploads, origin, self.faults)
        self.kaggle = Kaggle(Shelf(root / "kaggle", inside, self.records), uploads, self.signin, origin)
        self.site = Site(self.tree, self.kaggle.shelf, self.signin)
        self.leases = 0

    def application(self) -> web.Application:
        around = [_errors, _own_names]
        if self.log:
            around.insert(0, self.log.middleware)
        if self.faults:
            around.append(self.faults.middleware)
        app = web.Application(middlewares=around)
        signed_in = self._with_token
        app.router.add_get("/haversack/lease", signed_in(self.lease))
        app.router.add_get("/haversack/kaggle.json", signed_in(self.kaggle_json))
        app.router.add_route("*", "/drive/v3/{path:.+}", signed_in(self.media.call))
        app.router.add_route("*", "/upload/drive/v3/files", signed_in(self.media.upload))
        app.router.add_route("*", "/upload/drive/v3/files/{id}", signed_in(self.media.upload))
        app.router.add_post("/batch/drive/v3", signed_in(self.media.batch))
        app.router.add_get("/links/{id}", self.media.linked)
        self.kaggle.add_routes(app)
        self.site.add_routes(app)
        return app

    async def run(self, port: int, tls: Path | None, state: Path | None, until_unused: bool) -> None:
        loop, threads = asyncio.get_running_loop(), ThreadPoolExecutor(_THREADS)
        loop.set_default_executor(threads)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ended.set)
        runner = web.AppRunner(
            self.application(), access_log=None, shutdown_timeout=_LAST_ANSWERS, read_bufsize=1 << 20
        )
        await runner.setup()
        self.tree.watch.begin(contents=False)
        secured: dict[str, str] = {}
        proxy: asyncio.Server | None = None
        try:
            if tls is not None:
                secured, proxy = await _secure(runner, tls)
            url = await _listen(runner, port)
            if state is not None:
                self._tell(state, {"url": url, **secured})
            print(f"The hub serves {self.root} at {url}: the drive (My Drive) and Kaggle.", flush=True)
            if sys.stdout.isatty():
                print(f"Its page, for whoever opens this first: {self.site.one_time_address(url)}", flush=True)
            if secured:
                print(
                    f"Over TLS: {secured['tls_url']}, and for hosts of Google's through HTTPS_PROXY={secured['proxy']};"
                    f" clients are to trust {secured['ca']}.",
                    flush=True,
                )
            watch = asyncio.create_task(self._watch()) if until_unused else None
            await self.ended.wait()
            if watch is not None:
                watch.cancel()
        finally:
            if proxy is not None:
                proxy.close()
            await runner.cleanup()
            await _leave(threads)

    async def lease(self, request: web.Request) -> web.StreamResponse:
        """An answer that never ends, so that its client's death shows."""
        if self.ended.is_set():
            raise Refusal(503, "backendError", "The hub is ending; start another.")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        self.leases += 1
        try:
            while request.transport is not None and not self.ended.is_set():
                await response.write(b".")
                await self._pause(_LEASE_BEAT)
        finally:
            self.leases -= 1
        return response

    async def kaggle_json(self, request: web.Request) -> web.Response:
        """The file that Kaggle's clients sign in with, as Kaggle's own settings page gives it."""
        return web.json_response({"username": KAGGLE_USERNAME, "key": self.signin.kaggle_key})

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than the hub lives."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), seconds)

    def close(self) -> None:
        if self.log:
            self.log.close()
        self.tree.close()
        self.records.close()
        self.lock.release()

    async def _watch(self) -> None:
        """End the hub once nobody holds a lease."""
        loop = asyncio.get_running_loop()
        last, patience = loop.time(), _NEVER_USED_AFTER
        while loop.time() - last < patience:
            await self._pause(_WATCH_BEAT)
            if self.leases:
                last, patience = loop.time(), _UNUSED_AFTER
        self.ended.set()

    def _tell(self, state: Path, addresses: dict[str, str]) -> None:
        """Write address and sign-in where the one who started the hub waits for them; complete or absent."""
        told = {
            **addresses,
            "token": self.token,
            "kaggle_username": KAGGLE_USERNAME,
            "kaggle_key": self.signin.kaggle_key,
            "my_drive": str(self.tree.folder),
        }
        disk.write(state, json.dumps(told), private=True)

    def _with_token(self, handler: _Handler) -> _Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            if not (self.signin.opens_drive(request.headers.get("Authorization")) or self.site.is_signed_in(request)):
                raise Refusal(
                    401, "authError", "Invalid Credentials: the hub expects its bearer token.", where="Authorization"
                )
            return await handler(request)

        return checked


async def _leave(threads: ThreadPoolExecutor) -> None:
    """End what still goes on, but do not wait for it long.

    A thread may read or copy gigabytes that nobody waits for any more. The process then ends under it: a hub that is
    killed loses nothing, and the next clears up behind it.
    """
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    left = (await asyncio.wait(tasks, timeout=_LAST_ANSWERS))[1] if tasks else set()
    waiting = threading.Thread(target=threads.shutdown, kwargs={"cancel_futures": True}, daemon=True)
    waiting.start()
    waiting.join(_LAST_ANSWERS)
    if left or waiting.is_alive():
        sys.stdout.flush()
        os._exit(0)


async def _secure(runner: web.AppRunner, folder: Path) -> tuple[dict[str, str], asyncio.Server]:
    """Answer over TLS and through a proxy as well, on free ports; returns their addresses, what to trust, the proxy."""
    # Only here: `cryptography` would delay the start of every hub.
    from haversack.hub.authority import authority

    own = await asyncio.to_thread(authority, folder)
    context = await asyncio.to_thread(own.context)
    url = await _listen(runner, 0, context)
    server = runner.server
    assert server is not None
    proxy = await asyncio.get_running_loop().create_server(lambda: ConnectProxy(server, context), _HOST, 0)
    port = proxy.sockets[0].getsockname()[1]
    return {"tls_url": url, "proxy": f"http://{_HOST}:{port}", "ca": str(own.certificate)}, proxy


async def _listen(runner: web.AppRunner, port: int, context: ssl.SSLContext | None = None) -> str:
    """Listen on the loopback interface; returns the URL."""
    site = web.TCPSite(runner, _HOST, port, ssl_context=context)
    try:
        await site.start()
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        what = "is taken" if taken else f"cannot be used ({error})"
        raise InputError(f"Port {port} of {_HOST} {what}.", "Name another, or 0 for a free one.") from error
    return f"{'https' if context else 'http'}://{_HOST}:{runner.addresses[-1][1]}"


def origin(request: web.Request) -> str:
    """Scheme and host as the client named them, for links back to the hub."""
    return f"{request.scheme}://{request.headers.get('Host', _HOST)}"


@web.middleware
async def _own_names(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuse what was not sent to this machine by name, and what a foreign page sends."""
    if not _is_own(_host(request.headers.get("Host", "")), request) or not _is_own(request.url.host, request):
        raise Refusal(403, "forbidden", "The hub answers to localhost only.", where="Host")
    source = request.headers.get("Origin")
    if source is not None and source != origin(request):
        raise Refusal(403, "forbidden", "The hub does not answer to other pages.", where="Origin")
    return await handler(request)


def _is_own(host: str | None, request: web.Request) -> bool:
    """Whether a host is this machine; over TLS, where the client trusts the hub by that name, also Google's."""
    return host in _LOOPBACK or (host is not None and request.secure and f".{host}".endswith(f".{GOOGLE}"))


def _host(authority: str) -> str | None:
    try:
        return urlsplit(f"//{authority}").hostname
    except ValueError:
        return None


@web.middleware
async def _errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Every error as the JSON that its service would send."""
    try:
        return await handler(request)
    except Refusal as refusal:
        return _refused(request, refusal)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        if error.status == 404:
            return _refused(request, Refusal(501, "notImplemented", f"The hub does not know {request.path[:100]}."))
        return _refused(request, Refusal(error.status, "badRequest", f"{error.reason}."))
    except UnicodeEncodeError:
        return _refused(request, Refusal(400, "invalid", "A text of the call is not Unicode: it has a lone surrogate."))
    except ConnectionError:
        # The client is gone, or must be: an answer that has begun cannot be ended well.
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=499)
    except OSError as error:
        full = of_disk(error)
        return _broken(request) if full is None else _refused(request, full)
    except Exception:  # noqa: BLE001 - whatever goes wrong is logged, and the client is told
        return _broken(request)


def _broken(request: web.Request) -> web.Response:
    _log.exception("%s %s failed", request.method, request.path)
    message = f"The hub failed ({type(sys.exc_info()[1]).__name__}); its log says more."
    return _refused(request, Refusal(500, "internalError", message))


def _refused(request: web.Request, refusal: Refusal) -> web.Response:
    from_kaggle = request.path.startswith(("/api/", "/v1/", "/storage/", "/blobs/"))
    body = refusal.as_kaggle() if from_kaggle else refusal.as_google()
    headers = refusal.headers
    if refusal.status == 401 and not from_kaggle:
        headers["WWW-Authenticate"] = "Bearer"
    return web.json_response(body, status=refusal.status, headers=headers)
