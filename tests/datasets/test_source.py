from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from haversack import credentials
from haversack.datasets.publication import put
from haversack.datasets.source import dataset
from haversack.errors import ArchiveInvalid, InputError, IntegrityError, NotFound, SignInError
from tests.archive.zips import zipped
from tests.conftest import RunningHub
from tests.datasets.test_commands import run


def test_files_are_listed_with_sizes(published: str, files: dict[str, bytes]) -> None:
    with dataset(published) as data:
        assert data.files == list(files)
        assert {member.name: member.size for member in data.members} == {name: len(files[name]) for name in files}


def test_sizes_are_listed_without_an_object_for_each_file(
    published: str, folder: Path, files: dict[str, bytes]
) -> None:
    for source, is_archive in ((published, True), (str(folder), False)):
        with dataset(source) as data:
            assert dict(data.sizes()) == {name: len(content) for name, content in files.items()}
            assert data.is_archive == is_archive
            assert data.name == source.rpartition("/")[2]


def test_listing_fetches_only_the_end(published: str) -> None:
    with dataset(published) as data:
        assert data.info()["archive_here"] <= 3 * 65536 < data.info()["archive_size"]


def test_reading_one_file_fetches_little_more(published: str, files: dict[str, bytes]) -> None:
    with dataset(published) as data:
        assert data.read("images/3.png") == files["images/3.png"]
        assert data.info()["archive_here"] <= 4 * 65536


def test_image_opens_in_place(published: str, files: dict[str, bytes]) -> None:
    with dataset(published) as data, data.open("images/7.png") as file:
        assert np.asarray(Image.open(file)).shape == (28, 28)


def test_path_is_a_file_with_the_bytes(published: str, files: dict[str, bytes]) -> None:
    with dataset(published) as data:
        path = data.path("images/7.png")
        assert path.read_bytes() == files["images/7.png"]
        assert data.path("images/7.png") == path


def test_saved_archive_is_the_published_one(published: str, archive: Path, tmp_path: Path) -> None:
    with dataset(published) as data:
        saved = data.save(tmp_path / "to")
    assert saved.parent == tmp_path / "to"
    assert saved.name == f"{published.rpartition('/')[2]}.zip"
    assert saved.read_bytes() == archive.read_bytes()


def test_archive_may_be_saved_under_a_name(published: str, archive: Path, tmp_path: Path) -> None:
    with dataset(published) as data:
        assert data.save(tmp_path / "x.zip") == tmp_path / "x.zip"
        assert data.save(tmp_path / "x.zip").read_bytes() == archive.read_bytes()


