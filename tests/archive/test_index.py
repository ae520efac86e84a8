from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from haversack.archive.index import open_index, read_index
from haversack.errors import ArchiveInvalid
from tests.archive.zips import FILES, InMemory, patched, streamed, zip64, zipped

ENTRY, END = b"PK\1\2", b"PK\5\6"


@pytest.mark.parametrize(
    "data",
    [
        zipped(),
        zipped(method=zipfile.ZIP_STORED),
        zipped(comment=b"a comment with PK\5\6 in it" * 1000),
        streamed(),
        zip64(),
        b"#!/bin/sh\nexit\n" + zipped(),
        b"#!/bin/sh\nexit\n" + zip64(),
    ],
    ids=["deflated", "stored", "comment", "data-descriptors", "zip64", "prefixed", "prefixed-zip64"],
)
def test_members_have_names_and_sizes(data: bytes) -> None:
    assert {name: member.size for name, member in read_index(InMemory(data)).items()} == {
        name: len(content) for name, content in FILES.items()
    }


def test_only_the_end_is_read() -> None:
    file = InMemory(zipped(method=zipfile.ZIP_STORED))
    read_index(file)
    assert min(offset for offset, _ in file.read) > 200_000


def test_folders_are_left_out() -> None:
    assert list(read_index(InMemory(zipped({"a/": b"", "a/b": b"x"})))) == ["a/b"]


def test_names_without_the_flag_are_code_page_437() -> None:
    data = zipped({"xx.txt": b"1"}).replace(b"xx.txt", b"\x84\x81.txt")
    assert list(read_index(InMemory(data))) == ["äü.txt"]


def test_the_later_of_two_equal_names_counts() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a", b"old")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"newer")
    assert read_index(InMemory(out.getvalue()))["a"].size == 5


def test_65535_members_need_no_zip64() -> None:
    data = zipped({str(number): b"" for number in range(65535)}, method=zipfile.ZIP_STORED)
    assert len(read_index(InMemory(data))) == 65535


def test_more_members_than_16_bits_hold() -> None:
    data = zipped({str(number): b"" for number in range(65537)}, method=zipfile.ZIP_STORED)
    assert len(read_index(InMemory(data))) == 65537


def test_empty_archive_has_no_members() -> None:
    assert read_index(InMemory(zipped({}))) == {}


