"""Data sets on file systems that fsspec opens, and on the web."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from haversack.datasets.cache import list_cached, remove
from haversack.datasets.source import dataset
from haversack.drive.filesystem import store
from haversack.errors import ArchiveInvalid, InputError, NotFound
from tests.archive.zips import zipped
from tests.conftest import RunningHub


@pytest.fixture
def place() -> Iterator[str]:
    """A folder of the file system in memory."""
    name = f"memory://set-{uuid.uuid4().hex[:8]}"
    yield name
    system, path = fsspec.core.url_to_fs(name)
    if system.exists(path):
        system.rm(path, recursive=True)


def put_files(place: str, files: dict[str, bytes]) -> None:
    system, path = fsspec.core.url_to_fs(place)
    for name, data in files.items():
        system.pipe_file(f"{path}/{name}", data)


def test_archive_is_read_by_ranges(place: str, archive: Path, files: dict[str, bytes]) -> None:
    put_files(place, {"pictures.zip": archive.read_bytes()})
    with dataset(f"{place}/pictures.zip") as data:
        assert data.files == list(files)
        assert data.read("images/3.png") == files["images/3.png"]
        assert data.info()["archive_here"] < 300_000
        data.want(["noise.bin"])
        assert data.read("noise.bin") == files["noise.bin"]


def test_archive_is_completed_and_extracted(place: str, archive: Path, files: dict[str, bytes], tmp_path: Path) -> None:
    put_files(place, {"pictures.zip": archive.read_bytes()})
    with dataset(f"{place}/pictures.zip") as data:
        assert data.save(tmp_path).read_bytes() == archive.read_bytes()
        extracted = data.extract(tmp_path / "to")
    assert all((extracted / name).read_bytes() == content for name, content in files.items())


def test_archive_that_changed_is_read_anew(place: str) -> None:
    for said in (b"first", b"other"):
        put_files(place, {"a.zip": zipped({"a.txt": said})})
        with dataset(f"{place}/a.zip") as data:
            assert data.read("a.txt") == said


def test_damaged_archive_is_told(place: str) -> None:
    put_files(place, {"a.zip": b"no archive"})
    with pytest.raises(ArchiveInvalid, match="cannot be read"):
        dataset(f"{place}/a.zip")


def test_folder_is_a_data_set(place: str, files: dict[str, bytes], tmp_path: Path) -> None:
    put_files(place, files)
    with dataset(place) as data:
        assert data.files == sorted(files)
        assert data.read("labels.csv") == files["labels.csv"]
        assert data.path("images/1.png").read_bytes() == files["images/1.png"]
        assert data.info()["files_here"] == 1
        extracted = data.extract(tmp_path / "to")
        assert data.info()["files_here"] == len(files)
    assert all((extracted / name).read_bytes() == content for name, content in files.items())


def test_archive_inside_an_archive(place: str, files: dict[str, bytes]) -> None:
    put_files(place, {"outer.zip": zipped({"deep/inner.txt": b"deep"})})
    with dataset(f"zip://deep::{place}/outer.zip") as data:
        assert data.read("inner.txt") == b"deep"


def test_folder_of_the_drive(hub: RunningHub, folder: Path, files: dict[str, bytes]) -> None:
    name = f"set-{uuid.uuid4().hex[:8]}"
    store(folder, name)
    with dataset(f"drive:/My Drive/{name}") as data:
        assert {each: data.read(each) for each in data.files} == files
        data.fetch()
    remove(list_cached(f"drive://My Drive/{name}"))
    assert not list_cached()


def test_archive_of_the_drive(hub: RunningHub, archive: Path, files: dict[str, bytes]) -> None:
    name = f"set-{uuid.uuid4().hex[:8]}.zip"
    store(archive, name)
    with dataset(f"drive:/My Drive/{name}", hub=hub.url) as data:
        assert data.read("images/9.png") == files["images/9.png"]


def test_images_of_a_folder(place: str, files: dict[str, bytes]) -> None:
    put_files(place, {name: content for name, content in files.items() if name.endswith(".png")})
    with dataset(place) as data:
        images = data.images(size=(28, 28), channels=1, labels=None, batch_size=40)
        assert images[0].shape == (40, 28, 28, 1)
        images.close()


@pytest.mark.parametrize("source", ["memory://nothing-here", "memory://nothing/x.zip"])
def test_what_is_not_there_is_told(source: str) -> None:
    with pytest.raises(NotFound, match="There is no memory://"):
        dataset(source)


def test_unknown_file_system_is_told() -> None:
    with pytest.raises(InputError, match="gopher"):
        dataset("gopher://a/b")


def test_name_that_would_leave_its_folder_is_refused(place: str) -> None:
    put_files(place, {"a\\..\\b": b"x"})
    with pytest.raises(InputError, match="would leave its folder"):
        dataset(place)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A plain web server, which knows nothing of ranges, over the folder `tmp_path`."""
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *about: object) -> None:
        """Say nothing."""


def test_archive_on_the_web(web: str, archive: Path, files: dict[str, bytes]) -> None:
    with dataset(f"{web}/{archive.name}") as data:
        assert data.read("images/3.png") == files["images/3.png"]
        assert data.source == f"{web}/{archive.name}"


def test_what_signs_in_by_the_address_is_not_shown(web: str, archive: Path, files: dict[str, bytes]) -> None:
    address = web.replace("//", "//me:password@") + f"/{archive.name}?signature=secret"
    with dataset(address) as data:
        assert data.read("labels.csv") == files["labels.csv"]
        shown = f"{data!r} {data.info()} {list_cached()}"
    assert "password" not in shown
    assert "secret" not in shown


def test_missing_archive_on_the_web_is_told(web: str) -> None:
    with pytest.raises(NotFound, match="answered 404"):
        dataset(f"{web}/nothing.zip")


def test_a_program_ends_at_once_while_much_is_wanted(hub: RunningHub, folder: Path) -> None:
    name = f"set-{uuid.uuid4().hex[:8]}"
    store(folder, name)
    program = (
        "import sys, threading, haversack; data = haversack.dataset(sys.argv[1]);"
        " data.want(data.files); threading.Thread(target=data.fetch, daemon=True).start();"
        " print(len(data.read('labels.csv')))"
    )
    done = subprocess.run([sys.executable, "-c", program, f"drive:/{name}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == (folder / "labels.csv").stat().st_size


def test_what_is_wanted_is_fetched_before_it_is_read(place: str, files: dict[str, bytes]) -> None:
    put_files(place, files)
    with dataset(place) as data:
        data.want(["labels.csv", "noise.bin"])
        while data.info()["files_here"] < 2:
            time.sleep(0.01)
