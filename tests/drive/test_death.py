"""A mount whose process is killed: what was acknowledged gets to the drive, whole, and nothing else."""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web

from haversack.drive.fuse.mount import mount, unmount
from haversack.drive.writeback import uploader
from tests.conftest import RunningHub
from tests.drive.conftest import Call, Proxy, kill

pytestmark = pytest.mark.fuse

WRITERS, PENDING = 4, 200
ROUNDS = int(os.environ.get("HAVERSACK_ROUNDS", "1"))
"""How often; the soak asks for more."""


class Writer(threading.Thread):
    """Writes files, some of them again and again, until the mount is gone; `acknowledged` is what `close` answered."""

    def __init__(self, folder: Path, number: int, seed: int) -> None:
        super().__init__()
        self.folder = folder
        self.number = number
        self.random = random.Random(seed)
        self.acknowledged: dict[str, bytes] = {}
        self.attempted: dict[str, list[bytes]] = {}

    def run(self) -> None:
        for count in range(2000):
            name = f"{self.number}-{self.random.choice([count, count % 10])}"
            data = self.random.randbytes(self.random.choice([10, 10_000, 60_000, 700_000]))
            self.attempted.setdefault(name, []).append(data)
            try:
                (self.folder / name).write_bytes(data)
            except OSError:
                return
            self.acknowledged[name] = data


@pytest.fixture
def slow(proxy: Proxy) -> Proxy:
    """Some uploads get stuck on their way, so that more and more wait."""
    chance, stuck = random.Random(1), set()

    def stalls(call: Call) -> bool:
        if "/upload/" in call.path and chance.random() < 0.1:
            stuck.add(id(call))
        return id(call) in stuck

    proxy.stalls = stalls
    proxy.answers = lambda call: web.Response(status=503) if id(call) in stuck else None
    return proxy


def pending(data: Path) -> int:
    """How many files a journal below `data` has acknowledged that are not on the drive."""
    return sum(1 for _ in (data / "drives").glob("*/*/*.json"))


@pytest.mark.parametrize("number", range(ROUNDS))
def test_nothing_acknowledged_is_lost_and_nothing_is_half_there(
    hub: RunningHub,
    slow: Proxy,
    own_folders: Path,
    folder: str,
    mountpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    monkeypatch.setenv("HAVERSACK_AHEAD", "0.3")
    here = mount(mountpoint).my_drive / folder
    writers = [Writer(here, one, number * WRITERS + one) for one in range(WRITERS)]
    for writer in writers:
        writer.start()
    # Those that are on their way just then may still arrive before the kill does.
    while pending(own_folders / "data") < PENDING + uploader._MAX_WORKERS:
        time.sleep(0.01)
    kill(mountpoint)
    for writer in writers:
        writer.join()
    assert pending(own_folders / "data") >= PENDING
    slow.stalls = lambda call: False
    slow.release.set()
    mount(mountpoint)
    unmount(mountpoint)
    there = {path.name: path.read_bytes() for path in (hub.my_drive / folder).iterdir()}
    for writer in writers:
        for name, data in writer.acknowledged.items():
            # The write that was cut off may have emptied it, as on any disk, or have come through.
            later = writer.attempted[name][writer.attempted[name].index(data) :]
            assert there.pop(name) in later, name
    cut_off = [data for writer in writers for data in writer.attempted.get(name_of_last(writer), [])]
    assert all(data in cut_off for data in there.values())


def test_a_file_that_is_written_on_after_its_close_is_uploaded_as_it_was_closed(
    hub: RunningHub, proxy: Proxy, own_folders: Path, folder: str, mountpoint: Path
) -> None:
    proxy.stalls = lambda call: "/upload/" in call.path
    here = mount(mountpoint).my_drive / folder
    (here / "a").write_bytes(b"closed")
    file = open(here / "a", "ab", buffering=0)  # noqa: SIM115 - closing it must not commit what is written
    file.write(b" and written on")
    kill(mountpoint)
    with suppress(OSError):
        file.close()
    proxy.stalls = lambda call: False
    proxy.release.set()
    mount(mountpoint)
    unmount(mountpoint)
    assert (hub.my_drive / folder / "a").read_bytes() == b"closed"
    assert pending(own_folders / "data") == 0


def name_of_last(writer: Writer) -> str:
    return list(writer.attempted)[-1]