def test_saving_overwrites_no_other_file(published: str, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("mine")
    with dataset(published) as data, pytest.raises(InputError, match="a different file"):
        data.save(tmp_path / "x.zip")
    assert (tmp_path / "x.zip").read_text() == "mine"


@pytest.fixture
def official(hub: RunningHub, own_folders: Path) -> dict[str, str]:
    """What leads Kaggle's own clients to the hub, signed in by a kaggle.json that is ours to take too."""
    (own_folders / ".kaggle").mkdir()
    key = own_folders / ".kaggle" / "kaggle.json"
    key.write_text(json.dumps({"username": hub.state["kaggle_username"], "key": hub.state["kaggle_key"]}))
    key.chmod(0o600)
    assert credentials.kaggle().url == hub.url
    return {**os.environ, "KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": hub.url, "no_proxy": ""}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_archive_and_tree_are_those_of_the_official_clients(
    published: str, official: dict[str, str], tmp_path: Path
) -> None:
    reference = published.removeprefix("kaggle:")
    kaggle = [Path(sys.executable).with_name("kaggle"), "datasets", "download", "-d", reference, "-p"]
    hub = "import sys, kagglehub; print(kagglehub.dataset_download(sys.argv[1]))"
    subprocess.run([*kaggle, tmp_path / "zip"], env=official, check=True, capture_output=True, timeout=60)
    subprocess.run([*kaggle, tmp_path / "tree", "--unzip"], env=official, check=True, capture_output=True, timeout=60)
    program = [sys.executable, "-c", hub, reference]
    done = subprocess.run(program, env=official, check=True, capture_output=True, text=True, timeout=60)
    assert (
        run("get", published, "--to", tmp_path / "ours")
        == run("get", published, "--to", tmp_path / "extracted", "--extract")
        == 0
    )
    (ours,) = (tmp_path / "ours").iterdir()
    assert (tmp_path / "zip" / ours.name).read_bytes() == ours.read_bytes()
    assert tree(tmp_path / "extracted") == tree(tmp_path / "tree") == tree(Path(done.stdout.splitlines()[-1]))


def test_versions_are_kept_apart(published: str, tmp_path: Path) -> None:
    (tmp_path / "next.zip").write_bytes(zipped({"only.txt": b"second"}))
    assert put(tmp_path / "next.zip", published).version == 2
    with dataset(published) as newest, dataset(f"{published}@1") as first:
        assert newest.files == ["only.txt"]
        assert newest.source == f"{published}@2"
        assert len(first.files) > 40


def test_folder_is_published(hub: RunningHub, folder: Path, files: dict[str, bytes]) -> None:
    published = put(folder, "kaggle:haversack/from-a-folder", title="From a folder")
    assert published.source == "kaggle:haversack/from-a-folder@1"
    with dataset(published.source) as data:
        assert {name: data.read(name) for name in data.files} == files


def test_whole_set_is_read_while_its_hub_is_away(
    own_hub: RunningHub, archive: Path, files: dict[str, bytes], tmp_path: Path
) -> None:
    source = put(archive, "kaggle:haversack/pinned").source
    with dataset(source) as data:
        data.save(tmp_path / "saved.zip")
    own_hub.process.kill()
    own_hub.process.wait()
    with dataset(source) as data:
        assert data.read("labels.csv") == files["labels.csv"]


def test_damage_in_what_was_fetched_is_mended(published: str, files: dict[str, bytes], tmp_path: Path) -> None:
    with dataset(published) as data:
        data.save(tmp_path)
        with open(data.info()["archive"], "r+b") as cached:
            cached.seek(1_000_000)
            cached.write(b"damage")
        assert data.read("noise.bin") == files["noise.bin"]


def test_unknown_file_is_told_with_near_names(published: str) -> None:
    with dataset(published) as data, pytest.raises(NotFound, match=r"Similar names: images/12\.png"):
        data.read("12.png")


def test_unknown_set_is_told(hub: RunningHub) -> None:
    with pytest.raises(NotFound, match="There is no data set haversack/nothing-here on the hub"):
        dataset("kaggle:haversack/nothing-here")


def test_unknown_version_is_told(published: str) -> None:
    with pytest.raises(NotFound, match="@7"):
        dataset(f"{published}@7")


def test_wrong_token_is_told(published: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_TOKEN", "wrong")
    with pytest.raises(SignInError, match="refused the sign-in of HAVERSACK_TOKEN"):
        dataset(published)


def test_archive_that_is_none_is_not_published(hub: RunningHub, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("no archive")
    with pytest.raises(ArchiveInvalid, match=r"x\.zip cannot be read"):
        put(tmp_path / "x.zip", "kaggle:haversack/never-there")
    with pytest.raises(NotFound):
        dataset("kaggle:haversack/never-there")


@pytest.mark.parametrize("source", ["nowhere", "nowhere.zip", "https://"])
def test_unknown_source_is_refused(source: str) -> None:
    with pytest.raises(InputError, match="Use kaggle:owner/name"):
        dataset(source)


def test_version_is_not_for_the_publisher_to_choose(archive: Path) -> None:
    with pytest.raises(InputError, match="numbered by the server"):
        put(archive, "kaggle:a/b@3")


def test_missing_path_is_not_published(hub: RunningHub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no"):
        put(tmp_path / "nowhere", "kaggle:haversack/nothing")


def test_local_archive_is_a_data_set(archive: Path, files: dict[str, bytes]) -> None:
    with dataset(str(archive)) as data:
        assert {name: data.read(name) for name in data.files} == files
        assert data.path("labels.csv").read_bytes() == files["labels.csv"]


def test_a_file_url_is_percent_decoded(folder: Path, tmp_path: Path) -> None:
    spaced = tmp_path / "my pictures é#1"
    folder.rename(spaced)
    with dataset(spaced.as_uri()) as data:
        assert data.source == str(spaced)


def test_local_archive_with_damage_is_told(tmp_path: Path) -> None:
    import zipfile

    (tmp_path / "x.zip").write_bytes(zipped({"a": b"snow"}, method=zipfile.ZIP_STORED).replace(b"snow", b"snew"))
    with dataset(str(tmp_path / "x.zip")) as data, pytest.raises(IntegrityError, match="a is damaged"):
        data.read("a")


def test_folder_is_a_data_set(folder: Path, files: dict[str, bytes], tmp_path: Path) -> None:
    with dataset(str(folder)) as data:
        assert {name: data.read(name) for name in data.files} == files
        with dataset(str(data.save(tmp_path / "packed"))) as packed:
            assert sorted(packed.files) == sorted(files)


def test_representation_names_source_and_size(archive: Path) -> None:
    assert "pictures.zip: 42 files, 3.0 MB" in repr(dataset(str(archive)))


def test_nothing_is_printed_when_a_program_leaves_a_set_open(published: str) -> None:
    program = "import sys, haversack; data = haversack.dataset(sys.argv[1]); print(len(data.files))"
    done = subprocess.run([sys.executable, "-c", program, published], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("42\n", "")
