"""The drive as an fsspec file system."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from haversack.drive import tree
from haversack.drive.filesystem import DriveFileSystem, fetch, store
from haversack.drive.tree import Drive
from haversack.errors import (
    AlreadyExists,
    ConnectionFailed,
    FolderNotEmpty,
    InputError,
    IsAFolder,
    NotAFolder,
    NotFound,
    SignInError,
)
from tests.conftest import RunningHub
from tests.drive.conftest import Proxy


@pytest.mark.parametrize("prefix", ["", "/", "My Drive/", "/MyDrive/", "drive://", "drive://My Drive/"])
def test_one_file_has_the_path_it_has_in_a_mount(fs: DriveFileSystem, folder: str, prefix: str) -> None:
    fs.pipe_file(f"{folder}/a.txt", b"bytes")
    assert fs.cat_file(f"{prefix}{folder}/a.txt") == b"bytes"


def test_fsspec_opens_a_drive_url(hub: RunningHub, folder: str) -> None:
    with fsspec.open(f"drive://{folder}/a.txt", "wt") as file:
        file.write("naïve\n")
    with fsspec.open(f"drive://{folder}/a.txt", "rt") as file:
        assert file.read() == "naïve\n"


def test_close_returns_once_the_bytes_are_on_the_drive(fs: DriveFileSystem, hub: RunningHub, folder: str) -> None:
    with fs.open(f"{folder}/a.bin", "wb") as file:
        file.write(b"x" * 100_000)
    assert (hub.my_drive / folder / "a.bin").read_bytes() == b"x" * 100_000


def test_folders_that_two_machines_make_at_once_are_one(
    hub: RunningHub, fs: DriveFileSystem, folder: str, tmp_path: Path
) -> None:
    other = Drive(fs.drive.server, tmp_path / "data", tmp_path / "cache")
    fs.ls(folder)  # from now on, for some seconds, nothing is asked about it again
    theirs = other.make_folder((folder, "run"))
    fs.makedirs(f"{folder}/run/one", exist_ok=True)
    assert fs.info(f"{folder}/run")["id"] == theirs.id
    assert [path.name for path in (hub.my_drive / folder).iterdir()] == ["run"]
    assert (hub.my_drive / folder / "run" / "one").is_dir()


def test_rewriting_keeps_the_files_id(fs: DriveFileSystem, folder: str) -> None:
    fs.pipe_file(f"{folder}/a", b"one")
    before = fs.info(f"{folder}/a")["id"]
    fs.pipe_file(f"{folder}/a", b"three")
    assert (fs.info(f"{folder}/a")["id"], fs.cat_file(f"{folder}/a")) == (before, b"three")


def test_appending_keeps_what_was_there(fs: DriveFileSystem, folder: str) -> None:
    fs.pipe_file(f"{folder}/a", b"one")
    with fs.open(f"{folder}/a", "ab") as file:
        file.write(b"two")
    assert fs.cat_file(f"{folder}/a") == b"onetwo"


def test_ranges_of_a_large_file(hub: RunningHub, fs: DriveFileSystem, folder: str) -> None:
    content = os.urandom((9 << 20) + 11)
    (hub.my_drive / folder / "big").write_bytes(content)
    path = f"{folder}/big"
    assert fs.cat_file(path, (4 << 20) - 3, (4 << 20) + 3) == content[(4 << 20) - 3 : (4 << 20) + 3]
    assert fs.cat_file(path, -5) == content[-5:]
    assert fs.cat_file(path) == content


def test_a_file_changed_on_the_drive_is_read_anew(hub: RunningHub, fs: DriveFileSystem, folder: str) -> None:
    (hub.my_drive / folder / "a").write_bytes(b"old")
    assert fs.cat_file(f"{folder}/a") == b"old"
    (hub.my_drive / folder / "a").write_bytes(b"changed")
    # What was seen is believed for some seconds, but bytes are checked against their hash.
    fs.drive.index.invalidate(fs.info(folder)["id"])
    assert fs.cat_file(f"{folder}/a") == b"changed"


def test_a_file_in_a_crowded_folder_is_looked_up_not_listed(
    hub: RunningHub, proxy: Proxy, folder: str, fs: DriveFileSystem
) -> None:
    for number in range(2000):
        (hub.my_drive / folder / f"{number}.txt").write_text(str(number))
    with DriveFileSystem(hub=proxy.url).open(f"{folder}/1234.txt") as file:
        assert file.read() == b"1234"
    queries = [call.path for call in proxy.calls if "q=" in call.path]
    assert len(queries) <= 2, queries  # the folder by its name, the file by its name
    assert all("name" in query for query in queries), queries


def test_what_is_known_is_not_asked_again(hub: RunningHub, proxy: Proxy, folder: str) -> None:
    through = DriveFileSystem(hub=proxy.url)
    for number in range(20):
        (hub.my_drive / folder / f"{number}.txt").write_text("x")
    through.ls(folder)
    proxy.calls.clear()
    assert all(through.info(f"{folder}/{number}.txt")["size"] == 1 for number in range(20))
    assert not through.exists(f"{folder}/none")
    assert proxy.calls == []


def test_moving_is_done_by_the_drive(fs: DriveFileSystem, folder: str) -> None:
    fs.pipe_file(f"{folder}/a", b"moved")
    fs.mkdir(f"{folder}/inner")
    before = fs.info(f"{folder}/a")["id"]
    fs.mv(f"{folder}/a", f"{folder}/inner")
    assert fs.info(f"{folder}/inner/a")["id"] == before
    assert not fs.exists(f"{folder}/a")


def test_removed_files_go_to_the_trash(fs: DriveFileSystem, hub: RunningHub, folder: str) -> None:
    fs.mkdir(f"{folder}/inner")
    fs.pipe_file(f"{folder}/inner/a", b"x")
    with pytest.raises(IsAFolder):
        fs.rm(f"{folder}/inner")
    fs.rm(f"{folder}/inner", recursive=True)
    assert fs.ls(folder) == []
    assert not (hub.my_drive / folder / "inner").exists()


def test_removing_takes_names_and_not_patterns(fs: DriveFileSystem, folder: str) -> None:
    for name in ("a1", "a[1]", "a*"):
        fs.pipe_file(f"{folder}/{name}", b"")
    fs.rm(f"{folder}/a[1]")
    fs.rm([f"{folder}/a*"])
    assert fs.ls(folder, detail=False) == [f"{folder}/a1"]


def test_only_an_empty_folder_is_removed_as_one(fs: DriveFileSystem, folder: str) -> None:
    fs.pipe_file(f"{folder}/a", b"x")
    with pytest.raises(FolderNotEmpty):
        fs.rmdir(folder)
    fs.rm(f"{folder}/a")
    fs.rmdir(folder)
    assert not fs.exists(folder)


def test_every_file_below_is_found(fs: DriveFileSystem, folder: str) -> None:
    for path in ("a", "x/b", "x/y/c"):
        fs.makedirs(fs._parent(f"{folder}/{path}"), exist_ok=True)
        fs.pipe_file(f"{folder}/{path}", b"x")
    assert fs.find(folder) == [f"{folder}/a", f"{folder}/x/b", f"{folder}/x/y/c"]
    assert fs.glob(f"{folder}/**/c") == [f"{folder}/x/y/c"]


def test_of_two_files_of_one_name_the_first_has_it_and_the_other_a_number(fs: DriveFileSystem, folder: str) -> None:
    from haversack.http import wait

    fs.pipe_file(f"{folder}/a", b"old")
    fs.pipe_file(f"{folder}/b", b"new")
    wait(fs.drive.api.update(fs.drive.find((folder, "b")), name="a", modified=4e9))
    fs.drive.index.invalidate(fs.info(folder)["id"])
    assert (fs.cat_file(f"{folder}/a"), fs.cat_file(f"{folder}/a (1)")) == (b"old", b"new")
    assert fs.ls(folder, detail=False) == [f"{folder}/a", f"{folder}/a (1)"]


def test_a_name_with_a_slash_stays_in_its_folder(fs: DriveFileSystem, folder: str) -> None:
    from haversack.http import wait

    fs.pipe_file(f"{folder}/a", b"x")
    wait(fs.drive.api.update(fs.drive.find((folder, "a")), name="../up"))
    fs.drive.index.invalidate(fs.info(folder)["id"])
    assert fs.ls(folder, detail=False) == [f"{folder}/..／up"]
    assert fs.cat_file(f"{folder}/..／up") == b"x"


def test_dots_in_a_path_lead_where_they_do_elsewhere(fs: DriveFileSystem, folder: str) -> None:
    fs.pipe_file(f"./{folder}/sub/../a", b"x")
    assert fs.cat_file(f"../{folder}/./a") == b"x"
    assert fs.ls(folder, detail=False) == [f"{folder}/a"]


def test_a_pickled_file_system_is_the_same(fs: DriveFileSystem, folder: str) -> None:
    fs.pipe_file(f"{folder}/a", b"x")
    assert pickle.loads(pickle.dumps(fs)).cat_file(f"{folder}/a") == b"x"


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda fs, at: fs.open(f"{at}/none"), NotFound),
        (lambda fs, at: fs.info(f"{at}/file/inside"), NotAFolder),
        (lambda fs, at: fs.open(at), IsAFolder),
        (lambda fs, at: fs.open(at, "wb"), IsAFolder),
        (lambda fs, at: fs.open(f"{at}/none/a", "wb"), NotFound),
        (lambda fs, at: fs.open(f"{at}/file", "xb"), AlreadyExists),
        (lambda fs, at: fs.open(f"{at}/file", "r+b"), InputError),
        (lambda fs, at: fs.mkdir(f"{at}/file"), AlreadyExists),
        (lambda fs, at: fs.rm(f"{at}/none"), NotFound),
    ],
)
def test_what_cannot_be_done_is_said(fs: DriveFileSystem, folder: str, act, error) -> None:  # type: ignore[no-untyped-def]
    fs.pipe_file(f"{folder}/file", b"x")
    with pytest.raises(error):
        act(fs, folder)
    assert fs.cat_file(f"{folder}/file") == b"x"


def test_a_hub_that_is_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_TOKEN", "secret-token")
    with pytest.raises(ConnectionFailed) as raised:
        DriveFileSystem(hub="http://127.0.0.1:9").ls("")
    assert "127.0.0.1:9" in str(raised.value)
    assert "secret-token" not in str(raised.value)


def test_a_wrong_token_is_said(hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_TOKEN", "wrong")
    with pytest.raises(SignInError):
        DriveFileSystem().ls("")


def test_a_folder_goes_there_and_comes_back(fs: DriveFileSystem, folder: str, tmp_path: Path) -> None:
    (tmp_path / "out" / "empty").mkdir(parents=True)
    (tmp_path / "out" / "a.bin").write_bytes(os.urandom(6 << 20))
    (tmp_path / "out" / "b.txt").write_text("b")
    assert store(tmp_path / "out", folder) == f"{folder}/out"
    (tmp_path / "in").mkdir()
    assert fetch(f"{folder}/out", tmp_path / "in") == tmp_path / "in" / "out"
    subprocess.run(["diff", "-r", tmp_path / "out", tmp_path / "in" / "out"], check=True)


def test_many_folders_are_made_with_few_calls(hub: RunningHub, proxy: Proxy, folder: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number in range(60):
        (source / f"{number % 5}" / f"{number}" / "below").mkdir(parents=True)
    store(source, folder)
    making = [call for call in proxy.calls if call.method == "POST"]
    assert {call.path for call in making} == {"/batch/drive/v3"}
    assert len(making) <= 8
    (source / "0" / "0" / "below" / "new").mkdir()
    store(source, folder)
    there = hub.my_drive / folder / "source"
    expected = {path.relative_to(source) for path in source.rglob("*")}
    assert {path.relative_to(there) for path in there.rglob("*")} == expected


@pytest.mark.parametrize("target", [".", "nowhere"])
def test_a_folder_with_what_a_drive_cannot_keep_is_refused_whole(
    fs: DriveFileSystem, folder: str, tmp_path: Path, target: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_bytes(b"")
    (tmp_path / "in" / "link").symlink_to(target)
    with pytest.raises(InputError, match="link is neither a file nor a folder"):
        store(tmp_path / "in", f"{folder}/in")
    assert not fs.exists(f"{folder}/in")


def test_a_stored_file_keeps_its_time(fs: DriveFileSystem, folder: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    os.utime(tmp_path / "a", (1e9, 1e9))
    store(tmp_path / "a", f"{folder}/")
    assert fetch(f"{folder}/a", tmp_path / "b").stat().st_mtime == 1e9


def test_fetching_never_writes_over_a_file(fs: DriveFileSystem, folder: str, tmp_path: Path) -> None:
    fs.pipe_file(f"{folder}/a", b"drive")
    (tmp_path / "a").write_text("mine")
    with pytest.raises(AlreadyExists):
        fetch(f"{folder}/a", tmp_path)
    assert (tmp_path / "a").read_text() == "mine"


def test_fetching_what_is_missing_leaves_nothing(fs: DriveFileSystem, folder: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        fetch(f"{folder}/none", tmp_path / "a")
    assert list(tmp_path.glob("[!o]*")) == []


def test_the_command_line_lists_puts_gets_and_removes(hub: RunningHub, folder: str, tmp_path: Path) -> None:
    def haversack(*arguments: str) -> str:
        command = [sys.executable, "-m", "haversack", "drive", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout

    (tmp_path / "a.txt").write_text("hello")
    assert haversack("put", "a.txt", folder).strip() == f"{folder}/a.txt"
    assert "a.txt" in haversack("ls", folder)
    (tmp_path / "a.txt").unlink()
    assert haversack("get", f"{folder}/a.txt").strip() == "a.txt"
    haversack("rm", f"{folder}/a.txt")
    assert haversack("ls", folder) == ""


def test_a_root_is_no_file(fs: DriveFileSystem) -> None:
    assert fs.info("")["type"] == "directory"
    assert tree.split("//a//b/") == ("a", "b")
