"""A storage server on loopback that serves one file by signed address, and misbehaves as it is told."""

from __future__ import annotations

import base64
import hashlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from haversack.credentials import Server
from haversack.http import Http


@dataclass
class Storage:
    """What is served, what goes wrong, and what was asked for."""

    data: bytes
    etag: str = '"one"'
    md5: str | None = None
    ranges: bool = True
    shifted: int = 0
    """By how many bytes a range begins later than was asked for, as its headers say."""
    cut_after: int | None = None
    """Every body of more bytes than this is cut off there."""
    stall_after: int | None = None
    delay: float = 0.0
    """Seconds to wait before each 64 KiB."""
    cuts: random.Random | None = None
    """Draws after how many bytes, from 1 to 20 million, each connection is cut."""
    valid_for: int = 1 << 30
    """How many requests an address answers before it has expired."""
    expired: int = 400
    refusals: list[int] = field(default_factory=list)
    """The statuses that the next requests are refused with."""
    most_at_once: int = 1 << 30
    """How many answers may be under way; more are refused with 429."""
    url: str = ""
    signed: int = 0
    used: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """The `Range` of each request."""
    served: int = 0
    open_now: int = 0
    most_open: int = 0
    """How many answers were under way at once, at most."""
    refused: int = 0
    on_served: Callable[[int], None] = lambda served: None
    """Called with all bytes that were served, after each 64 KiB."""

    def __post_init__(self) -> None:
        self.md5 = self.md5 or hashlib.md5(self.data).hexdigest()

    async def locate(self) -> str:
        self.signed += 1
        return f"{self.url}/file?signature={self.signed}"

    @property
    def asked_bytes(self) -> int:
        bounds = [asked.removeprefix("bytes=").split("-") for asked in self.asked]
        return sum(int(last) - int(first) + 1 for first, last in bounds)

    def client(self, **options: Any) -> Http:
        defaults = {"attempts": 3, "read": 0.5, "first_delay": 0.01, "longest_delay": 0.05}
        return Http(Server("storage", self.url, "test"), **(defaults | options))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    storage: Storage

    def do_GET(self) -> None:
        storage = self.storage
        storage.used[self.path] = storage.used.get(self.path, 0) + 1
        if storage.used[self.path] > storage.valid_for:
            self._refuse(storage.expired, b"expired")
            return
        if storage.refusals or storage.open_now >= storage.most_at_once:
            storage.refused += 1
            self._refuse(storage.refusals.pop(0) if storage.refusals else 429, b"later")
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        storage.asked.append(self.headers.get("Range", ""))
        data, size = storage.data, len(storage.data)
        headers = {"ETag": storage.etag}
        if storage.md5 != "none":
            headers["x-goog-hash"] = "crc32c=AAAAAA==,md5=" + base64.b64encode(bytes.fromhex(storage.md5)).decode()
        if asked and storage.ranges and int(asked[1]) >= size:
            self._head(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            return
        if asked and storage.ranges:
            first, last = int(asked[1]) + storage.shifted, min(int(asked[2]) + storage.shifted, size - 1)
            data = data[first : last + 1]
            self._head(
                206, {**headers, "Content-Length": str(len(data)), "Content-Range": f"bytes {first}-{last}/{size}"}
            )
        else:
            self._head(200, {**headers, "Content-Length": str(size)})
        storage.open_now += 1
        storage.most_open = max(storage.most_open, storage.open_now)
        try:
            self._body(data)
        finally:
            storage.open_now -= 1

    def _refuse(self, status: int, why: bytes) -> None:
        self._head(status, {"Content-Length": str(len(why))})
        self.wfile.write(why)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, data: bytes) -> None:
        storage = self.storage
        cut, stall = storage.cut_after, storage.stall_after
        if storage.cuts is not None:
            cut = storage.cuts.randint(1_000_000, 20_000_000)
        for at in range(0, len(data), 1 << 16):
            piece = data[at : at + (1 << 16)]
            if cut is not None and at + len(piece) > cut:
                self.wfile.write(piece[: cut - at])
                self.close_connection = True
                return
            if stall is not None and at + len(piece) > stall:
                storage.stall_after = None
                time.sleep(2)
                self.close_connection = True
                return
            time.sleep(storage.delay)
            self.wfile.write(piece)
            storage.served += len(piece)
            storage.on_served(storage.served)

    def log_message(self, *arguments: Any) -> None:
        """Nothing on the terminal."""


@contextmanager
def serving(storage: Storage) -> Iterator[Storage]:
    handler = type("Handler", (_Handler,), {"storage": storage})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *arguments: None  # type: ignore[method-assign]  # clients that hang up are the test
    storage.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield storage
    server.shutdown()
    server.server_close()
