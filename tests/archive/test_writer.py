from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from haversack.archive.reader import Archive, LocalFile
from haversack.archive.writer import pack
from haversack.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "b" / "c").mkdir(parents=True)
    (made / "b" / "c" / "ä.txt").write_text("deep")
    (made / "a.txt").write_text("a")
    return made


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
