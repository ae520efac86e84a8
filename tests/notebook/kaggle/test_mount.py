"""`/kaggle/input` as a mount: a real FUSE mount of archives and folders, over a hub that may go away."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import signal
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haversack.datasets.publication import put
from haversack.errors import NotFound
from haversack.notebook.kaggle.folder import KaggleFolder
from haversack.notebook.kaggle.inputs import attach
from haversack.notebook.kaggle.mount import InputMount
from tests.conftest import RunningHub

pytestmark = pytest.mark.fuse

Mounting = Callable[..., Path]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounting]:
    """`mounted("source", …)` mounts inputs, and returns the mountpoint."""
    made: list[InputMount] = []

    def mount(*sources: str, newer: bool = False) -> Path:
        mountpoint = tmp_path / f"input-{len(made)}"
        mountpoint.mkdir()
        made.append(InputMount(attach(sources, None), mountpoint, None, newer, tmp_path / "inputs.log"))
        return mountpoint

    yield mount
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with a table, a folder of files, a data base that is read at random, and an archive in it."""
    tmp_path = tmp_path_factory.mktemp("archive")
    base = tmp_path / "base.sqlite"
    with sqlite3.connect(base) as connection:
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO rows VALUES (?, ?)", ((n, str(n) * 40) for n in range(30_000)))
    connection.close()
    inner = tmp_path / "inner.zip"
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.csv", "x\n1\n")
    path = tmp_path / "things.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("train.csv", "id,x\n1,2\n3,4\n")
        for number in range(300):
            made.writestr(f"images/{number:03}.txt", str(number))
        made.write(base, "base.sqlite")
        made.write(inner, "inner.zip")
    return path


