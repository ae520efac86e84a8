from __future__ import annotations

import ctypes
import os
import random
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from haversack.archive.reader import Archive, LocalFile
from haversack.archive.writer import folder_files, pack, write_shards
from haversack.errors import DiskFull, InputError
from tests.blocks.test_sparse import small_disk  # noqa: F401 - a fixture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "b" / "c").mkdir(parents=True)
    (made / "b" / "c" / "ä.txt").write_text("deep")
    (made / "a.txt").write_text("a")
    return made


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Let this thread, if it is root's, do without the capabilities to read what permissions forbid; capset(2)."""
    header, before = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, before) == 0
    without = (ctypes.c_uint32 * 6)(*before)
    without[0] &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH in the effective set
    assert libc.capset(header, without) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


def test_other_tools_read_what_was_packed(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {"a.txt": b"a", "b/c/ä.txt": b"deep"}


def test_own_reader_reads_what_was_packed(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "out.zip")
    archive = Archive(LocalFile(tmp_path / "out.zip"))
    assert archive.read(archive.members["b/c/ä.txt"]) == b"deep"


def test_same_files_make_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "one.zip")
    os.utime(folder / "a.txt", (5, 5))
    pack(folder, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_folder_without_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no file"):
        pack(tmp_path / "empty", tmp_path / "out.zip")


@pytest.mark.parametrize("target", ["nowhere", "."])
def test_links_that_lead_elsewhere_are_refused(folder: Path, tmp_path: Path, target: str) -> None:
    (folder / "link").symlink_to(target)
    with pytest.raises(InputError, match="neither a file nor a folder"):
        pack(folder, tmp_path / "out.zip")


def test_name_that_is_no_text_is_refused_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).write_text("x")
    with pytest.raises(InputError, match="not Unicode"):
        pack(folder, tmp_path / "out.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def noise(count: int) -> dict[str, bytes]:
    draw = random.Random(4)
    return {f"images/{number:03}.png": draw.randbytes(draw.randint(0, 20_000)) for number in range(count)}


def test_shards_hold_every_file_once_and_none_is_too_large(tmp_path: Path) -> None:
    files = noise(60)
    made = write_shards(files.items(), tmp_path / "set", 50_000)
    assert [path.name for path in made] == [f"set-{n:05}-of-{len(made):05}.zip" for n in range(len(made))]
    assert max(path.stat().st_size for path in made) <= 50_000
    found: dict[str, bytes] = {}
    for path in made:
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            found |= {name: archive.read(name) for name in archive.namelist()}
    assert found == files
    assert list(found) == list(files)


def test_own_reader_reads_shards_of_a_folder(folder: Path, tmp_path: Path) -> None:
    (made,) = write_shards(folder_files(folder).items(), tmp_path / "set", 10_000)
    archive = Archive(LocalFile(made))
    assert {name: archive.read(archive.members[name]) for name in archive.members} == {
        "a.txt": b"a",
        "b/c/ä.txt": b"deep",
    }


def test_a_shard_may_be_filled_to_the_last_byte(tmp_path: Path) -> None:
    (whole,) = write_shards([("a", bytes(1000))], tmp_path / "whole", 2000)
    assert whole.stat().st_size > 1000
    with pytest.raises(InputError, match="too many for archives of 1,100"):
        write_shards([("a", bytes(1000))], tmp_path / "set", 1100)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("name", ["../a", "/a", "a//b", "a/./b", "a\\b", ""])
def test_a_name_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="leave its folder"):
        write_shards([("good", b""), (name, b"")], tmp_path / "set", 10_000)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="given twice"):
        write_shards([("a", b"1"), ("a", b"2")], tmp_path / "set", 10_000)


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(InputError, match="exists already"):
        write_shards([("a", b"1")], tmp_path / "set", 10_000)


def test_nothing_is_left_where_making_the_files_fails(tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[str, bytes]]:
        yield "a", bytes(5000)
        yield "b", bytes(5000)
        raise RuntimeError("of the caller")

    with pytest.raises(RuntimeError, match="of the caller"):
        write_shards(failing(), tmp_path / "set", 8000)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_and_nothing_is_left(small_disk: Path) -> None:  # noqa: F811
    with pytest.raises(DiskFull, match="is full"):
        write_shards(((str(number), bytes(500_000)) for number in range(9)), small_disk / "set", 800_000)
    assert not list(small_disk.iterdir())


def test_a_folder_that_cannot_be_read_is_refused_by_name(folder: Path) -> None:
    locked = folder / "locked"
    locked.mkdir()
    locked.chmod(0)
    with (
        bound_by_permissions(),
        pytest.raises(InputError, match=rf"The folder {locked} cannot be read: Permission denied"),
    ):
        folder_files(folder)
