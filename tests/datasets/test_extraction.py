from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from haversack.datasets.source import dataset
from haversack.errors import DiskFull, InputError
from tests.archive.zips import zipped
from tests.blocks.test_sparse import small_disk  # noqa: F401 - a fixture


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_file_is_laid_out(published: str, files: dict[str, bytes], tmp_path: Path) -> None:
    with dataset(published) as data:
        assert data.extract(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert tree(tmp_path / "a" / "b") == files
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_other_files_of_the_folder_stay(archive: Path, files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "mine.txt").write_text("mine")
    dataset(str(archive)).extract(tmp_path / "to")
    assert tree(tmp_path / "to") == {**files, "mine.txt": b"mine"}


def test_equal_files_are_kept_as_they_are(archive: Path, tmp_path: Path) -> None:
    data = dataset(str(archive))
    before = (data.extract(tmp_path / "to") / "labels.csv").stat()
    (tmp_path / "to" / "images" / "1.png").unlink()
    after = (data.extract(tmp_path / "to") / "labels.csv").stat()
    assert before.st_ino == after.st_ino
    assert (tmp_path / "to" / "images" / "1.png").exists()


@pytest.mark.parametrize("name", ["labels.csv", "images/5.png"])
def test_other_bytes_are_never_overwritten(archive: Path, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "to" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(InputError, match="a different file"):
        dataset(str(archive)).extract(tmp_path / "to")
    assert tree(tmp_path / "to") == {name: b"mine"}


def test_conflict_is_told_before_anything_is_fetched(published: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("mine")
    with dataset(published) as data:
        here = data.info()["archive_here"]
        with pytest.raises(InputError):
            data.extract(tmp_path)
        assert data.info()["archive_here"] == here


def test_file_where_a_folder_must_be_is_a_conflict(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "images").write_text("mine")
    with pytest.raises(InputError, match="a different file"):
        dataset(str(archive)).extract(tmp_path / "to")


def test_link_that_leads_out_is_not_followed(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "to" / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="leads out"):
        dataset(str(archive)).extract(tmp_path / "to")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_link_to_a_file_is_not_written_through(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "labels.csv").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="a different file"):
        dataset(str(archive)).extract(tmp_path / "to")
    assert not (tmp_path / "elsewhere").exists()


def test_target_that_is_a_file_is_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        dataset(str(archive)).extract(archive)


def test_damaged_archive_leaves_nothing(tmp_path: Path) -> None:
    import zipfile

    from haversack.errors import IntegrityError

    data = zipped({"good": b"good", "bad": b"snow"}, method=zipfile.ZIP_STORED).replace(b"snow", b"snew")
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(IntegrityError):
        dataset(str(tmp_path / "x.zip")).extract(tmp_path / "to")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_name_that_is_file_and_folder_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(zipped({"a": b"1", "a/b": b"2"}))
    with pytest.raises(InputError, match="both a file and a folder"):
        dataset(str(tmp_path / "x.zip")).extract(tmp_path / "to")
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_full_disk_is_told_first(archive: Path, small_disk: Path) -> None:  # noqa: F811
    with pytest.raises(DiskFull):
        dataset(str(archive)).extract(small_disk / "to")
    assert not list(small_disk.iterdir())


def test_what_a_killed_extraction_left_is_cleared_away(archive: Path, files: dict[str, bytes], tmp_path: Path) -> None:
    left = tmp_path / ".to.haversack-extracting"
    left.mkdir()
    (left / "half").write_text("half")
    dataset(str(archive)).extract(tmp_path / "to")
    assert tree(tmp_path / "to") == files
    assert not left.exists()


def test_unzip_agrees(archive: Path, tmp_path: Path) -> None:
    import sys

    dataset(str(archive)).extract(tmp_path / "ours")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", archive, tmp_path / "theirs"], check=True)
    assert tree(tmp_path / "ours") == tree(tmp_path / "theirs")
