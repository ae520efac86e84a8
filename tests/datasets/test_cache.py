"""What is kept of data sets, and how it goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack import settings
from haversack.datasets.cache import list_cached, remove
from haversack.datasets.publication import put
from haversack.datasets.source import dataset
from tests.archive.zips import zipped


def test_nothing_is_kept_at_first() -> None:
    assert list_cached() == []


def test_every_source_is_kept_with_its_name(published: str, archive: Path) -> None:
    dataset(archive).close()
    dataset(published).close()
    assert [one.source for one in list_cached()] == sorted([str(archive), f"{published}@1"])


def test_only_what_is_here_counts(published: str) -> None:
    with dataset(published) as data:
        data.read("labels.csv")
        (one,) = list_cached(published)
        assert data.info()["archive_here"] <= one.files < 1_000_000 < data.info()["archive_size"]


def test_every_version_goes_and_no_other_set(published: str, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "next.zip").write_bytes(zipped({"only.txt": b"second"}))
    put(tmp_path / "next.zip", published)
    for source in (published, f"{published}@1", str(archive)):
        dataset(source).close()
    found = list_cached(published)
    assert [one.source for one in found] == [f"{published}@1", f"{published}@2"]
    remove(found)
    assert [one.source for one in list_cached()] == sorted([str(archive), str(tmp_path / "next.zip")])


def test_a_removed_set_is_fetched_again(published: str, files: dict[str, bytes]) -> None:
    with dataset(published) as data:
        data.fetch()
    remove(list_cached(published))
    with dataset(published) as data:
        assert data.info()["archive_here"] < data.info()["archive_size"]
        assert data.read("noise.bin") == files["noise.bin"]


def test_who_has_it_open_reads_on(published: str, files: dict[str, bytes]) -> None:
    with dataset(published) as data:
        data.fetch()
        remove(list_cached(published))
        assert data.read("noise.bin") == files["noise.bin"]


def test_decoded_pixels_are_found_by_the_source_and_go_with_it(published: str) -> None:
    with dataset(published) as data:
        images = data.images(size=(28, 28), channels=1, labels=None)
        images[0]
        images.close()
        assert data.info()["pixels_here"] > 0
    (one,) = list_cached(published)
    assert one.pixels > 0
    remove([one])
    assert not any((settings.load().cache / "pixels").iterdir())


@pytest.mark.parametrize("name", [".source", "files/.source", "source"])
def test_a_file_that_is_called_like_the_note_is_no_note(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zipped({name: b"/another/set"}))
    with dataset(path) as data:
        assert data.path(name).read_bytes() == b"/another/set"
    assert [one.source for one in list_cached()] == [str(path)]
