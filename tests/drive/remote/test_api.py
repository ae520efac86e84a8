"""Calls of Drive v3 against the hub."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from haversack import credentials
from haversack.drive.remote import calls
from haversack.drive.remote import upload as uploading
from haversack.drive.remote.api import Changes, DriveApi, File, Page, ResumableUpload, UploadSuperseded
from haversack.errors import NotFound, RemoteError, SignInError
from haversack.http import wait
from tests.conftest import RunningHub
from tests.drive.conftest import Proxy


@pytest.fixture
def api(hub: RunningHub) -> DriveApi:
    return DriveApi(credentials.drive())


@pytest.fixture
def parent(api: DriveApi, folder: str) -> File:
    return wait(api.lookup(wait(api.get("root")).id, folder))[0]


def new_upload(api: DriveApi, parent: File, source: Path, content: bytes, name: str = "a.bin") -> ResumableUpload:
    source.write_bytes(content)
    digest = hashlib.md5(content).hexdigest()
    return ResumableUpload(source, len(content), digest, wait(api.new_id()), False, parent.id, name, 1_700_000_000.123)


@pytest.mark.parametrize("size", [0, 1, 5 << 20, (17 << 20) + 3])
def test_uploaded_bytes_are_the_downloaded_ones(api: DriveApi, parent: File, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    made = wait(api.upload(new_upload(api, parent, tmp_path / "source", content)))
    assert (made.size, made.md5, made.modified) == (size, hashlib.md5(content).hexdigest(), 1_700_000_000.123)

    async def downloaded() -> bytes:
        async with api.download(made.id, 0, size) as response:
            return await response.read()

    assert size == 0 or wait(downloaded()) == content


def test_a_range_is_downloaded(api: DriveApi, parent: File, tmp_path: Path) -> None:
    made = wait(api.upload(new_upload(api, parent, tmp_path / "source", b"0123456789")))

    async def middle() -> tuple[int, bytes]:
        async with api.download(made.id, 3, 6) as response:
            return response.status, await response.read()

    assert wait(middle()) == (206, b"345")


def test_the_same_creation_twice_makes_one_file(api: DriveApi, parent: File, tmp_path: Path) -> None:
    upload = new_upload(api, parent, tmp_path / "source", b"once")
    assert wait(api.upload(upload)).id == wait(api.upload(upload)).id
    assert len(wait(api.lookup(parent.id, "a.bin"))) == 1


def test_a_creation_repeated_with_newer_bytes_leaves_those(api: DriveApi, parent: File, tmp_path: Path) -> None:
    first = new_upload(api, parent, tmp_path / "source", b"old")
    wait(api.upload(first))
    second = new_upload(api, parent, tmp_path / "source", b"newer")
    second.file_id = first.file_id
    assert wait(api.upload(second)).size == 5


def test_a_resumable_upload_goes_on_with_its_session(
    api: DriveApi, parent: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "CHUNK", 1 << 20)
    upload = new_upload(api, parent, tmp_path / "source", os.urandom(6 << 20))
    positions: list[int] = []
    upload.moved = positions.append
    upload.is_wanted = lambda: len(positions) < 2
    with pytest.raises(UploadSuperseded):
        wait(api.upload(upload))
    assert upload.session is not None
    upload.is_wanted = lambda: True
    assert wait(api.upload(upload)).md5 == upload.md5
    assert positions == sorted(positions)
    assert positions[:3] == [1 << 20, 3 << 20, 3 << 20]


def test_a_forgotten_session_is_begun_anew(api: DriveApi, parent: File, tmp_path: Path) -> None:
    upload = new_upload(api, parent, tmp_path / "source", os.urandom(6 << 20))
    upload.session = f"{api.server.url}/upload/drive/v3/files?uploadType=resumable&upload_id=gone"
    assert wait(api.upload(upload)).md5 == upload.md5


@pytest.mark.parametrize("name", ["it's", "back\\slash", "ünïcode 名", "a'b\\'c", "100%", "a+b&c=d"])
def test_a_name_is_looked_up_exactly(api: DriveApi, parent: File, name: str) -> None:
    made = wait(api.create_folder(parent.id, name))
    assert [file.id for file in wait(api.lookup(parent.id, name))] == [made.id]
    assert wait(api.lookup(parent.id, name + "x")) == []


def test_a_name_of_another_case_is_another_name(api: DriveApi, parent: File) -> None:
    wait(api.create_folder(parent.id, "Photos"))
    assert wait(api.lookup(parent.id, "photos")) == []


def test_a_long_listing_comes_in_pages(api: DriveApi, parent: File, folder: str, hub: RunningHub) -> None:
    for number in range(1200):
        (hub.my_drive / folder / f"{number}.txt").touch()

    async def names() -> set[str]:
        return {file.name async for file in api.list(parent.id)}

    assert wait(names()) == {f"{number}.txt" for number in range(1200)}


def test_a_file_is_moved_renamed_and_dated(api: DriveApi, parent: File, tmp_path: Path) -> None:
    made = wait(api.upload(new_upload(api, parent, tmp_path / "source", b"x")))
    inner = wait(api.create_folder(parent.id, "inner"))
    moved = wait(api.update(made, name="b.bin", parent=inner.id, modified=1e9))
    assert (moved.id, moved.name, moved.parent, moved.modified) == (made.id, "b.bin", inner.id, 1e9)


@pytest.mark.parametrize("answer", [b'{"files": [{"id": 5}]}', b'{"files": {}}', b"[" * 100_000, b"<html>", b"\xff"])
def test_an_answer_that_is_none_of_a_drives_is_said(api: DriveApi, parent: File, proxy: Proxy, answer: bytes) -> None:
    proxy.rewrite = lambda body: answer
    with pytest.raises(RemoteError):
        wait(DriveApi(credentials.drive()).lookup(parent.id, "a"))


def test_a_trashed_file_is_not_looked_up(api: DriveApi, parent: File, tmp_path: Path) -> None:
    made = wait(api.upload(new_upload(api, parent, tmp_path / "source", b"x")))
    wait(api.trash(made.id))
    assert wait(api.lookup(parent.id, "a.bin")) == []
    wait(api.delete(made.id))
    wait(api.trash(made.id))
    with pytest.raises(NotFound):
        wait(api.get(made.id))


def test_a_wrong_token_is_a_sign_in_error(hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_TOKEN", "wrong")
    with pytest.raises(SignInError) as raised:
        wait(DriveApi(credentials.drive()).get("root"))
    assert "wrong" not in str(raised.value)


def test_a_small_new_file_costs_one_call_beside_its_id(
    api: DriveApi, parent: File, tmp_path: Path, proxy: Proxy
) -> None:
    through = DriveApi(credentials.drive())
    upload = new_upload(through, parent, tmp_path / "source", b"x")
    proxy.calls.clear()
    wait(through.upload(upload))
    assert [call.method for call in proxy.calls] == ["POST"]


def test_side_by_side_uploads_do_not_meet(api: DriveApi, parent: File, tmp_path: Path) -> None:
    uploads = [new_upload(api, parent, tmp_path / str(n), os.urandom(1000 + n), f"{n}.bin") for n in range(20)]

    async def all_of_them() -> list[File]:
        return await asyncio.gather(*(api.upload(upload) for upload in uploads))

    assert [file.md5 for file in wait(all_of_them())] == [upload.md5 for upload in uploads]


def test_ids_come_in_any_number_and_never_twice(api: DriveApi) -> None:
    ids = wait(api.new_ids(1500)) + [wait(api.new_id()) for _ in range(3)]
    assert len(set(ids)) == 1503


async def gathered(pages: AsyncIterator[Page]) -> list[Page]:
    return [page async for page in pages]


def test_many_folders_are_listed_in_one_query(api: DriveApi, parent: File, proxy: Proxy) -> None:
    folders = [wait(api.create_folder(parent.id, f"f{number}")) for number in range(20)]
    for inner in folders:
        wait(api.create_folder(inner.id, "inside"))
    proxy.calls.clear()
    pages = wait(gathered(DriveApi(credentials.drive()).list_folders([one.id for one in folders])))
    assert {file.parent for page in pages for file in page.files} == {one.id for one in folders}
    assert len(proxy.calls) == len(pages) == 1


def test_a_listing_goes_on_from_a_page_in_the_middle(
    api: DriveApi, parent: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_PAGE_SIZE", 3)
    made = wait(api.batch([calls.create_folder(one, parent.id, one) for one in wait(api.new_ids(8))]))
    first, *rest = wait(gathered(api.list_folders([parent.id])))
    again = wait(gathered(api.list_folders([parent.id], first.token)))
    assert again == rest
    assert {file.id for page in (first, *rest) for file in page.files} == {file.id for file in made}


def test_changes_tell_what_was_made_trashed_and_deleted(api: DriveApi, parent: File, tmp_path: Path) -> None:
    token = wait(api.changes_token())
    kept, binned, gone = (
        wait(api.upload(new_upload(api, parent, tmp_path / name, b"x", name))) for name in ("kept", "binned", "gone")
    )
    wait(api.trash(binned.id))
    wait(api.delete(gone.id))

    async def changed() -> dict[str, File | None]:
        return {one.file_id: one.file async for page in api.changes(token) for one in page.changes}

    found = wait(changed())
    assert found[kept.id] == kept
    assert found[gone.id] is None
    assert (trashed := found[binned.id]) is not None
    assert trashed.trashed


def test_changes_go_on_where_they_ended(api: DriveApi, parent: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_PAGE_SIZE", 2)
    token = wait(api.changes_token())
    made = [wait(api.create_folder(parent.id, str(number))).id for number in range(5)]

    async def changes(token: str) -> list[Changes]:
        return [page async for page in api.changes(token)]

    pages = wait(changes(token))
    assert [page.last for page in pages] == [False] * (len(pages) - 1) + [True]
    assert set(made) <= {one.file_id for page in pages for one in page.changes}
    assert [one.file_id for page in wait(changes(pages[-1].token)) for one in page.changes if one.file_id in made] == []


def test_a_batch_answers_each_part_for_itself(api: DriveApi, parent: File) -> None:
    made = wait(api.create_folder(parent.id, "ünï'code"))
    missing = wait(api.new_id())
    found, absent, renamed = wait(
        api.batch([calls.get(made.id), calls.get(missing), calls.update(made, name="renamed 名")])
    )
    assert (found, renamed.name) == (made, "renamed 名")
    assert isinstance(absent, NotFound)


def test_a_batch_of_hundreds_costs_a_call_for_each_hundred(api: DriveApi, parent: File, proxy: Proxy) -> None:
    through = DriveApi(credentials.drive())
    proxy.calls.clear()
    found = wait(through.batch([calls.trash(one) for one in wait(api.new_ids(230))]))
    assert found == [None] * 230
    assert [call.path for call in proxy.calls] == ["/batch/drive/v3"] * 3


def test_names_are_looked_up_many_at_once(api: DriveApi, parent: File) -> None:
    made = [wait(api.create_folder(parent.id, name)) for name in ("a", "B", "it's")]
    wanted = [(parent.id, name) for name in ("a", "b", "B", "it's", "none")]
    assert wait(api.lookups(wanted)) == [[made[0]], [], [made[1]], [made[2]], []]


def test_what_is_restored_is_out_of_the_trash(api: DriveApi, parent: File) -> None:
    made = wait(api.create_folder(parent.id, "back"))
    wait(api.trash(made.id))
    assert not wait(api.restore(made.id)).trashed
    assert [file.id for file in wait(api.lookup(parent.id, "back"))] == [made.id]
