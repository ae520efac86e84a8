"""What a killed hub had begun is finished at the next start, and a full disk harms nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haversack.hub.content import stage_file
from haversack.hub.datasets import Blob, DatasetStore
from haversack.hub.records import Records
from haversack.hub.refusal import Refusal
from haversack.hub.tree import Tree
from tests.conftest import start_hub

from .conftest import google_client, send


def open_tree(root: Path) -> Tree:
    (root / ".hub").mkdir(parents=True, exist_ok=True)
    return Tree(root / "My Drive", root / ".hub", Records(root / ".hub" / "records.sqlite"))


def add(tree: Tree, name: str) -> str:
    aside = tree.folder.parent / "aside"
    aside.write_bytes(b"content")
    return tree.add("root", name, "text/plain", stage_file(aside), {}).id


def test_a_file_killed_on_its_way_to_the_trash_is_in_the_trash(tmp_path: Path) -> None:
    tree = open_tree(tmp_path)
    file_id = add(tree, "a")
    os.rename(tmp_path / "My Drive" / "a", tmp_path / ".hub" / "trash" / file_id)
    again = open_tree(tmp_path)
    assert again.get(file_id).trashed
    again.revise(file_id, {"trashed": False})
    assert (tmp_path / "My Drive" / "a").read_bytes() == b"content"


def test_a_file_killed_on_its_way_out_of_the_trash_is_in_the_trash(tmp_path: Path) -> None:
    tree = open_tree(tmp_path)
    file_id = add(tree, "a")
    tree.revise(file_id, {"trashed": True})
    os.rename(tmp_path / ".hub" / "trash" / file_id, tmp_path / "My Drive" / "a")
    assert open_tree(tmp_path).get(file_id).trashed
    assert not (tmp_path / "My Drive" / "a").exists()


def test_a_deletion_that_was_begun_is_finished(tmp_path: Path) -> None:
    tree = open_tree(tmp_path)
    file_id = add(tree, "a")
    os.rename(tmp_path / "My Drive" / "a", tmp_path / ".hub" / "doomed" / file_id)
    again = open_tree(tmp_path)
    with pytest.raises(Refusal, match="File not found"):
        again.get(file_id)
    assert list((tmp_path / ".hub" / "doomed").iterdir()) == []


def test_an_id_whose_file_never_came_to_its_place_can_be_used_again(tmp_path: Path) -> None:
    tree = open_tree(tmp_path)
    file_id = add(tree, "a")
    tree.records.write("UPDATE files SET changed = 0 WHERE id = ?", file_id)  # as it is before the file is in its place
    (tmp_path / "My Drive" / "a").unlink()
    open_tree(tmp_path).check_unused(file_id)


def test_a_trashed_file_survives_the_folder_it_was_in(tmp_path: Path) -> None:
    tree = open_tree(tmp_path)
    folder = tree.add("root", "below", "application/vnd.google-apps.folder", None, {}).id
    aside = tmp_path / "aside"
    aside.write_bytes(b"content")
    file_id = tree.add(folder, "a", "text/plain", stage_file(aside), {}).id
    tree.revise(file_id, {"trashed": True})
    tree.delete(folder)
    tree.revise(file_id, {"trashed": False})
    assert (tmp_path / "My Drive" / "a").read_bytes() == b"content"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("kind", ["media", "resumable"])
def test_a_full_disk_is_said_so_and_leaves_nothing_half_written(small_disk: Path, kind: str) -> None:
    hub = start_hub(small_disk / "root")
    try:
        target = f"/upload/drive/v3/files?uploadType={kind}"
        if kind == "resumable":
            location = send(hub, "POST", target, "{}").headers["Location"]
            target = location.removeprefix(hub.url)
        reply = send(hub, "PUT" if kind == "resumable" else "POST", target, b"x" * 20_000_000)
        assert reply.status == 403
        assert reply.json()["error"]["errors"][0]["reason"] == "storageQuotaExceeded"
        assert list(hub.my_drive.iterdir()) == []
        if kind == "resumable":
            assert send(hub, "DELETE", target).status == 499
        client: Any = google_client(hub)
        assert client.files().create(body={"name": "a"}).execute()["name"] == "a"
    finally:
        hub.process.terminate()
        hub.process.wait(60)


def test_versions_of_a_lost_database_stay(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("old")
    folder = tmp_path / "kaggle" / "me" / "set"
    for text in ("old", "new"):
        (tmp_path / "blob").unlink()
        (tmp_path / "blob").write_text(text)
        store = DatasetStore(tmp_path / "kaggle", tmp_path / ".hub", Records(tmp_path / f"{text}.sqlite"))
        store.create("me", "set", {}, False, [Blob("a.txt", tmp_path / "blob")])
    DatasetStore(tmp_path / "kaggle", tmp_path / ".hub", Records(tmp_path / "new.sqlite"))
    assert (folder / "1" / "a.txt").read_text() == "new"
    assert [path.read_text() for path in folder.glob("1.before-*/a.txt")] == ["old"]
