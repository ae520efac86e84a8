"""Bad days of a download: byte-identical in the end, or a clear error and the next call goes on."""

from __future__ import annotations

import os
import pty
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from haversack.blocks.ranges import RemoteFile
from haversack.blocks.sparse import BLOCK
from haversack.errors import ConnectionFailed, DiskFull, IntegrityError, RateLimited
from tests.blocks.storage import Storage, serving
from tests.blocks.test_ranges import DOWNLOAD, clients, unchecked  # noqa: F401 - a fixture
from tests.blocks.test_sparse import small_disk  # noqa: F401 - a fixture

# pytest finds fixtures by their names.
# ruff: noqa: F811


@pytest.fixture
def large() -> Iterator[Storage]:
    """Storage that serves 40 MB."""
    with serving(Storage(random.Random(1).randbytes(40_000_000))) as running:
        yield running


def remote(storage: Storage, path: Path, **options: Any) -> RemoteFile:
    return RemoteFile(storage.client(**options), storage.locate, path, "the file")


@pytest.mark.parametrize("seed", [1, 2])
def test_cuts_every_1_to_20_megabytes(large: Storage, tmp_path: Path, seed: int) -> None:
    large.cuts = random.Random(seed)
    assert remote(large, tmp_path / "f").complete(unchecked).read_bytes() == large.data
    assert large.served < 1.05 * len(large.data)


def test_cuts_where_ranges_are_ignored_are_told(large: Storage, tmp_path: Path) -> None:
    large.cuts, large.ranges = random.Random(1), False
    with pytest.raises(ConnectionFailed, match="broke off 3 times at byte"):
        remote(large, tmp_path / "f").complete(unchecked)
    assert not (tmp_path / "f").exists()
    large.cuts = None
    assert remote(large, tmp_path / "f").complete(unchecked).read_bytes() == large.data


def test_a_server_that_refuses_for_its_load_is_asked_by_fewer(large: Storage, tmp_path: Path) -> None:
    large.delay, large.most_at_once = 0.003, 2
    file = remote(large, tmp_path / "f", attempts=20)
    assert file.complete(unchecked).read_bytes() == large.data
    assert file.streams.allowed <= 2
    assert 0 < large.refused < 20


def test_a_server_that_limits_each_connection_is_asked_by_more(large: Storage, tmp_path: Path) -> None:
    large.delay = 0.025
    file = remote(large, tmp_path / "f")
    assert file.complete(unchecked).read_bytes() == large.data
    assert large.most_open > 4


