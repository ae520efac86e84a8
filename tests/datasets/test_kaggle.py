from __future__ import annotations

import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from haversack.datasets.kaggle import Competition, Name, parsed
from haversack.datasets.publication import put
from haversack.datasets.source import dataset, named
from haversack.errors import InputError
from tests.archive.zips import zipped
from tests.conftest import RunningHub
from tests.datasets.proxy import Proxy, between


def test_name_without_version() -> None:
    assert Name.parse("kaggle:taindow/rsna-train-224x") == Name("taindow", "rsna-train-224x")


def test_name_with_version() -> None:
    assert Name.parse("kaggle:a/b@12") == Name("a", "b", 12)


@pytest.mark.parametrize(
    "source",
    [
        "kaggle:", "kaggle:a", "kaggle:a/", "kaggle:/b", "kaggle:a/b/c", "kaggle:a/b@", "kaggle:a/b@0", "kaggle:a/b@x",
        "kaggle:../b", "kaggle:a/..", "kaggle:a b/c", "kaggle:a/b\n", "kaggle:ä/b", "a/b",
    ],
)  # fmt: skip
def test_malformed_name_is_refused(source: str) -> None:
    with pytest.raises(InputError, match="kaggle:owner/name"):
        Name.parse(source)


@pytest.mark.parametrize(
    ("source", "name", "folder"),
    [
        ("kaggle:a/b/train", Name("a", "b"), "train"),
        ("kaggle:a/b@3/train/cat dog/", Name("a", "b", 3), "train/cat dog"),
        ("kaggle:c/titanic", Competition("titanic"), ""),
        ("kaggle:c/titanic/test", Competition("titanic"), "test"),
    ],
)
def test_folders_and_competitions(source: str, name: Name | Competition, folder: str) -> None:
    assert parsed(source) == (name, folder)


@pytest.mark.parametrize("source", ["kaggle:a/b/../c", "kaggle:a/b//c", "kaggle:a/b/./c", "kaggle:a/b/c\0"])
def test_folder_that_leads_out_is_refused(source: str) -> None:
    with pytest.raises(InputError, match="kaggle:owner/name"):
        parsed(source)


@pytest.mark.parametrize(
    ("link", "source"),
    [
        ("https://www.kaggle.com/datasets/taindow/rsna-train?select=a.csv", "kaggle:taindow/rsna-train"),
        ("https://www.kaggle.com/datasets/taindow/rsna-train/versions/3", "kaggle:taindow/rsna-train@3"),
        ("https://www.kaggle.com/competitions/titanic/data", "kaggle:c/titanic"),
        ("https://www.kaggle.com/c/titanic", "kaggle:c/titanic"),
    ],
)
def test_link_of_a_page_is_a_source(link: str, source: str) -> None:
    assert named(link) == source


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An archive of 24 MB."""
    path = tmp_path / "large.zip"
    path.write_bytes(zipped({"noise.bin": random.Random(3).randbytes(24_000_000)}, method=zipfile.ZIP_STORED))
    return path


@pytest.fixture
def slow(hub: RunningHub) -> Iterator[Proxy]:
    """A slow way to the hub."""
    with between(hub.url) as proxy:
        proxy.delay = 0.005
        yield proxy


def kill_upload(archive: Path, name: str, proxy: Proxy) -> None:
    """Have a process upload `archive`, and kill it in the middle."""
    program = (
        "import sys; from haversack.datasets.publication import put; put(sys.argv[1], sys.argv[2], hub=sys.argv[3])"
    )
    process = subprocess.Popen([sys.executable, "-c", program, archive, name, proxy.url])
    while proxy.sent < 6_000_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = -1
    while proxy.sent > before:
        before = proxy.sent
        time.sleep(0.1)
    proxy.sent = 0


def test_cut_upload_goes_on_where_it_stopped(slow: Proxy, large: Path) -> None:
    slow.cut_at = 8_000_000
    published = put(large, "kaggle:haversack/cut-upload", hub=slow.url)
    assert slow.sent < 30_000_000
    with dataset(published.source) as data:
        assert data.read("noise.bin") == random.Random(3).randbytes(24_000_000)


def test_killed_upload_goes_on_where_it_stopped(slow: Proxy, large: Path, tmp_path: Path) -> None:
    kill_upload(large, "kaggle:haversack/killed-upload", slow)
    published = put(large, "kaggle:haversack/killed-upload", hub=slow.url)
    assert 1_000_000 < slow.sent < 20_000_000
    with dataset(published.source) as data:
        assert data.save(tmp_path / "again.zip").read_bytes() == large.read_bytes()


def test_state_of_an_upload_is_private_and_goes_with_it(slow: Proxy, large: Path, own_folders: Path) -> None:
    states = own_folders / "data" / "uploads"
    kill_upload(large, "kaggle:haversack/private-state", slow)
    assert [path.stat().st_mode & 0o777 for path in states.iterdir()] == [0o600]
    put(large, "kaggle:haversack/private-state", hub=slow.url)
    assert not list(states.iterdir())
