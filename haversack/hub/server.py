"""The hub's server: the application, its access checks and its lifetime.

It listens on the loopback interface only. A web page in a browser on this machine could still send requests to it, so
the Host of each request must be a name of this machine (against DNS rebinding), and an Origin must be the hub's own.
Requests in absolute form (`GET http://localhost/… HTTP/1.1`) are answered too, since Kaggle's clients reach a hub
through `http_proxy`; nothing is fetched from elsewhere. Over TLS the hub also answers to Google's host names: see
`proxy`.

The embedded hub ends after its last user: each user holds a lease, a response that never ends, whose connection the
system closes when the user's process dies.
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
from haversack.hub.datasets import DatasetStore
from haversack.hub.drive import DriveService
from haversack.hub.faults import FaultPlan, Faults
from haversack.hub.kaggle import KaggleService
from haversack.hub.media import Media
from haversack.hub.notebooks import NotebookStore
from haversack.hub.page.site import Site
from haversack.hub.proxy import GOOGLE_DOMAIN, ConnectProxy
from haversack.hub.records import Records
from haversack.hub.refusal import Refusal, from_os_error
from haversack.hub.signin import KAGGLE_USERNAME, SignIn
from haversack.hub.tree import Tree
from haversack.hub.uploads import Uploads

_HOST = "127.0.0.1"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_UNUSED_TIMEOUT = 2.0
_FIRST_LEASE_TIMEOUT = 15.0
_LEASE_INTERVAL = 1.0
_LEASE_CHECK_INTERVAL = 0.25
# Seconds for the calls in flight to finish; then they are cancelled and have as long to handle that.
_SHUTDOWN_TIMEOUT = 0.5
_LOCK_TIMEOUT = 4.0
_THREADS = 32

_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def serve(
    root: Path,
    port: int,
    token: str,
    *,
    quota: int | None = None,
    fault_plan: FaultPlan | None = None,
    log: Path | None = None,
    tls: Path | None = None,
    state: Path | None = None,
    until_unused: bool = False,
) -> None:
    """Serve `root` until SIGTERM or SIGINT, with `until_unused` also until the last lease ends.

    Args:
        root: the folder; its subfolders `My Drive` and `kaggle` are served. Created if it does not exist.
        port: the port on 127.0.0.1; 0 chooses a free one.
        token: the bearer token that clients sign in with.
        quota: the limit of the drive's files in bytes, the trash included; None for no limit but the disk's free space.
        fault_plan: faults to inject into calls.
        log: a file that gets a line per call; see `calls`.
        tls: a folder for the hub's certificate authority; the hub then serves TLS and a CONNECT proxy as well.
        state: a JSON file with addresses and credentials, written (mode 600) when the hub accepts requests.
        until_unused: end 2 s after the last lease ends, or 15 s after the start if there was none. A lease is a request
            to `/haversack/lease` that a client keeps open.

    Raises `InputError` if the port is in use, a folder, the database or the log cannot be used, or another hub serves
    `root`.
    """
    hub = Hub(root.absolute(), token, quota=quota, fault_plan=fault_plan, log=log)
    try:
        asyncio.run(hub.run(port, tls, state, until_unused))
    finally:
        hub.close()


class Hub:
    """One hub: the parts that share its database, and the number of leases that clients hold.

    Attributes:
        root: the folder that is served; `lock` is held on it.
        token: the bearer token.
        signin: checks credentials.
        records: the database.
        tree: the drive's files.
        media: the handlers of Drive v3.
        kaggle: the handlers of Kaggle's API.
        site: the handlers of the web page.
        log: the call log; None without one.
        faults: fault injection; None without one.
        ended: set when the hub shuts down.
        leases: how many leases are held.
    """

    def __init__(
        self,
        root: Path,
        token: str,
        *,
        quota: int | None = None,
        fault_plan: FaultPlan | None = None,
        log: Path | None = None,
    ) -> None:
        """Create the folders below `root`, lock it and open the database and the log.

        The arguments are described at `serve`. Raises `InputError` if another hub serves `root`, or a folder, the
        database or the log cannot be used.
        """
        inside = root / ".hub"
        try:
            for folder in (inside, root / "My Drive", root / "kaggle"):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700 if folder == inside else 0o777)
        except OSError as error:
            raise InputError(
                f"The hub cannot use the folder {root} ({error.strerror}).", "Choose another folder."
            ) from error
        if (root / "My Drive").stat().st_dev != inside.stat().st_dev:
            raise InputError(f"{root / 'My Drive'} and {inside} are on different file systems.", "Put both on one.")
        # A hub that is shutting down holds the lock for a moment longer.
        self.lock = FileLock(inside / "lock")
        try:
            self.lock.acquire(timeout=_LOCK_TIMEOUT)
        except Timeout:
            raise InputError(f"Another hub serves {root}.", "Use that hub, or choose another folder.") from None
        self.root = root
        self.signin = SignIn(token)
        self.token = token
        self.records = Records(inside / "records.sqlite")
        uploads = Uploads(inside / "incoming", self.records)
        self.tree = Tree(root / "My Drive", inside, self.records, quota)
        self.ended = asyncio.Event()
        self.log = CallLog(log) if log else None
        self.faults = Faults(fault_plan, self.ended) if fault_plan else None
        self.media = Media(DriveService(self.tree, uploads.folder, self.signin), uploads, origin, self.faults)
        stores = DatasetStore(root / "kaggle", inside, self.records), NotebookStore(root / "notebooks")
        self.kaggle = KaggleService(*stores, uploads, self.signin, origin)
        self.site = Site(self.tree, self.kaggle.store, self.signin)
        self.leases = 0

    def application(self) -> web.Application:
        """Return the aiohttp application with all routes and middlewares."""
        middlewares = [_errors_as_json, _check_host_and_origin]
        if self.log:
            middlewares.insert(0, self.log.middleware)
        if self.faults:
            middlewares.append(self.faults.middleware)
        app = web.Application(middlewares=middlewares)
        signed_in = self._require_sign_in
        app.router.add_get("/haversack/lease", signed_in(self.lease))
        app.router.add_get("/haversack/kaggle.json", signed_in(self.kaggle_json))
        app.router.add_route("*", "/drive/v3/{path:.+}", signed_in(self.media.call))
        app.router.add_route("*", "/upload/drive/v3/files", signed_in(self.media.upload))
        app.router.add_route("*", "/upload/drive/v3/files/{id}", signed_in(self.media.upload))
        app.router.add_post("/batch/drive/v3", signed_in(self.media.batch))
        app.router.add_get("/links/{id}", self.media.download_link)
        self.kaggle.add_routes(app)
        self.site.add_routes(app)
        return app

    async def run(self, port: int, tls: Path | None, state: Path | None, until_unused: bool) -> None:
        """Listen, write the state file, print the addresses, and serve until SIGTERM or SIGINT.

        Args:
            port: the port on 127.0.0.1; 0 chooses a free one.
            tls: a folder for the certificate authority, to serve TLS and the CONNECT proxy too; None for neither.
            state: the JSON file to write addresses and credentials to.
            until_unused: also end 2 s after the last lease ends, or 15 s after the start if there was none.

        Raises `InputError` if the port is in use or the authority cannot be stored. At the end, worker threads get some
        time to finish file operations; if one does not, the whole process exits instead of returning.
        """
        loop, threads = asyncio.get_running_loop(), ThreadPoolExecutor(_THREADS)
        loop.set_default_executor(threads)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ended.set)
        runner = web.AppRunner(
            self.application(), access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT, read_bufsize=1 << 20
        )
        await runner.setup()
        self.tree.watch.start(contents=False)
        tls_addresses: dict[str, str] = {}
        proxy: asyncio.Server | None = None
        try:
            if tls is not None:
                tls_addresses, proxy = await _listen_tls(runner, tls)
            url = await _listen(runner, port)
            if state is not None:
                self._write_state(state, {"url": url, **tls_addresses})
            print(f"The hub serves {self.root} at {url}: the drive (My Drive) and Kaggle.", flush=True)
            if sys.stdout.isatty():
                print(f"The web page (the link signs in once): {self.site.one_time_address(url)}", flush=True)
            if tls_addresses:
                print(
                    f"Over TLS: {tls_addresses['tls_url']}; under the names of Google's hosts through"
                    f" HTTPS_PROXY={tls_addresses['proxy']}. Clients must trust {tls_addresses['ca']}.",
                    flush=True,
                )
            lease_watch = asyncio.create_task(self._end_when_unused()) if until_unused else None
            await self.ended.wait()
            if lease_watch is not None:
                lease_watch.cancel()
        finally:
            if proxy is not None:
                proxy.close()
            await runner.cleanup()
            await _shut_down(threads)

    async def lease(self, request: web.Request) -> web.StreamResponse:
        """Hold a lease for the client: send a response that does not end while the hub lives, one byte per second.

        A broken connection ends the lease. Raises `Refusal` (503) if the hub is shutting down.
        """
        if self.ended.is_set():
            raise Refusal(503, "backendError", "The hub is shutting down; start another one.")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        self.leases += 1
        try:
            while request.transport is not None and not self.ended.is_set():
                await response.write(b".")
                await self._wait_unless_ended(_LEASE_INTERVAL)
        finally:
            self.leases -= 1
        return response

    async def kaggle_json(self, request: web.Request) -> web.Response:
        """Respond with `kaggle.json`: user name and key for Kaggle's clients, as Kaggle's settings page offers it."""
        return web.json_response({"username": KAGGLE_USERNAME, "key": self.signin.kaggle_key})

    async def _wait_unless_ended(self, seconds: float) -> None:
        """Wait for `seconds`, or until the hub ends."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), seconds)

    def close(self) -> None:
        """Close the log, the background rescan and the database, and release the lock on the folder."""
        if self.log:
            self.log.close()
        self.tree.close()
        self.records.close()
        self.lock.release()

    async def _end_when_unused(self) -> None:
        """End the hub when it has had no lease for 2 s, or for 15 s after the start."""
        loop = asyncio.get_running_loop()
        last, timeout = loop.time(), _FIRST_LEASE_TIMEOUT
        while loop.time() - last < timeout:
            await self._wait_unless_ended(_LEASE_CHECK_INTERVAL)
            if self.leases:
                last, timeout = loop.time(), _UNUSED_TIMEOUT
        self.ended.set()

    def _write_state(self, state: Path, addresses: dict[str, str]) -> None:
        """Write addresses and credentials atomically to the state file, which the hub's starter polls."""
        details = {
            **addresses,
            "token": self.token,
            "kaggle_username": KAGGLE_USERNAME,
            "kaggle_key": self.signin.kaggle_key,
            "my_drive": str(self.tree.folder),
        }
        disk.write(state, json.dumps(details), private=True)

    def _require_sign_in(self, handler: _Handler) -> _Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            if not (self.signin.opens_drive(request.headers.get("Authorization")) or self.site.is_signed_in(request)):
                raise Refusal(
                    401, "authError", "Invalid Credentials: the hub expects its bearer token.", where="Authorization"
                )
            return await handler(request)

        return checked


