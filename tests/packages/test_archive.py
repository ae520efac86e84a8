"""Archives of an environment's wheels on a drive, which is a folder here."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from haversack.packages import accelerator, archive
from haversack.packages.archive import Archives
from haversack.packages.lock import Lock
from haversack.packages.python import own
from tests.packages.conftest import Workshop, needs
from tests.packages.wheels import index, served, wheel

PYTHON = Path(sys.executable)


class Drive:
    """Archives in a folder, their notices, and the one archive that a test stores there."""

    def __init__(self, folder: Path) -> None:
        self.notices: list[str] = []
        self.path = folder / archive.FOLDER / "key.zip"
        self._fetched = folder / "fetched"
        folder.mkdir()
        self.archives = Archives(DirFileSystem(str(folder), LocalFileSystem()), self.notices.append)

    def store(self, lock: Lock) -> None:
        self.archives.store("key", lock, PYTHON)

    def fetch(self) -> archive.Archived | None:
        self._fetched.mkdir()
        return self.archives.fetch("key", self._fetched)

    def rewrite(self, **members: bytes | None) -> None:
        """Replace members of the archive; None deletes one, and a new name adds one."""
        with zipfile.ZipFile(self.path) as old:
            content = {name: old.read(name) for name in old.namelist()} | members
        with zipfile.ZipFile(self.path, "w") as new:
            for name, data in content.items():
                if data is not None:
                    new.writestr(name, data)


def places(content: bytes | bytearray, part: bytes) -> Iterator[int]:
    """Where `part` begins in `content`."""
    at = content.find(part)
    while at >= 0:
        yield at
        at = content.find(part, at + 1)


@pytest.fixture
def drive(tmp_path: Path) -> Drive:
    return Drive(tmp_path / "drive")


@pytest.fixture
def lock(workshop: Workshop) -> Lock:
    wheel(workshop.wheels, "base")
    workshop.publish()
    return workshop.locker.find(needs("base"))


def test_an_environment_is_made_from_the_wheels_alone(
    drive: Drive, lock: Lock, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive.store(lock)
    found = drive.fetch()
    assert drive.notices == []
    assert found is not None
    assert found.lock == lock
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(workshop.folder / "empty"))
    held = workshop.store().get(found.lock, own(), found.wheels)
    assert list(held.environment.tree.glob("lib/python*/site-packages/base"))
    held.release()


def test_a_wheel_that_is_absent_is_named_though_another_is_there_twice(drive: Drive, lock: Lock) -> None:
    drive.store(lock)
    with zipfile.ZipFile(drive.path) as stored:
        six = stored.read("wheels/six-20.0-py3-none-any.whl")
    drive.rewrite(**{"wheels/base-1.0-py3-none-any.whl": None, "wheels/six-20.0-py2-none-any.whl": six})
    assert drive.fetch() is None
    assert "It has no wheel of base, which its lock names. Delete it on the drive" in drive.notices[0]


def test_a_member_outside_the_folder_of_wheels_is_not_unpacked(drive: Drive, lock: Lock, tmp_path: Path) -> None:
    drive.store(lock)
    names = ("wheels/../../evil.whl", "wheels/a/evil.whl", "/evil.whl", "evil.whl", "wheels/..whl")
    drive.rewrite(**dict.fromkeys(names, b"evil"))
    assert drive.fetch() is not None
    assert list(tmp_path.rglob("*evil*")) == []
    assert len(list(tmp_path.rglob("fetched/wheels/*"))) == len(lock.packages)


def test_a_lock_for_another_machine_is_not_used_and_that_is_printed(drive: Drive, lock: Lock) -> None:
    drive.store(lock)
    drive.rewrite(**{"packages.lock": replace(lock, accelerator="tpu").text.encode()})
    assert drive.fetch() is None
    assert f"Its lock is for {lock.platform} and tpu." in drive.notices[0]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
@pytest.mark.parametrize("doctored", ["packages.lock", "wheels/base-1.0-py3-none-any.whl"])
def test_a_member_that_claims_to_be_compressed_is_a_notice(
    drive: Drive, lock: Lock, method: int, doctored: str
) -> None:
    drive.store(lock)
    content = bytearray(drive.path.read_bytes())
    name = doctored.encode()
    # The compression method, two bytes, in the member's own header and in the central directory.
    for signature, method_at, name_at in ((b"PK\3\4", 8, 30), (b"PK\1\2", 10, 46)):
        start = next(at for at in places(content, signature) if content[at + name_at :].startswith(name))
        content[start + method_at : start + method_at + 2] = method.to_bytes(2, "little")
    drive.path.write_bytes(content)
    assert drive.fetch() is None
    assert f"Its {Path(doctored).name} is compressed or encrypted" in drive.notices[0]
    assert "Delete it on the drive" in drive.notices[0]


def test_a_member_that_claims_to_be_longer_than_the_file_is_a_notice(drive: Drive, lock: Lock) -> None:
    drive.store(lock)
    content = bytearray(drive.path.read_bytes())
    entry = next(at for at in places(content, b"PK\1\2") if content[at + 46 :].startswith(b"wheels/base"))
    content[entry + 20 : entry + 28] = (10**9).to_bytes(4, "little") * 2
    drive.path.write_bytes(content)
    assert drive.fetch() is None
    assert "key.zip on the drive cannot be used" in drive.notices[0]


def test_what_is_no_archive_is_a_notice(drive: Drive, lock: Lock) -> None:
    drive.store(lock)
    drive.path.write_bytes(b"no zip")
    assert drive.fetch() is None
    assert "File is not a zip file" in drive.notices[0]


def test_a_package_from_an_address_is_not_stored_and_that_is_printed(drive: Drive, workshop: Workshop) -> None:
    path = wheel(workshop.folder, "direct")
    drive.store(workshop.locker.find(needs(f"direct @ {path.as_uri()}")))
    assert not drive.path.exists()
    assert "direct comes from an address" in drive.notices[0]


def test_a_build_of_torch_is_fetched_from_its_own_index(
    drive: Drive, lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = wheel(tmp_path, "torch", "2.0+cpu")
    index(tmp_path / "pytorch" / "cpu", path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with served(tmp_path / "pytorch") as (address, _):
        monkeypatch.setattr(accelerator, "_INDEXES", address)
        drive.store(replace(lock, torch="cpu", pins=f"{lock.pins}\ntorch==2.0+cpu --hash=sha256:{digest}\n"))
    assert drive.notices == []
    assert "wheels/torch-2.0+cpu-py3-none-any.whl" in zipfile.ZipFile(drive.path).namelist()
