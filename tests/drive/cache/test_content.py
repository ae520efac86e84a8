"""The bytes of the drive that are kept here: how much is fetched, and that they are the drive's."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haversack import credentials
from haversack.drive.cache.content import SMALL, ContentCache
from haversack.drive.remote.api import DriveApi, File
from haversack.errors import IntegrityError
from haversack.http import wait
from tests import calls
from tests.blocks.storage import Storage, serving
from tests.conftest import RunningHub, start_hub


@pytest.fixture(scope="module")
def cutting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub whose answers are logged, and break off now and then."""
    root = tmp_path_factory.mktemp("cutting") / "hub"
    running = start_hub(root, None, "--log", str(root.parent / "calls.jsonl"), "--fail", "cut:0.05")
    yield running
    running.process.terminate()
    running.process.wait(60)


@pytest.fixture
def drive(cutting: RunningHub, monkeypatch: pytest.MonkeyPatch) -> RunningHub:
    monkeypatch.setenv("HAVERSACK_HUB", cutting.url)
    monkeypatch.setenv("HAVERSACK_TOKEN", cutting.token)
    return cutting


@pytest.fixture
def fetched(drive: RunningHub) -> Callable[[], list[int]]:
    """Gives the bytes that each answer with bytes of a file held in this test."""
    log = drive.root.parent / "calls.jsonl"
    before = len(calls.lines(log)) if log.exists() else 0
    return lambda: [line["sent"] for line in calls.lines(log)[before:] if line["route"] == "files.download"]


@pytest.fixture
def content(drive: RunningHub, tmp_path: Path) -> ContentCache:
    return ContentCache(tmp_path / "cache", DriveApi(credentials.drive()))


def given(drive: RunningHub, content: ContentCache, size: int) -> tuple[File, bytes]:
    """A file on the drive, and its bytes."""
    data, name = os.urandom(size), secrets.token_hex(4)
    (drive.my_drive / name).write_bytes(data)
    return wait(content.api.lookup("root", name))[0], data


def test_a_file_is_read_as_it_is(drive: RunningHub, content: ContentCache) -> None:
    for size in (1, 10_000, SMALL, SMALL + 1, (9 << 20) + 5):
        file, data = given(drive, content, size)
        assert content.read(file, 0, size + 10) == data
        assert content.read(file, size // 2, 100) == data[size // 2 : size // 2 + 100]
        assert content.read(file, size, 100) == b""


def test_a_little_of_a_large_file_brings_little(
    drive: RunningHub, content: ContentCache, fetched: Callable[[], list[int]]
) -> None:
    file, data = given(drive, content, 20 << 20)
    assert content.read(file, 5_000_000, 10_000) == data[5_000_000:5_010_000]
    assert sum(fetched()) <= 256 << 10


def test_reading_on_fetches_more_and_more_at_once(
    drive: RunningHub, content: ContentCache, fetched: Callable[[], list[int]]
) -> None:
    file, data = given(drive, content, 32 << 20)
    assert b"".join(content.read(file, at, 128 << 10) for at in range(0, file.size, 128 << 10)) == data
    assert len(fetched()) <= 30


def test_what_is_here_is_not_fetched_again(
    drive: RunningHub, content: ContentCache, fetched: Callable[[], list[int]], tmp_path: Path
) -> None:
    for size in (10_000, 3 << 20):
        file, data = given(drive, content, size)
        content.read(file, 0, size)
        before = len(fetched())
        assert ContentCache(tmp_path / "cache", content.api).read(file, 0, size) == data
        assert len(fetched()) == before


def test_readers_of_one_file_share_its_bytes(
    drive: RunningHub, content: ContentCache, fetched: Callable[[], list[int]]
) -> None:
    file, data = given(drive, content, 8 << 20)
    read: list[bytes] = []
    readers = [threading.Thread(target=lambda: read.append(content.read(file, 0, file.size))) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert read == [data] * 8
    assert sum(fetched()) <= 12 << 20


def test_two_processes_fill_one_file(drive: RunningHub, content: ContentCache, tmp_path: Path) -> None:
    file, data = given(drive, content, 24 << 20)
    code = (
        "import sys, hashlib; from pathlib import Path; from haversack import credentials\n"
        "from haversack.drive.remote.api import DriveApi; from haversack.drive.cache.content import ContentCache\n"
        "from haversack.http import wait\n"
        "content = ContentCache(Path(sys.argv[1]), DriveApi(credentials.drive()))\n"
        "file = wait(content.api.get(sys.argv[2]))\n"
        "print(hashlib.md5(content.read(file, 0, file.size)).hexdigest())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cache"), file.id]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert b"".join(content.read(file, at, 1 << 20) for at in range(0, file.size, 1 << 20)) == data
    assert other.communicate()[0].strip() == file.md5


@pytest.mark.parametrize("size", [10_000, 3 << 20])
def test_a_file_that_changed_on_the_drive_is_not_mixed_with_what_it_was(
    drive: RunningHub, content: ContentCache, size: int
) -> None:
    file, _ = given(drive, content, size)
    (drive.my_drive / file.name).write_bytes(os.urandom(size))
    wait(content.api.lookup("root", file.name))
    with pytest.raises(IntegrityError):
        content.read(file, 0, size)


def test_what_the_disk_damaged_is_fetched_again(drive: RunningHub, content: ContentCache, tmp_path: Path) -> None:
    file, data = given(drive, content, 10_000)
    content.read(file, 0, 10_000)
    kept = next(path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    kept.write_bytes(bytes(10_000))
    assert ContentCache(tmp_path / "cache", content.api).read(file, 0, 10_000) == data


@pytest.mark.parametrize("size", [10_000, 9 << 20])
def test_a_full_disk_does_not_keep_anything_from_being_read(drive: RunningHub, tmp_path: Path, size: int) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        content = ContentCache(disk / "cache", DriveApi(credentials.drive()))
        (disk / "fill").write_bytes(bytes((4 << 20) - (64 << 10)))
        file, data = given(drive, content, size)
        assert b"".join(content.read(file, at, 256 << 10) for at in range(0, size, 256 << 10)) == data
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("size", [10_000, SMALL + 100_000])
def test_another_range_than_was_asked_for_is_refused(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    with serving(Storage(data, md5="none", shifted=1000)) as storage:
        file = File("id", "a.bin", "root", "text/plain", size, "", 0.0, 1)
        http = storage.client()
        content = ContentCache(tmp_path, DriveApi(http.server, http))
        with pytest.raises(IntegrityError, match=r"does not serve byte ranges of a\.bin"):
            content.read(file, 5000, 1000)