async def _shut_down(threads: ThreadPoolExecutor) -> None:
    """Cancel the remaining tasks and shut down the thread pool; exit the process if either takes more than 0.5 s.

    A thread may be reading or copying gigabytes for a client that is gone. Exiting under it is safe: the hub survives a
    SIGKILL, and the next start deletes what is left over.
    """
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    left = (await asyncio.wait(tasks, timeout=_SHUTDOWN_TIMEOUT))[1] if tasks else set()
    waiting = threading.Thread(target=threads.shutdown, kwargs={"cancel_futures": True}, daemon=True)
    waiting.start()
    waiting.join(_SHUTDOWN_TIMEOUT)
    if left or waiting.is_alive():
        sys.stdout.flush()
        os._exit(0)


async def _listen_tls(runner: web.AppRunner, folder: Path) -> tuple[dict[str, str], asyncio.Server]:
    """Serve TLS and the CONNECT proxy on free ports; return their addresses with the CA file, and the proxy."""
    # Imported late: `cryptography` would delay the start of every hub.
    from haversack.hub.authority import load_authority

    own = await asyncio.to_thread(load_authority, folder)
    context = await asyncio.to_thread(own.server_context)
    url = await _listen(runner, 0, context)
    server = runner.server
    assert server is not None
    proxy = await asyncio.get_running_loop().create_server(lambda: ConnectProxy(server, context), _HOST, 0)
    port = proxy.sockets[0].getsockname()[1]
    return {"tls_url": url, "proxy": f"http://{_HOST}:{port}", "ca": str(own.certificate)}, proxy


