"""A drive on a real hub, seen through a proxy of the tests' own that counts calls, and stalls them when told."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from haversack.drive.filesystem import DriveFileSystem
from haversack.drive.fuse import mount as mounting
from haversack.drive.fuse import registry
from haversack.drive.fuse.mountpoint import clear_stale
from tests.conftest import RunningHub, start_hub


@dataclass
class Call:
    method: str
    path: str
    range: str
    size: int


@dataclass
class Proxy:
    """A reverse proxy before a hub. `stalls` says which calls wait until `release` is set; `full` refuses uploads.

    `answers` may answer a call in the hub's place.

    `passed_on` may change a call's address and body on its way to the hub.

    `rewrite` gets the body of each answer that is JSON, and gives the one that is passed on.
    """

    target: str
    url: str = ""
    calls: list[Call] = field(default_factory=list)
    stalls: Callable[[Call], bool] = lambda call: False
    stalled: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    full: bool = False
    answers: Callable[[Call], web.Response | None] = lambda call: None
    passed_on: Callable[[URL, bytes], tuple[URL, bytes]] = lambda url, body: (url, body)
    rewrite: Callable[[bytes], bytes] = lambda body: body

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        call = Call(request.method, request.path_qs, request.headers.get("Content-Range", ""), len(body))
        self.calls.append(call)
        if self.stalls(call):
            self.stalled.set()
            await asyncio.to_thread(self.release.wait)
        if self.full and "/upload/" in call.path:
            reason = {"domain": "usageLimits", "reason": "storageQuotaExceeded", "message": "The drive is full."}
            error = {"code": 403, "message": "The drive is full.", "errors": [reason]}
            return web.json_response({"error": error}, status=403)
        if (answer := self.answers(call)) is not None:
            return answer
        url, body = self.passed_on(request.rel_url, body)
        headers = {name: value for name, value in request.headers.items() if name != "Content-Length"}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method,
                self.target + str(url),
                data=body,
                headers=headers,
                allow_redirects=False,
            ) as answered,
        ):
            framing = ("Transfer-Encoding", "Content-Length")
            headers = {name: value for name, value in answered.headers.items() if name not in framing}
            content = await answered.read()
            if answered.content_type == "application/json":
                content = self.rewrite(content)
            return web.Response(status=answered.status, headers=headers, body=content)

    def serve(self, started: threading.Event, stopped: threading.Event) -> None:
        async def main() -> None:
            application = web.Application(client_max_size=1 << 30)
            application.router.add_route("*", "/{path:.*}", self.handle)
            runner = web.AppRunner(application, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            started.set()
            await asyncio.to_thread(stopped.wait)
            self.release.set()
            await runner.cleanup()

        asyncio.run(main())


@pytest.fixture
def proxy(hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The suite's hub behind a proxy, which the environment names."""
    proxy = Proxy(hub.url)
    started, stopped = threading.Event(), threading.Event()
    thread = threading.Thread(target=proxy.serve, args=(started, stopped))
    thread.start()
    assert started.wait(60)
    monkeypatch.setenv("HAVERSACK_HUB", proxy.url)
    yield proxy
    proxy.release.set()
    stopped.set()
    thread.join()


@pytest.fixture(scope="session")
def bad_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub behind a slow network, which fails one call in a hundred."""
    running = start_hub(tmp_path_factory.mktemp("bad") / "root", None, "--latency", "20ms", "--fail", "500:0.01")
    yield running
    running.process.terminate()
    running.process.wait(60)


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder on a disk of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    monkeypatch.setenv("HAVERSACK_DATA", str(disk))
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def folder(hub: RunningHub) -> str:
    """The name of a folder of this test's own below My Drive, which is there."""
    name = f"test-{secrets.token_hex(6)}"
    (hub.my_drive / name).mkdir()
    return name


@pytest.fixture
def fs(hub: RunningHub) -> DriveFileSystem:
    return DriveFileSystem()


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    """Where a test mounts; whatever it left there is taken away."""
    path = tmp_path / "mnt"
    yield path
    record = registry.find(path)
    if record is not None and record.pid:
        kill(path)
        clear_stale(path)


def kill(mountpoint: Path) -> None:
    """Kill the process that serves a mount, as a machine that goes away does."""
    process = mounting._serving_processes.pop(str(mountpoint), None)
    if process is not None:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
