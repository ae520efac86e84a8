"""The sockets of a kernel that has not been started."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from haversack.notebook.sessions import kernel


@pytest.fixture
def sockets() -> Iterator[Path]:
    folder = kernel.socket_folder()
    yield folder
    shutil.rmtree(folder)


def test_no_message_is_dropped_however_late_it_is_read(sockets: Path) -> None:
    manager = kernel.manager(sockets / "kernels", sockets)
    manager.write_connection_file()
    client = manager.client()
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        # It waits where a kernel's socket would drop.
        publisher.setsockopt(zmq.XPUB_NODROP, 1)
        publisher.setsockopt(zmq.SNDTIMEO, 5000)
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.bind(client._make_url("iopub"))
        client.start_channels(shell=False, stdin=False, hb=False, control=False)
        publisher.recv()  # the subscription
        for _ in range(5000):
            publisher.send(b"." * 1000)
        client.stop_channels()