async def _listen(runner: web.AppRunner, port: int, context: ssl.SSLContext | None = None) -> str:
    """Listen on the loopback interface, and return the URL. Raises `InputError` if the port cannot be used."""
    site = web.TCPSite(runner, _HOST, port, ssl_context=context)
    try:
        await site.start()
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        what = "is in use" if taken else f"cannot be used ({error})"
        raise InputError(f"Port {port} of {_HOST} {what}.", "Choose another, or 0 for a free one.") from error
    return f"{'https' if context else 'http'}://{_HOST}:{runner.addresses[-1][1]}"


def origin(request: web.Request) -> str:
    """Return the scheme and host that the client used (`http://localhost:8000`), for links back to the hub."""
    return f"{request.scheme}://{request.headers.get('Host', _HOST)}"


@web.middleware
async def _check_host_and_origin(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuse requests whose Host is not this machine, and requests from pages of other origins."""
    if not _is_allowed_host(_host(request.headers.get("Host", "")), request) or not _is_allowed_host(
        request.url.host, request
    ):
        raise Refusal(403, "forbidden", "The hub answers to localhost only.", where="Host")
    source = request.headers.get("Origin")
    if source is not None and source != origin(request):
        raise Refusal(403, "forbidden", "The hub does not answer pages of other origins.", where="Origin")
    return await handler(request)


def _is_allowed_host(host: str | None, request: web.Request) -> bool:
    """Whether a host is this machine, or over TLS a host of Google's, which only a client that trusts the CA uses."""
    return host in _LOOPBACK or (host is not None and request.secure and f".{host}".endswith(f".{GOOGLE_DOMAIN}"))


def _host(authority: str) -> str | None:
    try:
        return urlsplit(f"//{authority}").hostname
    except ValueError:
        return None


@web.middleware
async def _errors_as_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Convert every error to the error response of the API that was called."""
    try:
        return await handler(request)
    except Refusal as refusal:
        return _error_response(request, refusal)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        if error.status == 404:
            return _error_response(
                request, Refusal(501, "notImplemented", f"The hub has no path {request.path[:100]}.")
            )
        return _error_response(request, Refusal(error.status, "badRequest", f"{error.reason}."))
    except UnicodeEncodeError:
        return _error_response(
            request, Refusal(400, "invalid", "A string in the request is not valid Unicode: it has a lone surrogate.")
        )
    except ConnectionError:
        # Either the client disconnected, or the response was cut short: drop the connection.
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=499)
    except OSError as error:
        full = from_os_error(error)
        return _internal_error(request) if full is None else _error_response(request, full)
    except Exception:  # noqa: BLE001 - every error is logged and answered with 500
        return _internal_error(request)


def _internal_error(request: web.Request) -> web.Response:
    _log.exception("%s %s failed", request.method, request.path)
    message = f"The hub failed ({type(sys.exc_info()[1]).__name__}); see its log."
    return _error_response(request, Refusal(500, "internalError", message))


def _error_response(request: web.Request, refusal: Refusal) -> web.Response:
    from_kaggle = request.path.startswith(("/api/", "/v1/", "/storage/", "/blobs/"))
    body = refusal.as_kaggle() if from_kaggle else refusal.as_google()
    headers = refusal.headers
    if refusal.status == 401 and not from_kaggle:
        headers["WWW-Authenticate"] = "Bearer"
    return web.json_response(body, status=refusal.status, headers=headers)