@pytest.mark.parametrize("data", [b"", b"PK", b"x" * 100_000, zipped()[:-1], zipped()[: len(zipped()) // 2]])
def test_cut_off_archive_is_refused(data: bytes) -> None:
    with pytest.raises(ArchiveInvalid, match="cut off"):
        read_index(InMemory(data))


def test_archive_without_its_beginning_is_refused() -> None:
    with pytest.raises(ArchiveInvalid, match="cut off"):
        read_index(InMemory(zipped()[1000:]))


@pytest.mark.parametrize(
    "name",
    ["../up", "a/../../up", "/etc/passwd", "C:/x", "c:x", "\\\\server\\x", "..\\up", "a\0b"],
)
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    placeholder = "z" * len(name)
    data = zipped({placeholder: b"1"}).replace(placeholder.encode(), name.encode())
    with pytest.raises(ArchiveInvalid, match="leave its folder"):
        read_index(InMemory(data))


def test_dots_within_a_name_are_fine() -> None:
    assert list(read_index(InMemory(zipped({"a..b/...c": b"1"})))) == ["a..b/...c"]


def test_more_entries_than_bytes_are_refused() -> None:
    with pytest.raises(ArchiveInvalid, match="claims 60,000 members"):
        read_index(InMemory(patched(zipped(), END, 10, "<H", 60_000)))


def test_directory_that_breaks_off_is_refused() -> None:
    with pytest.raises(ArchiveInvalid, match="breaks off at member 4"):
        read_index(InMemory(patched(zipped(), ENTRY, 0, "<4s", b"????")))


def test_member_larger_than_the_archive_is_refused() -> None:
    data = patched(zipped(), ENTRY, 20, "<L", 0x7FFFFFFF)
    with pytest.raises(ArchiveInvalid, match="too small to hold"):
        read_index(InMemory(data))


def test_stored_member_of_two_sizes_is_refused() -> None:
    data = patched(zipped(method=zipfile.ZIP_STORED), ENTRY, 24, "<L", 5)
    with pytest.raises(ArchiveInvalid, match="two sizes"):
        read_index(InMemory(data))


def test_member_that_would_unpack_to_anything_is_refused() -> None:
    data = patched(zipped({"a": b"x" * 10_000}), ENTRY, 24, "<L", 0x7FFFFFFF)
    with pytest.raises(ArchiveInvalid, match="cannot be as large"):
        read_index(InMemory(data))


def test_overlapping_members_are_refused() -> None:
    data = patched(zipped({"a": b"1" * 99, "b": b"2" * 99}, method=zipfile.ZIP_STORED), ENTRY, 42, "<L", 20)
    with pytest.raises(ArchiveInvalid, match="overlap"):
        read_index(InMemory(data))


def test_two_members_on_one_place_are_refused() -> None:
    data = patched(zipped({"a": b"1" * 99, "b": b"2" * 99}, method=zipfile.ZIP_STORED), ENTRY, 42, "<L", 0)
    with pytest.raises(ArchiveInvalid, match="overlap"):
        read_index(InMemory(data))


def test_missing_zip64_sizes_are_refused() -> None:
    data = patched(zipped(), ENTRY, 24, "<L", 0xFFFFFFFF)
    with pytest.raises(ArchiveInvalid, match="zip64 sizes"):
        read_index(InMemory(data))


def test_one_disk_of_several_is_refused() -> None:
    with pytest.raises(ArchiveInvalid, match="one part of several"):
        read_index(InMemory(patched(zipped(), END, 4, "<H", 1)))


def renamed(placeholder: bytes, name: bytes, more: dict[str, bytes] | None = None) -> bytes:
    assert len(placeholder) == len(name)
    return zipped({placeholder.decode(): b"1", **(more or {})}).replace(placeholder, name)


def test_names_that_are_utf8_without_saying_so() -> None:
    assert list(read_index(InMemory(renamed(b"zzzzzzz", "müß.t".encode())))) == ["müß.t"]


def test_names_in_gbk_without_saying_so() -> None:
    name = "训练/图像.png".encode("gbk")
    assert list(read_index(InMemory(renamed(b"z" * len(name), name)))) == ["训练/图像.png"]


def test_one_name_that_is_no_gbk_decides_for_all_of_the_archive() -> None:
    chinese, german = "图像".encode("gbk"), "gr\u00fcn".encode("cp437")
    data = zipped({"zzzz": b"1", "yyyy": b"2"}).replace(b"zzzz", chinese).replace(b"yyyy", german)
    assert list(read_index(InMemory(data)))[1] == "grün"


def test_unicode_path_field_counts_for_the_name_it_was_made_for() -> None:
    field = struct.pack("<HHBL", 0x7075, 5 + 6, 1, zlib.crc32(b"\x81.t")) + "ü.txt".encode()
    entry = zipfile.ZipInfo("z.t")
    entry.extra = field
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(entry, b"1")
    data = out.getvalue()
    assert list(read_index(InMemory(data.replace(b"z.t", b"\x81.t")))) == ["ü.txt"]
    assert list(read_index(InMemory(data.replace(b"z.t", b"\x84.t")))) == ["ä.t"]


def test_signature_within_a_name_is_part_of_the_name() -> None:
    names = ["a", "PK\1\2" + "b" * 60, "PK\1\2PK\1\2", "c"]
    assert list(read_index(InMemory(zipped(dict.fromkeys(names, b"1"))))) == names


def test_name_that_is_not_there_is_unknown() -> None:
    index = read_index(InMemory(zipped()))
    assert "nothing" not in index
    assert "\ud800" not in index
    assert index.get("nothing") is None


def test_kept_index_is_the_one_that_was_read(tmp_path: Path) -> None:
    file = InMemory(zip64())
    kept = tmp_path / "set.zip.index"
    first = open_index(file, kept, "v1")
    file.read.clear()
    assert dict(open_index(file, kept, "v1")) == dict(first) == dict(read_index(InMemory(zip64())))


def test_kept_index_is_opened_without_reading_the_archive(tmp_path: Path) -> None:
    file = InMemory(zipped())
    open_index(file, tmp_path / "index", "v1")
    file.read.clear()
    open_index(file, tmp_path / "index", "v1")
    assert file.read == []


def test_index_of_other_content_is_made_anew(tmp_path: Path) -> None:
    open_index(InMemory(zipped()), tmp_path / "index", "v1")
    assert list(open_index(InMemory(zipped({"new": b"1"})), tmp_path / "index", "v2")) == ["new"]


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: data[:-1] + b"?", lambda data: b""])
def test_damaged_index_is_made_anew(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    kept = tmp_path / "index"
    open_index(InMemory(zipped()), kept, "v1")
    kept.write_bytes(spoil(kept.read_bytes()))
    assert list(open_index(InMemory(zipped()), kept, "v1")) == list(FILES)


def test_index_that_cannot_be_kept_is_still_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert list(open_index(InMemory(zipped()), tmp_path / "file" / "index", "v1")) == list(FILES)
