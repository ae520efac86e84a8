"""Several archives as one data set, and putting a folder somewhere as such."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from haversack.archive.writer import folder_files, write_shards
from haversack.datasets.cache import list_cached, remove
from haversack.datasets.publication import put_shards
from haversack.datasets.source import dataset
from haversack.errors import InputError, NotFound
from tests.archive.zips import zipped
from tests.conftest import RunningHub
from tests.datasets.test_commands import Captured, run

LIMIT = 3_010_000


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    """The files of a data set in two archives."""
    assert len(write_shards(folder_files(folder).items(), tmp_path / "set", LIMIT)) == 2
    return tmp_path / "set"


def test_they_are_read_as_one(shards: Path, files: dict[str, bytes], tmp_path: Path) -> None:
    with dataset(f"{shards}/*.zip") as data:
        assert data.files == sorted(files)
        assert {name: data.read(name) for name in data.files} == files
        assert data.path("labels.csv").read_bytes() == files["labels.csv"]
        assert data.info()["archives"] == 2
        extracted = data.extract(tmp_path / "to")
    assert all((extracted / name).read_bytes() == content for name, content in files.items())


def test_they_are_saved_as_one_archive(shards: Path, files: dict[str, bytes], tmp_path: Path) -> None:
    with dataset(f"{shards}/*.zip") as data:
        saved = data.save(tmp_path / "one.zip")
    with dataset(saved) as one:
        assert {name: one.read(name) for name in one.files} == files


def test_their_images_are_batches(shards: Path) -> None:
    with dataset(f"{shards}/*.zip") as data:
        images = data.images(size=(28, 28), channels=1, labels=None, batch_size=40)
        assert images[0].shape == (40, 28, 28, 1)
        images.close()


def test_one_that_is_missing_is_told(shards: Path) -> None:
    (shards / "set-00000-of-00002.zip").unlink()
    with pytest.raises(NotFound, match=r"1 are missing.*set-00000-of-00002\.zip"):
        dataset(f"{shards}/*.zip")


def test_a_name_in_two_archives_is_told(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.zip").write_bytes(zipped({"a.txt": name.encode()}))
    with pytest.raises(InputError, match=r"a\.txt is both in .*one\.zip and in .*two\.zip"):
        dataset(f"{tmp_path}/*.zip")


def test_no_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no archive"):
        dataset(f"{tmp_path}/*.zip")


def test_a_folder_is_put_on_the_drive_in_archives(
    hub: RunningHub, folder: Path, files: dict[str, bytes], capsys: Captured
) -> None:
    place = f"drive:/My Drive/set-{uuid.uuid4().hex[:8]}"
    assert run("put", folder, place, "--shard", "3.01MB", "--json") == 0
    put = json.loads(capsys.readouterr().out)
    assert len(put["archives"]) == 2
    with dataset(put["source"]) as data:
        assert data.read("images/3.png") == files["images/3.png"]
        assert data.info()["archive_here"] < data.info()["archive_size"]
        data.want(["noise.bin", "labels.csv"])
        data.fetch()
        assert {name: data.read(name) for name in data.files} == files
    remove(list_cached(put["source"]))
    assert not list_cached()


def test_archives_that_are_there_are_not_put_again(hub: RunningHub, folder: Path) -> None:
    name = f"set-{uuid.uuid4().hex[:8]}"
    for _ in range(2):
        archives = put_shards(folder, f"drive:/{name}", LIMIT).archives
        stamps = {one: (hub.my_drive / name / one).stat().st_mtime_ns for one in archives}
    (hub.my_drive / name / archives[0]).write_bytes(b"half")
    again = put_shards(folder, f"drive:/{name}", LIMIT)
    changed = [one for one in archives if (hub.my_drive / name / one).stat().st_mtime_ns != stamps[one]]
    assert (again.archives, changed) == (archives, [archives[0]])
    with dataset(again.source) as data:
        data.fetch()


def test_other_archives_in_the_folder_are_told(hub: RunningHub, folder: Path) -> None:
    name = f"drive:/set-{uuid.uuid4().hex[:8]}"
    put_shards(folder, name, LIMIT)
    with pytest.raises(InputError, match="has another archive already"):
        put_shards(folder, name, 2 * LIMIT)


@pytest.mark.parametrize("place", ["kaggle:me/x", "https://example.org/x", "x.zip"])
def test_places_that_take_one_archive_are_told(folder: Path, place: str) -> None:
    with pytest.raises(InputError, match="cannot hold several archives"):
        put_shards(folder, place)


def test_a_folder_of_this_machine_takes_them(
    folder: Path, files: dict[str, bytes], tmp_path: Path, capsys: Captured
) -> None:
    assert run("put", folder, tmp_path / "to", "--shard", "1GB") == 0
    assert "1 archive, 3.0 MB; read them as" in capsys.readouterr().out
    with dataset(f"{tmp_path}/to/*.zip") as data:
        assert data.read("noise.bin") == files["noise.bin"]
