"""What a zip archive holds, read from its end: the central directory, checked before anything in it is believed.

The end of central directory, its zip64 form, and one record per member are as in PKWARE's APPNOTE 6.3.10 (sections
4.3.12 to 4.3.16). Sizes, offsets and CRCs come from here alone, so members with data descriptors are nothing special.
An archive whose directory contradicts itself is refused whole: two readers that disagree about an archive are how
things get smuggled in one. Archives over several disks and encrypted central directories are not read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from haversack.errors import ArchiveInvalid

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
"""The header before a member's bytes (APPNOTE 4.3.7)."""

STORED, DEFLATED = 0, 8
# zlib's technical notes: deflate cannot do better than 1032 to 1.
_BEST_DEFLATE = 1032
_NEXT_STEP = "Fetch it again, or ask whoever made it for a whole one."


class Bytes(Protocol):
    """A file of known size whose bytes can be read at any offset, from several threads at once."""

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes from `offset`, exactly `size` of them; raises when they cannot be had."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive. Sizes and offsets are in bytes; `end` is the first offset that is another's."""

    name: str
    size: int
    compressed: int
    offset: int
    end: int
    method: int
    crc: int
    encrypted: bool


@dataclass(frozen=True, slots=True)
class _Directory:
    offset: int
    size: int
    count: int
    shift: int
    """How far everything lies behind where the archive says: bytes were put in front of it, as self-extractors do."""


def read_index(file: Bytes) -> dict[str, Member]:
    """The files of the archive by name, in the directory's order; folders are left out.

    Where a name stands twice, the later one counts, as for every zip tool. Only the archive's end is read.
    Raises `ArchiveInvalid` with the reason.
    """
    directory = _find_directory(file)
    entries = list(_entries(file.read_at(directory.offset, directory.size), directory))
    ends = _ends(entries, directory.offset)
    members = {}
    for entry in entries:
        if not entry.name.endswith("/"):
            members[entry.name] = Member(
                entry.name, entry.size, entry.compressed, entry.offset, ends[entry.offset],
                entry.method, entry.crc, entry.encrypted,
            )  # fmt: skip
    return members


def _find_directory(file: Bytes) -> _Directory:
    """Where the central directory lies, from the last record that ends exactly where the file ends."""
    tail_size = min(file.size, 0xFFFF + _END.size + _LOCATOR64.size)
    tail = file.read_at(file.size - tail_size, tail_size)
    found = tail.rfind(b"PK\5\6")
    while found >= 0:
        if found + _END.size <= len(tail):
            _, disk, first_disk, _, count, size, offset, comment = _END.unpack_from(tail, found)
            if found + _END.size + comment == len(tail):
                break
        found = tail.rfind(b"PK\5\6", 0, found)
    if found < 0:
        raise ArchiveInvalid("The archive has no end: it is cut off, or it is no zip archive.", _NEXT_STEP)
    end = file.size - len(tail) + found
    locator = found - _LOCATOR64.size
    if (count == 0xFFFF or 0xFFFFFFFF in (size, offset)) and locator >= 0 and tail[locator : locator + 4] == b"PK\6\7":
        count, size, offset, end = _read_zip64(file, end - _LOCATOR64.size)
    elif disk or first_disk:
        raise ArchiveInvalid("The archive is one part of several.", "Join its parts first.")
    shift = end - size - offset
    if shift < 0:
        raise ArchiveInvalid("The archive is cut off: it is smaller than its directory says.", _NEXT_STEP)
    if count * _ENTRY.size > size:
        raise ArchiveInvalid(f"The archive claims {count:,} members in a directory of {size:,} bytes.", _NEXT_STEP)
    return _Directory(offset + shift, size, count, shift)


def _read_zip64(file: Bytes, locator: int) -> tuple[int, int, int, int]:
    """Count, size and offset from the zip64 record, and where that record begins."""
    # The record has no extensible part in practice, so it ends where its locator begins; the offset that the locator
    # gives is wrong when bytes were put in front of the archive.
    begin = locator - _END64.size
    if begin < 0:
        raise ArchiveInvalid("The archive's zip64 record is cut off.", _NEXT_STEP)
    signature, _, _, _, disk, first_disk, _, count, size, offset = _END64.unpack(file.read_at(begin, _END64.size))
    if signature != b"PK\6\6":
        raise ArchiveInvalid("The archive's zip64 record is missing.", _NEXT_STEP)
    if disk or first_disk:
        raise ArchiveInvalid("The archive is one part of several.", "Join its parts first.")
    return count, size, offset, begin


