from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from haversack.archive.reader import Archive, LocalFile
from haversack.errors import ArchiveInvalid, IntegrityError
from tests.archive.zips import FILES, InMemory, on_disk, patched, streamed, zip64, zipped

ENTRY = b"PK\1\2"


def read(archive: Archive, name: str) -> bytes:
    return archive.read(archive.members[name])


@pytest.mark.parametrize(
    "data", [zipped(), zipped(method=zipfile.ZIP_STORED), streamed(), zip64(), b"front" + zipped()]
)
def test_every_member_reads_as_it_was(data: bytes) -> None:
    archive = Archive(InMemory(data))
    assert {name: read(archive, name) for name in archive.members} == FILES


def test_a_member_is_read_from_its_own_range() -> None:
    file = InMemory(zipped({"a": b"1" * 9000, "b": b"2" * 9000, "c": b"3" * 9000}, method=zipfile.ZIP_STORED))
    archive = Archive(file)
    member = archive.members["b"]
    file.read.clear()
    archive.read(member)
    assert all(member.offset <= offset and offset + size <= member.end for offset, size in file.read)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_small_member_with_a_long_local_header_is_read_whole(method: int) -> None:
    name, data = "folder/" * 90 + "a.txt", random.Random(1).randbytes(300)
    assert read(Archive(InMemory(zipped({name: data}, method=method))), name) == data


def test_a_large_member_comes_in_pieces() -> None:
    data = b"0123456789" * 2_000_000
    archive = Archive(InMemory(zipped({"large": data})))
    pieces = list(archive.pieces(archive.members["large"]))
    assert len(pieces) > 1
    assert b"".join(pieces) == data


def test_open_gives_a_file_object(tmp_path: Path) -> None:
    archive = Archive(LocalFile(on_disk(tmp_path, zipped())))
    with archive.open(archive.members["readme.txt"]) as file:
        assert file.readline() == b"hello\n"
        assert len(file.read()) == 5994


def test_open_can_be_seeked_in() -> None:
    archive = Archive(InMemory(zipped()))
    file = archive.open(archive.members["images/noise.bin"])
    whole = FILES["images/noise.bin"]
    for position in (250_000, 10, 299_999, 0):
        file.seek(position)
        assert file.read(100) == whole[position : position + 100]
    assert file.seek(0, 2) == len(whole)


def test_pillow_opens_an_image_in_the_archive() -> None:
    png = io.BytesIO()
    picture = np.arange(28 * 28, dtype=np.uint8).reshape(28, 28)
    Image.fromarray(picture).save(png, "PNG")
    archive = Archive(InMemory(zipped({"a.png": png.getvalue()})))
    with archive.open(archive.members["a.png"]) as file:
        assert (np.asarray(Image.open(file)) == picture).all()


def test_damaged_stored_member_is_told_from_a_good_one() -> None:
    data = zipped(method=zipfile.ZIP_STORED).replace(b"snow", b"snew")
    archive = Archive(InMemory(data))
    with pytest.raises(IntegrityError, match="CRC differs"):
        read(archive, "bilder/ärger ☃.txt")
    assert read(archive, "readme.txt") == FILES["readme.txt"]


def test_damaged_member_is_told_at_the_end_of_its_stream() -> None:
    archive = Archive(InMemory(zipped(method=zipfile.ZIP_STORED).replace(b"snow", b"snew")))
    file = archive.open(archive.members["bilder/ärger ☃.txt"])
    with pytest.raises(IntegrityError):
        file.read()


def test_damaged_deflate_stream_is_told() -> None:
    data = bytearray(zipped({"a": bytes(range(256)) * 1000}))
    data[40:80] = b"\xff" * 40
    with pytest.raises(IntegrityError, match="damaged"):
        read(Archive(InMemory(bytes(data))), "a")


def test_member_that_is_longer_than_told_is_refused() -> None:
    data = patched(zipped({"a": b"x" * 10_000}), ENTRY, 24, "<L", 100)
    with pytest.raises(IntegrityError, match="longer"):
        read(Archive(InMemory(data)), "a")


def test_member_that_is_shorter_than_told_is_refused() -> None:
    data = patched(zipped({"a": b"x" * 10_000}), ENTRY, 24, "<L", 10_001)
    with pytest.raises(IntegrityError, match="too early"):
        read(Archive(InMemory(data)), "a")


def test_encrypted_member_is_refused_when_it_is_read() -> None:
    data = patched(zipped({"a": b"1", "b": b"2"}), ENTRY, 8, "<H", 1)
    archive = Archive(InMemory(data))
    assert read(archive, "a") == b"1"
    with pytest.raises(ArchiveInvalid, match="encrypted"):
        read(archive, "b")


def test_unknown_compression_is_refused_when_it_is_read() -> None:
    archive = Archive(InMemory(zipped({"a": b"1" * 1000}, method=zipfile.ZIP_LZMA)))
    with pytest.raises(ArchiveInvalid, match="method 14"):
        read(archive, "a")


def test_member_without_its_header_is_refused() -> None:
    data = bytearray(zipped({"a": b"1"}))
    data[0:4] = b"????"
    with pytest.raises(ArchiveInvalid, match="where it says"):
        read(Archive(InMemory(bytes(data))), "a")
