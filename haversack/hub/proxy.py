"""A CONNECT proxy for clients whose server is fixed: it routes Google's API hosts to the hub.

rclone and others talk to `www.googleapis.com` only, but accept a proxy. This one answers CONNECT (RFC 9110, section
9.3.6) for Google's API hosts and for this machine, and then serves the hub over TLS on the same connection. Every
other host is refused, and nothing is fetched from elsewhere. It needs no credentials: it leads only to the hub, which
requires its own.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable

GOOGLE_DOMAIN = "googleapis.com"
_CONNECT = re.compile(rb"CONNECT ([A-Za-z0-9.-]{1,253}):\d{1,5} HTTP/1\.[01]\r\n")
_MAX_HEAD = 16_384
_TIMEOUT = 30.0


class ConnectProxy(asyncio.Protocol):
    """One client connection to the proxy: answers its CONNECT request, then serves the hub on it.

    Args:
        server: creates the hub's HTTP protocol, which handles the connection after the TLS handshake.
        context: the hub's TLS context.

    A client that sends no complete request within 30 seconds is disconnected.
    """

    def __init__(self, server: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        self._server = server
        self._context = context
        self._head = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timer: the head of the request must arrive within 30 seconds (`asyncio.Protocol`)."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(_TIMEOUT, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Collect the request's head; answer 200 and start TLS, or 403 if the host is not the hub or Google's.

        A client whose head is longer than 16 KiB is disconnected.
        """
        self._head += data
        if b"\r\n\r\n" in self._head and self._task is None:
            self._timer.cancel()
            self._answer_connect()
        elif len(self._head) > _MAX_HEAD:
            self._transport.abort()

    def connection_lost(self, exception: Exception | None) -> None:
        """Stop the timer of the request's head (`asyncio.Protocol`)."""
        self._timer.cancel()

    def _answer_connect(self) -> None:
        asked = _CONNECT.match(self._head)
        host = asked[1].decode().lower() if asked else ""
        if host != GOOGLE_DOMAIN and not host.endswith(f".{GOOGLE_DOMAIN}") and host not in ("localhost", "127.0.0.1"):
            body = b"This proxy connects only to the hub, under the host names of Google's APIs.\n"
            head = (
                b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
            )
            self._transport.write(head % len(body) + body)
            self._transport.close()
            return
        self._transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self._task = asyncio.get_running_loop().create_task(self._start_tls())

    async def _start_tls(self) -> None:
        """Do the TLS handshake as the server, and attach the hub's HTTP protocol to the connection."""
        loop, protocol = asyncio.get_running_loop(), self._server()
        try:
            secure = await loop.start_tls(
                self._transport, protocol, self._context, server_side=True, ssl_handshake_timeout=_TIMEOUT
            )
        except OSError:  # TLS errors included: the client rejects the certificate or has disconnected
            self._transport.abort()
            return
        if secure is not None:
            protocol.connection_made(secure)
