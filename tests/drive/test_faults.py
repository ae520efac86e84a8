"""A bad network and a strict service, rehearsed by a real hub: an operation is done once, or its error is its own."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haversack import credentials
from haversack.drive.remote import calls
from haversack.drive.remote import upload as uploading
from haversack.drive.remote.api import DriveApi, File, ResumableUpload
from haversack.errors import HaversackError, QuotaExceeded
from haversack.http import Http, wait
from tests.conftest import RunningHub, start_hub

Begin = Callable[..., DriveApi]
ROUNDS = int(os.environ.get("HAVERSACK_OPERATIONS", "240")) // 6
"""How often six operations that belong together are done; the soak asks for more."""


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Starts a hub with options; gives a client that is quick to try again."""
    started: list[RunningHub] = []

    def start(*options: str, **limits: float) -> DriveApi:
        hub = start_hub(tmp_path / f"hub{len(started)}", None, *options)
        started.append(hub)
        server = credentials.hub_at(hub.url, hub.token, "a test")
        return DriveApi(server, Http(server, first_delay=0.02, **{"read": 2.0, **limits}))  # type: ignore[arg-type]

    yield start
    for hub in started:
        hub.process.terminate()
        hub.process.wait(60)


def upload_of(file_id: str, parent: str, source: Path, content: bytes, name: str) -> ResumableUpload:
    source.write_bytes(content)
    return ResumableUpload(source, len(content), hashlib.md5(content).hexdigest(), file_id, False, parent, name, 1e9)


async def work(api: DriveApi, parent: str, folder: Path, number: int) -> File:
    """Six operations that belong together."""
    content = random.Random(number).randbytes(5000)
    made = await api.upload(upload_of(await api.new_id(), parent, folder / str(number), content, f"{number}.bin"))
    inner = await api.create_folder(parent, f"folder {number}")
    await api.update(made, name=f"renamed {number}.bin", parent=inner.id)
    spare = await api.copy(made, parent, "spare")
    await api.trash(spare.id)
    [found] = await api.lookup(inner.id, f"renamed {number}.bin")
    return found


async def all_at_once(api: DriveApi, folder: Path, count: int) -> list[File]:
    parent = (await api.create_folder((await api.get("root")).id, "work")).id
    gate = asyncio.Semaphore(16)

    async def one(number: int) -> File:
        async with gate:
            return await work(api, parent, folder, number)

    done = await asyncio.gather(*(one(number) for number in range(count)))
    kept = [file.name async for file in api.list(parent)]
    assert sorted(kept) == sorted(f"folder {number}" for number in range(count))
    return done


@pytest.mark.parametrize(
    "faults",
    [
        ("500:0.05", "503:0.02"),
        ("429:0.01", "429x8:0.002", "403.userRateLimitExceeded:0.02"),
        ("cut:0.05",),
        ("stall:0.01", "cut:0.02"),
    ],
    ids=lambda faults: " ".join(faults),
)
def test_mixed_operations_are_each_done_once(begin: Begin, tmp_path: Path, faults: tuple[str, ...]) -> None:
    api = begin("--seed", "7", *(word for fault in faults for word in ("--fail", fault)))
    done = wait(all_at_once(api, tmp_path, ROUNDS))
    for number, file in enumerate(done):
        assert file.md5 == hashlib.md5(random.Random(number).randbytes(5000)).hexdigest()
    assert len({file.id for file in done}) == ROUNDS


def test_a_strict_rate_is_kept_to_and_nothing_fails(begin: Begin, tmp_path: Path) -> None:
    api = begin("--rate-limit", "60/s")
    wait(all_at_once(api, tmp_path, 40))
    assert api.http.rate_limiter.rate < 1000


def test_parts_of_a_batch_that_fail_are_tried_again_alone(begin: Begin) -> None:
    api = begin("--fail", "403.rateLimitExceeded:0.1", "--fail", "500:0.1", "--seed", "3")
    root = wait(api.get("root")).id
    ids = wait(api.new_ids(250))
    made = wait(api.batch([calls.create_folder(one, root, one) for one in ids]))
    # One that failed after it was carried out answers the second try with 409.
    assert not [one for one in made if isinstance(one, HaversackError) and getattr(one, "status", 0) != 409]
    names = [file.name for page in wait(_pages(api, root)) for file in page]
    assert sorted(names) == sorted(ids)


async def _pages(api: DriveApi, parent: str) -> list[list[File]]:
    return [page.files async for page in api.list_folders([parent])]


def test_a_large_upload_goes_on_where_it_was_cut_and_where_it_stalled(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "CHUNK", 1 << 20)
    api = begin("--fail", "cut:0.15", "--fail", "stall:0.05", "--seed", "5", read=0.5, attempts=12)
    upload = upload_of(wait(api.new_id()), wait(api.get("root")).id, tmp_path / "a", os.urandom(24 << 20), "a")
    positions: list[int] = []
    upload.moved = positions.append
    assert wait(api.upload(upload)).md5 == upload.md5
    assert positions == sorted(positions)


@pytest.mark.parametrize("size", [1 << 20, 8 << 20])
def test_a_full_drive_is_said_as_such_and_keeps_nothing_half(begin: Begin, tmp_path: Path, size: int) -> None:
    api = begin("--quota", "1MB")
    root = wait(api.get("root")).id
    with pytest.raises(QuotaExceeded) as raised:
        wait(api.upload(upload_of(wait(api.new_id()), root, tmp_path / "a", bytes(size), "a")))
    assert (raised.value.errno, raised.value.reason) == (errno.EDQUOT, "storageQuotaExceeded")
    assert wait(api.lookup(root, "a")) == []
    assert wait(api.upload(upload_of(wait(api.new_id()), root, tmp_path / "b", bytes(1000), "b"))).size == 1000