@pytest.fixture(scope="module")
def place(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The mountpoint where the archive is mounted, for tests that only look at it."""
    folder = tmp_path_factory.mktemp("mounted")
    (folder / "input").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAVERSACK_CACHE", str(folder / "cache"))
        mount = InputMount(attach([str(archive)], None), folder / "input", None, False, folder / "log")
    yield folder / "input"
    mount.close()


def test_a_walk_finds_every_file_once_with_its_size(place: Path, archive: Path) -> None:
    found = {os.path.relpath(os.path.join(at, name), place) for at, _, names in os.walk(place) for name in names}
    with zipfile.ZipFile(archive) as known:
        assert found == {f"things/{name}" for name in known.namelist()}
        assert all((place / "things" / one.filename).stat().st_size == one.file_size for one in known.infolist())
    assert len(glob.glob(f"{place}/**/*.txt", recursive=True)) == 300


def test_bytes_are_those_of_the_archive_at_random_too(place: Path, archive: Path) -> None:
    place /= "things"
    with zipfile.ZipFile(archive) as known:
        assert all((place / name).read_bytes() == known.read(name) for name in known.namelist())
    with zipfile.ZipFile(place / "inner.zip") as inner:
        assert inner.read("a.csv") == b"x\n1\n"
    with sqlite3.connect(f"file:{place / 'base.sqlite'}?mode=ro", uri=True) as connection:
        assert connection.execute("SELECT text FROM rows WHERE id = 12345").fetchone() == ("12345" * 40,)
    connection.close()


@pytest.mark.parametrize(
    "write",
    [
        lambda place: (place / "new.csv").write_text("x"),
        lambda place: (place / "things" / "train.csv").write_text("x"),
        lambda place: (place / "things" / "train.csv").unlink(),
        lambda place: (place / "things" / "new").mkdir(),
        lambda place: (place / "things" / "train.csv").rename(place / "things" / "b.csv"),
    ],
)
def test_nothing_can_be_written(place: Path, write: Callable[[Path], object]) -> None:
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is compared
        write(place)
    assert raised.value.errno == errno.EROFS


def test_what_is_copied_out_can_be_changed(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "things", tmp_path / "copy")
    (tmp_path / "copy" / "train.csv").write_text("changed")
    assert len(list((tmp_path / "copy" / "images").iterdir())) == 300


def test_missing_names_and_folders_are_the_usual_errors(place: Path) -> None:
    with pytest.raises(FileNotFoundError):
        (place / "titanic" / "train.csv").read_text()
    with pytest.raises(IsADirectoryError):
        (place / "things").read_text()
    with pytest.raises(NotADirectoryError):
        os.listdir(place / "things" / "train.csv")
    assert not (place / "things" / "../../etc").resolve().is_relative_to(place)


def test_folders_files_and_a_competition_stand_beside_each_other(
    mounted: Mounting, own_hub: RunningHub, tmp_path: Path
) -> None:
    folder = tmp_path / "cats"
    folder.mkdir()
    (folder / "a.csv").write_text("a\n")
    put(folder, "kaggle:c/lions")
    put(folder, "kaggle:ann/tigers")
    own_hub.my_drive.joinpath("drawer").mkdir(parents=True)
    own_hub.my_drive.joinpath("drawer", "b.csv").write_text("b\n")
    sources = [str(folder), f"one={folder / 'a.csv'}", "c/lions", "kaggle:ann/tigers", "drive:/drawer"]
    place = mounted(*sources)
    assert sorted(os.listdir(place)) == ["cats", "drawer", "lions", "one", "tigers"]
    for path in ("cats/a.csv", "one/a.csv", "lions/a.csv", "competitions/lions/a.csv", "datasets/ann/tigers/a.csv"):
        assert (place / path).read_text() == "a\n"
    assert (place / "drawer" / "b.csv").read_text() == "b\n"
    newer = mounted(*sources, newer=True)
    assert sorted(os.listdir(newer)) == ["cats", "competitions", "datasets", "drawer", "one"]
    assert (newer / "tigers" / "a.csv").read_text() == "a\n"


def test_only_what_is_read_is_fetched(mounted: Mounting, own_hub: RunningHub, tmp_path: Path) -> None:
    folder = tmp_path / "noise"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.bin").write_bytes(os.urandom(2 << 20))
    put(folder, "kaggle:ann/noise")
    place = mounted("kaggle:ann/noise")
    assert (place / "noise" / "5.bin").read_bytes() == (folder / "5.bin").read_bytes()
    from haversack.datasets.source import dataset

    with dataset("kaggle:ann/noise") as data:
        assert data.info()["archive_here"] < 4 << 20


def test_a_hub_that_is_away_is_an_error_of_the_read(mounted: Mounting, own_hub: RunningHub, tmp_path: Path) -> None:
    folder = tmp_path / "noise"
    folder.mkdir()
    (folder / "a.bin").write_bytes(os.urandom(1 << 20))
    put(folder, "kaggle:ann/noise")
    place = mounted("kaggle:ann/noise")
    own_hub.process.kill()
    own_hub.process.wait(60)
    with pytest.raises(OSError):  # noqa: PT011 - the errno depends on how the connection ends
        (place / "noise" / "a.bin").read_bytes()
    assert os.listdir(place / "noise") == ["a.bin"]


def test_an_input_that_is_gone_is_named(archive: Path, tmp_path: Path) -> None:
    inputs = attach([f"things={shutil.copy(archive, tmp_path)}"], None)
    (tmp_path / archive.name).unlink()
    (tmp_path / "input").mkdir()
    with pytest.raises(NotFound, match="The input things of this job is gone"):
        InputMount(inputs, tmp_path / "input", None, False, tmp_path / "log")
    assert not os.path.ismount(tmp_path / "input")


def folder_of(job: Path, archive: Path, notices: list[str]) -> KaggleFolder:
    folder = KaggleFolder(job, attach([str(archive)], None), None, False, notices.append)
    folder.make()
    return folder


def test_a_mount_whose_process_died_is_made_anew_for_the_next_session(archive: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "job", archive, [])
    folder.open()
    assert folder._mount is not None
    os.kill(folder._mount._process.pid, signal.SIGKILL)
    folder._mount._process.wait()
    folder.begin_session()
    assert (folder.path / "input" / "things" / "train.csv").read_text().startswith("id,x")
    folder.close()
    assert not os.path.ismount(folder.path / "input")


def test_without_fuse_the_inputs_are_extracted_and_it_is_said(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAVERSACK_FUSE", "off")
    notices: list[str] = []
    folder = folder_of(tmp_path / "job", archive, notices)
    for _ in range(2):  # a resumed job finds its files
        folder.open()
        assert (folder.path / "input" / "things" / "train.csv").read_text().startswith("id,x")
        folder.close()
    assert "HAVERSACK_FUSE turns FUSE off. So the inputs were extracted to" in notices[0]


def test_a_single_file_is_extracted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_FUSE", "off")
    (tmp_path / "labels.csv").write_text("id\n1\n")
    folder = folder_of(tmp_path / "job", tmp_path / "labels.csv", [])
    for _ in range(2):
        folder.open()
        assert (folder.path / "input" / "labels" / "labels.csv").read_text() == "id\n1\n"
        folder.close()


def test_temporary_folders_are_empty_in_each_session_and_the_output_stays(archive: Path, tmp_path: Path) -> None:
    folder = KaggleFolder(tmp_path, [], None, False, print)
    folder.make()
    for name in ("temp", "tmp", "working"):
        (folder.path / name / "kept.txt").write_text("x")
    folder.begin_session()
    assert [name for name in ("temp", "tmp", "working") if os.listdir(folder.path / name)] == ["working"]


def test_outputs_are_listed_with_the_submission_first(tmp_path: Path) -> None:
    folder = KaggleFolder(tmp_path, [], None, False, print)
    folder.make()
    for name in ("model/w.bin", "a.csv", "submission.csv", "helper.py", ".ipynb_checkpoints/a.ipynb"):
        path = folder.path / "working" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    found = folder.outputs(brought=["helper.py"])
    assert [(one.name, one.size) for one in found] == [("submission.csv", 14), ("a.csv", 5), ("model/w.bin", 11)]


def test_a_link_to_a_file_elsewhere_is_no_output(tmp_path: Path) -> None:
    folder = KaggleFolder(tmp_path, [], None, False, print)
    folder.make()
    working = folder.path / "working"
    (working / "a.csv").write_text("x")
    (working / "latest.csv").symlink_to("a.csv")
    (working / "machine.txt").symlink_to("/etc/hostname")
    assert [one.name for one in folder.outputs()] == ["a.csv", "latest.csv"]
