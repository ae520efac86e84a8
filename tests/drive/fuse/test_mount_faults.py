"""A bad day of a mount: what was acknowledged is not lost, nothing is half there, and who wrote hears why."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from haversack.drive.fuse.mount import is_mounted, mount, unmount
from tests.conftest import RunningHub, start_hub
from tests.drive.conftest import Call, Proxy

pytestmark = pytest.mark.fuse

ROUNDS = int(os.environ.get("HAVERSACK_ROUNDS", "1"))
"""How often; the soak asks for more."""
FILES = 40


@pytest.fixture
def here(proxy: Proxy, folder: str, mountpoint: Path) -> Iterator[Path]:
    """This test's folder in a mount that reaches the hub through the proxy."""
    yield mount(mountpoint).my_drive / folder
    proxy.answers, proxy.full = lambda call: None, False
    if is_mounted(mountpoint):
        unmount(mountpoint)


@pytest.fixture
def there(hub: RunningHub, folder: str) -> Path:
    """The same folder as the hub keeps it."""
    return hub.my_drive / folder


def refusal(status: int, reason: str) -> Callable[[Call], web.Response | None]:
    """What a service answers to every upload that refuses it for that reason, in Google's words."""
    error = {"code": status, "message": "No.", "errors": [{"domain": "global", "reason": reason, "message": "No."}]}
    return lambda call: web.json_response({"error": error}, status=status) if "/upload/" in call.path else None


def error_of(act: Callable[[], object]) -> str:
    """The name of the errno that `act` raises; "" when it raises none."""
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def synced(path: Path, data: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())


@pytest.mark.parametrize(
    ("status", "reason"),
    [(403, "insufficientFilePermissions"), (403, "insufficientPermissions"), (401, "authError")],
)
def test_who_may_not_write_hears_of_it(
    proxy: Proxy, here: Path, there: Path, mountpoint: Path, status: int, reason: str
) -> None:
    proxy.answers = refusal(status, reason)
    assert error_of(lambda: synced(here / "a", b"first")) == "EACCES"
    assert error_of(lambda: (here / "a").write_bytes(b"waits")) == "EACCES"
    assert (here / "a").read_bytes() == b"waits"
    proxy.answers = lambda call: None
    unmount(mountpoint)
    assert (there / "a").read_bytes() == b"waits"


def test_a_token_that_expires_in_the_middle_costs_nothing_that_was_written(
    proxy: Proxy, here: Path, there: Path, mountpoint: Path
) -> None:
    written = {f"{number}": os.urandom(1000 * number) for number in range(FILES)}
    for name, data in written.items():
        if name == "10":
            proxy.answers = refusal(401, "authError")
        (here / name).write_bytes(data)
    time.sleep(1.0)  # until the first of them were refused
    proxy.answers = lambda call: None
    unmount(mountpoint)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == written


def test_a_quota_that_is_reached_in_the_middle_costs_nothing_that_was_written(
    proxy: Proxy, here: Path, there: Path, mountpoint: Path
) -> None:
    written, heard = {}, ""
    for number in range(1000):
        proxy.full = number > 5
        written[f"{number}"] = os.urandom(1000)
        if heard := error_of(lambda: (here / f"{number}").write_bytes(written[f"{number}"])):  # noqa: B023
            break
        time.sleep(0.02)
    assert heard == "EDQUOT"
    proxy.full = False
    unmount(mountpoint)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == written


def test_a_full_disk_refuses_writes_and_loses_none_that_wait(
    small_disk: Path,
    proxy: Proxy,
    hub: RunningHub,
    folder: str,
    there: Path,
    mountpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HAVERSACK_CACHE", str(small_disk / "cache"))
    proxy.stalls = lambda call: "/upload/" in call.path
    here = mount(mountpoint).my_drive / folder
    written, heard = {}, ""
    for number in range(100):
        data = os.urandom(100_000)
        if heard := error_of(lambda: (here / f"{number}").write_bytes(data)):  # noqa: B023
            break
        written[f"{number}"] = data
    assert heard == "ENOSPC"
    with pytest.raises(OSError, match="No space"):
        (small_disk / "others").write_bytes(bytes(4 << 20))  # to the last byte
    assert (here / "0").read_bytes() == written["0"]
    time.sleep(2.0)  # the mount's every second passes over a full disk
    proxy.release.set()
    unmount(mountpoint)
    arrived = {path.name: path.read_bytes() for path in there.iterdir()}
    assert {name: arrived[name] for name in written} == written
    assert len(arrived) <= len(written) + 1  # the one that was refused, as far as it came


def test_a_hub_that_is_ended_and_begun_anew_costs_nothing_that_was_written(
    tmp_path: Path, mountpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    hub = start_hub(tmp_path / "hub", None, "--port", port)
    monkeypatch.setenv("HAVERSACK_HUB", hub.url)
    monkeypatch.setenv("HAVERSACK_TOKEN", hub.token)
    here = mount(mountpoint).my_drive
    written = {}
    for number in range(300):
        if number == 150:
            hub.process.terminate()
            assert hub.process.wait(60) == 0
            hub = start_hub(tmp_path / "hub", hub.token, "--port", port)
        written[f"{number}"] = os.urandom(5_000_000 if number % 50 == 0 else 5000)
        (here / f"{number}").write_bytes(written[f"{number}"])
    unmount(mountpoint)
    hub.process.terminate()
    hub.process.wait(60)
    assert {path.name: path.read_bytes() for path in hub.my_drive.iterdir()} == written


@dataclass(frozen=True)
class Machine:
    """A machine of its own: what it keeps lies in `home`, its mount is at `mountpoint`."""

    home: Path
    mountpoint: Path

    def begin(self, monkeypatch: pytest.MonkeyPatch, folder: str) -> Path:
        self._be(monkeypatch)
        return mount(self.mountpoint).my_drive / folder

    def end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._be(monkeypatch)
        unmount(self.mountpoint)

    def _be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HAVERSACK_DATA", str(self.home / "data"))
        monkeypatch.setenv("HAVERSACK_CACHE", str(self.home / "cache"))


@pytest.mark.parametrize("number", range(ROUNDS))
def test_two_machines_write_one_folder(
    hub: RunningHub, folder: str, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    machines = [Machine(tmp_path / name, tmp_path / f"{name}-mnt") for name in ("one", "two")]
    here = [machine.begin(monkeypatch, folder) for machine in machines]

    def work(which: int) -> None:
        for turn in range(FILES):
            (here[which] / f"{which}-{turn}").write_bytes(b"%d" % turn * 1000)
            (here[which] / "shared").write_bytes(b"%d" % which * 5000)
            if turn % 4 == 0:
                os.replace(here[which] / f"{which}-{turn}", here[which] / f"{which}-kept")

    threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for machine in machines:
        machine.end(monkeypatch)
    found = {path.name: path.read_bytes() for path in there.iterdir()}
    shared = [found.pop(name) for name in list(found) if name.startswith("shared")]
    assert shared
    assert all(data in (b"0" * 5000, b"1" * 5000) for data in shared)
    own = {f"{which}-{turn}": b"%d" % turn * 1000 for which in range(2) for turn in range(FILES) if turn % 4}
    assert found == own | {f"{which}-kept": b"%d" % (FILES - 4) * 1000 for which in range(2)}
