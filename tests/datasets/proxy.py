"""A slow and unreliable way to a server: TCP connections handed on, byte for byte, until they are cut."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass
class Proxy:
    """`sent` counts the bytes that clients sent to the server."""

    target: tuple[str, int]
    url: str = ""
    delay: float = 0.0
    """Seconds to wait after each 64 KiB from a client."""
    cut_at: int | None = None
    """When this much was sent, the connection is cut, once."""
    sent: int = 0

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(data)
                self.sent += len(data)
                if self.cut_at is not None and self.sent >= self.cut_at:
                    self.cut_at = None
                    break
                time.sleep(self.delay)
        _hang_up(client, server)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                client.sendall(data)
        _hang_up(client, server)


def _hang_up(*ends: socket.socket) -> None:
    """Close both ends; the shutdown wakes the thread that waits on the other one."""
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@contextmanager
def between(url: str) -> Iterator[Proxy]:
    """A proxy to the server at `url`."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # What lies in the system's buffers arrives even when the sender was killed: keep it small.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        proxy = Proxy((parts.hostname, parts.port), f"http://127.0.0.1:{listener.getsockname()[1]}")
        threading.Thread(target=proxy.serve, args=(listener,), daemon=True).start()
        yield proxy
