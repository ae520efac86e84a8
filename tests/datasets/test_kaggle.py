from __future__ import annotations

import random
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from haversack.datasets.kaggle import Name
from haversack.datasets.source import dataset, put
from haversack.errors import InputError
from tests.archive.zips import zipped
from tests.conftest import RunningHub
from tests.datasets.proxy import between


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


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An archive of 12 MB."""
    path = tmp_path / "large.zip"
    path.write_bytes(zipped({"noise.bin": random.Random(3).randbytes(12_000_000)}, method=zipfile.ZIP_STORED))
    return path


def test_cut_upload_goes_on_where_it_stopped(hub: RunningHub, large: Path) -> None:
    with between(hub.url) as proxy:
        proxy.cut_at = 8_000_000
        published = put(large, "kaggle:haversack/cut-upload", hub=proxy.url)
    assert proxy.sent < 17_000_000
    with dataset(published.source) as data:
        assert data.read("noise.bin") == random.Random(3).randbytes(12_000_000)


def test_killed_upload_goes_on_where_it_stopped(hub: RunningHub, large: Path, tmp_path: Path) -> None:
    program = "import sys; from haversack.datasets.source import put; put(sys.argv[1], sys.argv[2], hub=sys.argv[3])"
    name = "kaggle:haversack/killed-upload"
    with between(hub.url) as proxy:
        proxy.delay = 0.02
        process = subprocess.Popen([sys.executable, "-c", program, large, name, proxy.url])
        while proxy.sent < 9_000_000:
            time.sleep(0.01)
        process.kill()
        process.wait()
        time.sleep(0.2)
        proxy.delay, proxy.sent = 0, 0
        published = put(large, name, hub=proxy.url)
    assert proxy.sent < 9_000_000
    with dataset(published.source) as data:
        assert data.save(tmp_path / "again.zip").read_bytes() == large.read_bytes()


def test_state_of_an_upload_is_private_and_goes_with_it(hub: RunningHub, large: Path, own_folders: Path) -> None:
    states = own_folders / "data" / "uploads"
    program = "import sys; from haversack.datasets.source import put; put(sys.argv[1], sys.argv[2], hub=sys.argv[3])"
    with between(hub.url) as proxy:
        proxy.delay = 0.02
        process = subprocess.Popen([sys.executable, "-c", program, large, "kaggle:haversack/private", proxy.url])
        while proxy.sent < 3_000_000:
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert [path.stat().st_mode & 0o777 for path in states.iterdir()] == [0o600]
        put(large, "kaggle:haversack/private", hub=proxy.url)
    assert not list(states.iterdir())
