"""A folder of a data set as a data set."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from haversack.datasets.source import dataset
from haversack.errors import NotFound


def test_names_are_those_in_the_folder(published: str) -> None:
    with dataset(f"{published}/images") as data:
        assert data.files == [f"{number}.png" for number in range(40)]
        assert data.source == f"{published}@1/images"


def test_the_folder_of_a_version(published: str, files: dict[str, bytes]) -> None:
    with dataset(f"{published}@1/images/") as data:
        assert data.read("3.png") == files["images/3.png"]
        with data.open("4.png") as opened:
            assert opened.read() == files["images/4.png"]
        assert data.path("5.png").read_bytes() == files["images/5.png"]


def test_a_single_file(published: str, files: dict[str, bytes]) -> None:
    with dataset(f"{published}/images/7.png") as data:
        assert data.files == ["7.png"]
        assert data.read("7.png") == files["images/7.png"]


def test_only_its_files_are_fetched(published: str, files: dict[str, bytes], tmp_path: Path) -> None:
    with dataset(f"{published}/images") as data:
        extracted = data.extract(tmp_path / "to")
        assert data.info()["archive_here"] < 300_000 < data.info()["archive_size"]
    assert {path.name: path.read_bytes() for path in extracted.iterdir()} == {
        name.removeprefix("images/"): bytes_ for name, bytes_ in files.items() if name.startswith("images/")
    }


def test_it_is_saved_as_an_archive_of_its_own(published: str, files: dict[str, bytes], tmp_path: Path) -> None:
    with dataset(f"{published}/images") as data:
        saved = data.save(tmp_path)
    assert saved == tmp_path / "images.zip"
    with zipfile.ZipFile(io.BytesIO(saved.read_bytes())) as archive:
        assert archive.read("0.png") == files["images/0.png"]
        assert len(archive.namelist()) == 40
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".haversack")]


def test_its_images_are_batches(published: str) -> None:
    with dataset(f"{published}/images") as data:
        assert data.images(size=(28, 28), channels=1, labels=None, batch_size=8)[0].shape == (8, 28, 28, 1)


def test_two_folders_are_not_one_content(published: str) -> None:
    with dataset(published) as whole, dataset(f"{published}/images") as part:
        assert whole.content != part.content


def test_an_unknown_folder_is_told_with_those_there_are(published: str) -> None:
    with pytest.raises(NotFound, match=r"no folder or file 'image' in .* Similar folders: images"):
        dataset(f"{published}/image")
