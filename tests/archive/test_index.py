from __future__ import annotations

import io
import zipfile

import pytest

from haversack.archive.index import read_index
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
