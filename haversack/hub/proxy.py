"""A proxy for clients whose host is fixed: it leads Google's API hosts to the hub.

rclone and others speak to `www.googleapis.com` and nowhere else, but all of them have a setting for a proxy. This one
answers CONNECT (RFC 9110, section 9.3.6) for Google's API hosts and for this machine, and goes on with TLS on the same
connection, as the hub. Every other host is refused; nothing is ever fetched from anywhere. It asks for no sign-in,
since it opens nothing but the hub, which asks for one itself.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable

GOOGLE = "googleapis.com"
_CONNECT = re.compile(rb"CONNECT ([A-Za-z0-9.-]{1,253}):\d{1,5} HTTP/1\.[01]\r\n")
_LONGEST_HEAD = 16_384
_PATIENCE = 30.0


class ConnectProxy(asyncio.Protocol):
    """One connection: a head is read, answered, and the rest is that of a connection which `server` makes."""

    def __init__(self, server: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        self._server = server
        self._context = context
        self._head = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" in self._head and self._task is None:
            self._timer.cancel()
            self._answer()
        elif len(self._head) > _LONGEST_HEAD:
            self._transport.abort()

    def connection_lost(self, exception: Exception | None) -> None:
        self._timer.cancel()

    def _answer(self) -> None:
        asked = _CONNECT.match(self._head)
        host = asked[1].decode().lower() if asked else ""
        if host != GOOGLE and not host.endswith(f".{GOOGLE}") and host not in ("localhost", "127.0.0.1"):
            said = b"This proxy leads to the hub only, by the names of Google's API hosts.\n"
            head = (
                b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
            )
            self._transport.write(head % len(said) + said)
            self._transport.close()
            return
        self._transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def _go_on(self) -> None:
        loop, protocol = asyncio.get_running_loop(), self._server()
        try:
            secure = await loop.start_tls(
                self._transport, protocol, self._context, server_side=True, ssl_handshake_timeout=_PATIENCE
            )
        except OSError:  # the client does not trust the certificate, or is gone: TLS errors are of this kind too
            self._transport.abort()
            return
        if secure is not None:
            protocol.connection_made(secure)