def _entries(data: bytes, directory: _Directory) -> Iterator[Member]:
    """The directory's records, each checked by itself."""
    at = 0
    for number in range(directory.count):
        if at + _ENTRY.size > len(data) or data[at : at + 4] != b"PK\1\2":
            raise ArchiveInvalid(f"The archive's directory breaks off at member {number + 1:,}.", _NEXT_STEP)
        fields = _ENTRY.unpack_from(data, at)
        flags, method, crc, compressed, size = fields[3], fields[4], fields[7], fields[8], fields[9]
        name_size, extra_size, comment_size, offset = fields[10], fields[11], fields[12], fields[16]
        name_end = at + _ENTRY.size + name_size
        extra_end = name_end + extra_size
        if extra_end + comment_size > len(data):
            raise ArchiveInvalid(f"The archive's directory breaks off at member {number + 1:,}.", _NEXT_STEP)
        name = _decoded(data[at + _ENTRY.size : name_end], flags)
        if 0xFFFFFFFF in (size, compressed, offset):
            size, compressed, offset = _zip64_sizes(data[name_end:extra_end], name, size, compressed, offset)
        member = Member(name, size, compressed, offset + directory.shift, 0, method, crc, bool(flags & 1))
        _check(member, name_size, directory)
        yield member
        at = extra_end + comment_size
    if at != len(data):
        raise ArchiveInvalid("The archive's directory holds more than its members.", _NEXT_STEP)


def _decoded(raw: bytes, flags: int) -> str:
    try:
        name = raw.decode("utf-8" if flags & 0x800 else "cp437")
    except UnicodeDecodeError:
        raise ArchiveInvalid(f"The archive has a name that is not UTF-8: {raw[:80]!r}.", _NEXT_STEP) from None
    parts = re.split(r"[/\\]", name)
    if not name or "\0" in name or ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", name):
        raise ArchiveInvalid(f"The archive has a member that would leave its folder: {name!r}.", "Do not trust it.")
    return name


def _zip64_sizes(extra: bytes, name: str, size: int, compressed: int, offset: int) -> tuple[int, int, int]:
    """The 64-bit values of the extra field 0x0001, which holds only those that did not fit (APPNOTE 4.5.3)."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            held = extra[at + 4 : at + 4 + length]
            values = iter(struct.unpack(f"<{len(held) // 8}Q", held[: len(held) // 8 * 8]))
            try:
                whole = [next(values) if value == 0xFFFFFFFF else value for value in (size, compressed, offset)]
            except StopIteration:
                break
            return whole[0], whole[1], whole[2]
        at += 4 + length
    raise ArchiveInvalid(f"The archive lacks the zip64 sizes of {name!r}.", _NEXT_STEP)


def _check(member: Member, name_size: int, directory: _Directory) -> None:
    if member.offset + LOCAL.size + name_size + member.compressed > directory.offset:
        raise ArchiveInvalid(f"The archive is too small to hold its member {member.name!r}.", _NEXT_STEP)
    # Twelve bytes of an encrypted member are its own header (APPNOTE 6.1.3).
    if member.method == STORED and member.size != member.compressed - 12 * member.encrypted:
        raise ArchiveInvalid(f"The archive gives two sizes for its member {member.name!r}.", _NEXT_STEP)
    if member.method == DEFLATED and member.size > member.compressed * _BEST_DEFLATE:
        raise ArchiveInvalid(
            f"The archive's member {member.name!r} cannot be as large as it claims.", "Do not trust it."
        )


def _ends(entries: list[Member], directory: int) -> dict[int, int]:
    """For each member's offset, where the next one begins. Raises when two share a byte."""
    ends = {}
    end = directory
    for member in sorted(entries, key=lambda member: member.offset, reverse=True):
        if member.offset + LOCAL.size + member.compressed > end:
            raise ArchiveInvalid(f"The archive's members overlap at {member.name!r}.", "Do not trust it.")
        ends[member.offset] = end
        end = member.offset
    return ends