def test_no_more_streams_than_the_setting_allows(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAVERSACK_STREAMS", "2")
    storage.delay = 0.005
    assert remote(storage, tmp_path / "f").complete(unchecked).read_bytes() == storage.data
    assert storage.most_open <= 2


@pytest.mark.parametrize("status", [429, 503])
def test_refusals_that_pass_are_outlasted(storage: Storage, clients: Any, tmp_path: Path, status: int) -> None:
    file = clients(tmp_path / "f")
    storage.refusals = [status] * 2
    assert file.complete(unchecked).read_bytes() == storage.data


def test_refusals_without_end_are_told_and_the_next_call_goes_on(
    storage: Storage, clients: Any, tmp_path: Path
) -> None:
    file = clients(tmp_path / "f")
    file.read_at(0, 3_000_000)
    storage.refusals = [429] * 1000
    with pytest.raises(RateLimited, match="Wait a minute and try again"):
        file.complete(unchecked)
    storage.refusals.clear()
    storage.asked.clear()
    here = file.present
    assert here >= 3_000_000
    assert file.complete(unchecked).read_bytes() == storage.data
    assert storage.asked_bytes == len(storage.data) - here


def test_an_address_that_expires_with_403_in_the_middle_is_signed_anew(
    storage: Storage, clients: Any, tmp_path: Path
) -> None:
    storage.valid_for, storage.expired = 5, 403
    assert clients(tmp_path / "f").complete(unchecked).read_bytes() == storage.data
    assert storage.signed > 1


def test_stalls_and_cuts_and_refusals_together(storage: Storage, clients: Any, tmp_path: Path) -> None:
    file = clients(tmp_path / "f", attempts=6)
    storage.stall_after, storage.cut_after, storage.refusals = 300_000, 700_000, [503, 429]
    assert file.complete(unchecked).read_bytes() == storage.data
    assert storage.served < 1.3 * len(storage.data)


def test_a_disk_that_fills_on_the_way_is_told_and_the_next_call_goes_on(clients: Any, small_disk: Path) -> None:
    with serving(Storage(random.Random(2).randbytes(1_500_000))) as storage:
        storage.delay = 0.02
        file = remote(storage, small_disk / "f")
        filler = small_disk / "filler"
        storage.on_served = lambda served: fill(filler) if served > 300_000 and not filler.exists() else None
        with pytest.raises(DiskFull, match="Free space"):
            file.complete(unchecked)
        storage.on_served = lambda served: None
        filler.unlink()
        storage.asked.clear()
        here = file.present
        assert here > 100_000
        assert file.complete(unchecked).read_bytes() == storage.data
        assert storage.asked_bytes == len(storage.data) - here


def fill(file: Path) -> None:
    """Leave no room on the disk of `file`."""
    with open(file, "wb", buffering=0) as out:
        try:
            while True:
                out.write(bytes(4096))
        except OSError:
            return


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_kills_at_random_moments_cost_a_block_of_each_stream(
    storage: Storage, clients: Any, tmp_path: Path, seed: int
) -> None:
    storage.delay = 0.05
    process = subprocess.Popen([sys.executable, "-c", DOWNLOAD, storage.url, str(tmp_path / "f")])
    until = random.Random(seed).randint(500_000, 4_500_000)
    while storage.served < until:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    storage.delay = 0
    file = clients(tmp_path / "f")
    here = file.present
    # What was sent and not received yet is lost too: a piece or two of each stream.
    assert storage.served - here < 4 * 4 * BLOCK
    storage.asked.clear()
    assert file.complete(unchecked).read_bytes() == storage.data
    assert storage.asked_bytes == len(storage.data) - here


def test_wrong_bytes_are_told_and_the_next_call_has_the_right_ones(
    storage: Storage, clients: Any, tmp_path: Path
) -> None:
    right, storage.data = storage.data, os.urandom(len(storage.data))
    file = clients(tmp_path / "f")
    with pytest.raises(IntegrityError, match="deleted; fetch the file again"):
        file.complete(unchecked)
    storage.data = right
    assert file.complete(unchecked).read_bytes() == right


def test_what_is_mended_while_all_is_fetched_is_fetched_again(storage: Storage, clients: Any, tmp_path: Path) -> None:
    right = storage.data
    file = clients(tmp_path / "f")
    storage.data = bytes(BLOCK) + right[BLOCK:]
    assert file.read_at(0, 10) == bytes(10)
    storage.data, storage.delay = right, 0.005

    def mend(served: int) -> None:
        if served > 4_500_000:
            storage.on_served = lambda served: None
            file.mend(0, 1)

    storage.on_served = mend
    assert file.complete(unchecked).read_bytes() == right


@pytest.mark.parametrize(
    ("call", "total"),
    [("complete(lambda path: None)", b"5.0"), ("fetch([(3_000_000, 4_000_000), (9, 1_000_000)])", b"2.2")],
)
def test_the_bar_counts_what_was_wanted_too(storage: Storage, tmp_path: Path, call: str, total: bytes) -> None:
    storage.delay = 0.005
    wanting = f"    file.want((at, at + 1) for at in range(0, file.size, 300_000))\n    print(file.{call})\n"
    program = DOWNLOAD.partition("    print(file.complete")[0] + wanting
    keyboard, screen = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program, storage.url, str(tmp_path / "f")],
        stdout=subprocess.DEVNULL,
        stderr=screen,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(screen)
    shown = b""
    with suppress(OSError):  # the end of a terminal
        while piece := os.read(keyboard, 1 << 16):
            shown += piece
    os.close(keyboard)
    assert process.wait(60) == 0
    done, whole = re.findall(rb"([\d.]+)/([\d.]+) MB", shown)[-1]
    # Some of what was wanted may have come before the bar began.
    assert done == whole
    assert float(total) / 2 < float(whole) <= float(total)
