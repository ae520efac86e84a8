"""A zip archive's central directory, checked before anything in it is believed.

The end of central directory, its zip64 form, and one record per member are as in PKWARE's APPNOTE 6.3.10 (sections
4.3.12 to 4.3.16). Sizes, offsets and CRCs come from here alone, so members with data descriptors are nothing special.
An archive whose directory contradicts itself is refused whole: two readers that disagree about an archive are how
things get smuggled in one. Archives over several disks and encrypted central directories are not read.

Data sets have members by the hundred thousand, so a directory is read as numpy columns, never record by record.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NoReturn, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from haversack.archive import names as names_of
from haversack.errors import ArchiveInvalid

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
LOCAL = struct.Struct("<4s5H3L2H")
"""The header before a member's bytes (APPNOTE 4.3.7)."""

STORED, DEFLATED = 0, 8

COLUMNS = np.dtype(
    [
        ("offset", "<i8"),
        ("end", "<i8"),
        ("size", "<i8"),
        ("compressed", "<i8"),
        ("name_end", "<i8"),
        ("crc", "<u4"),
        ("method", "<u2"),
        ("encrypted", "?"),
        ("", "u1"),
    ]
)
"""What is known of each member, a row each; `name_end` is where its name ends among all names, one after the other."""

_RECORD = np.dtype(
    [
        ("signature", "<u4"),
        ("made_by", "<u2"),
        ("needs", "<u2"),
        ("flags", "<u2"),
        ("method", "<u2"),
        ("time", "<u2"),
        ("date", "<u2"),
        ("crc", "<u4"),
        ("compressed", "<u4"),
        ("size", "<u4"),
        ("name_length", "<u2"),
        ("extra_length", "<u2"),
        ("comment_length", "<u2"),
        ("disk", "<u2"),
        ("internal", "<u2"),
        ("external", "<u4"),
        ("offset", "<u4"),
    ]
)
_IN_EXTRA = 0xFFFFFFFF
# zlib's technical notes: deflate cannot do better than 1032 to 1.
_BEST_DEFLATE = 1032
# No file is this large; beyond it sums of 64-bit numbers could wrap around.
_ABSURD = 1 << 52
_NEXT_STEP = "Fetch it again, or ask whoever made it for a whole one."


class Bytes(Protocol):
    """A file of known size whose bytes can be read at any offset, from several threads at once."""

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes from `offset`, exactly `size` of them; raises when they cannot be had."""
        ...


@dataclass(frozen=True, slots=True)
class Directory:
    """The records of all members, folders too, in the directory's order: `COLUMNS`, and their names in UTF-8."""

    columns: NDArray[np.void]
    names: list[bytes]


@dataclass(frozen=True, slots=True)
class _Place:
    offset: int
    size: int
    count: int
    shift: int
    """How far everything lies behind where the archive says: bytes were put in front of it, as self-extractors do."""


def read_directory(file: Bytes) -> Directory:
    """The archive's central directory. Only the archive's end is read. Raises `ArchiveInvalid` with the reason."""
    place = _find(file)
    data = file.read_at(place.offset, place.size)
    starts = _starts(data, place.count)
    if not len(starts):
        return Directory(np.zeros(0, COLUMNS), [])
    flat = np.frombuffer(data, np.uint8)
    records = sliding_window_view(flat, _RECORD.itemsize)[starts].view(_RECORD)[:, 0]
    name_starts = starts + _RECORD.itemsize
    name_ends = name_starts + records["name_length"]
    extra_ends = (name_ends + records["extra_length"]).tolist()
    raw = [data[start:end] for start, end in zip(name_starts.tolist(), name_ends.tolist(), strict=True)]
    extras = names_of.Extras(data, name_ends.tolist(), extra_ends)
    names = names_of.decoded(raw, records["flags"], extras)
    columns = _columns(data, records, name_ends, extras, names, place.shift)
    _check(columns, records, names, place.offset)
    columns["end"] = _ends(columns, names, place.offset)
    return Directory(columns, names)


def _find(file: Bytes) -> _Place:
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
    if count * _RECORD.itemsize > size:
        raise ArchiveInvalid(f"The archive claims {count:,} members in a directory of {size:,} bytes.", _NEXT_STEP)
    return _Place(offset + shift, size, count, shift)


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


def _starts(data: bytes, count: int) -> NDArray[np.int64]:
    """Where each record begins: each begins where the one before it ends, and the last ends with the directory.

    The signature is looked for everywhere at once; where it also stands inside a name, the records are followed.
    """
    flat = np.frombuffer(data, np.uint8)
    found = np.flatnonzero(
        (flat[:-3] == ord("P")) & (flat[1:-2] == ord("K")) & (flat[2:-1] == 1) & (flat[3:] == 2)
    ).astype(np.int64)
    found = found[found + _RECORD.itemsize <= len(data)]
    if not count:
        if data:
            raise ArchiveInvalid("The archive's directory holds more than its members.", _NEXT_STEP)
        return found[:0]
    if not len(found) or found[0] != 0:
        _breaks_off(1)
    records = sliding_window_view(flat, _RECORD.itemsize)[found].view(_RECORD)[:, 0]
    lengths = [records[part].astype(np.int64) for part in ("name_length", "extra_length", "comment_length")]
    stops = found + _RECORD.itemsize + lengths[0] + lengths[1] + lengths[2]
    if len(found) != count or (stops[:-1] != found[1:]).any():
        chain = _followed(found, stops, count)
        found, stops = found[chain], stops[chain]
    if stops[-1] > len(data):
        _breaks_off(count)
    if stops[-1] != len(data):
        raise ArchiveInvalid("The archive's directory holds more than its members.", _NEXT_STEP)
    return found


def _followed(found: NDArray[np.int64], stops: NDArray[np.int64], count: int) -> list[int]:
    following = np.searchsorted(found, stops)
    known = following < len(found)
    known[known] = found[following[known]] == stops[known]
    steps = np.where(known, following, -1).tolist()
    chain = [0]
    while len(chain) < count:
        step = steps[chain[-1]]
        if step < 0:
            _breaks_off(len(chain) + 1)
        chain.append(step)
    return chain


def _breaks_off(member: int) -> NoReturn:
    raise ArchiveInvalid(f"The archive's directory breaks off at member {member:,}.", _NEXT_STEP)


def _columns(
    data: bytes,
    records: NDArray[np.void],
    name_ends: NDArray[np.int64],
    extras: names_of.Extras,
    names: list[bytes],
    shift: int,
) -> NDArray[np.void]:
    columns = np.zeros(len(records), COLUMNS)
    columns["name_end"] = np.cumsum(np.fromiter(map(len, names), np.int64, len(names)))
    columns["crc"] = records["crc"]
    columns["method"] = records["method"]
    columns["encrypted"] = records["flags"] & 1
    numbers = {field: records[field].astype(np.uint64) for field in ("size", "compressed", "offset")}
    _widen(numbers, data, name_ends, extras, names)
    for field, values in numbers.items():
        if (values > _ABSURD).any():
            _too_small(names[int(np.argmax(values > _ABSURD))])
        columns[field] = values
    columns["offset"] += shift
    return columns


def _widen(
    numbers: dict[str, NDArray[np.uint64]],
    data: bytes,
    name_ends: NDArray[np.int64],
    extras: names_of.Extras,
    names: list[bytes],
) -> None:
    """Put in the 64-bit values of the extra field 0x0001, which holds only those that did not fit (APPNOTE 4.5.3)."""
    wide = {field: values == _IN_EXTRA for field, values in numbers.items()}
    rows = np.flatnonzero(wide["size"] | wide["compressed"] | wide["offset"])
    if not len(rows):
        return
    needed = 8 * sum(wide[field][rows].astype(np.int64) for field in numbers)
    # Writers put this field first, so it is looked for there in all rows at once.
    room = name_ends[rows] + 4 + needed <= len(data)
    first, rest = rows[room], rows[~room]
    heads = sliding_window_view(np.frombuffer(data, np.uint8), 4)[name_ends[first]].view("<u2")
    lengths = np.minimum(heads[:, 1], [extras.length(row) - 4 for row in first.tolist()])
    usual = (heads[:, 0] == 1) & (lengths >= needed[room])
    unusual = np.concatenate([first[~usual], rest])
    first = first[usual]
    at = name_ends[first] + 4
    eights = sliding_window_view(np.frombuffer(data, np.uint8), 8)
    for field, values in numbers.items():
        held = wide[field][first]
        values[first[held]] = eights[at[held]].view("<u8")[:, 0]
        at = at + 8 * held
    for row in unusual.tolist():
        held = extras.find(row, 1)
        fields = [field for field in numbers if wide[field][row]]
        if held is None or len(held) < 8 * len(fields):
            raise ArchiveInvalid(f"The archive lacks the zip64 sizes of {names[row].decode()!r}.", _NEXT_STEP)
        for place, field in enumerate(fields):
            numbers[field][row] = int.from_bytes(held[8 * place : 8 * place + 8], "little")


def _check(columns: NDArray[np.void], records: NDArray[np.void], names: list[bytes], end: int) -> None:
    """Each member's own numbers. `end` is where the directory begins."""
    after = columns["offset"] + LOCAL.size + records["name_length"] + columns["compressed"]
    if (bad := after > end).any():
        _too_small(names[int(np.argmax(bad))])
    # Twelve bytes of an encrypted member are its own header (APPNOTE 6.1.3).
    plain = columns["compressed"] - 12 * columns["encrypted"].astype(np.int64)
    if (bad := (columns["method"] == STORED) & (columns["size"] != plain)).any():
        name = names[int(np.argmax(bad))].decode()
        raise ArchiveInvalid(f"The archive gives two sizes for its member {name!r}.", _NEXT_STEP)
    if (bad := (columns["method"] == DEFLATED) & (columns["size"] > columns["compressed"] * _BEST_DEFLATE)).any():
        name = names[int(np.argmax(bad))].decode()
        raise ArchiveInvalid(f"The archive's member {name!r} cannot be as large as it claims.", "Do not trust it.")


def _ends(columns: NDArray[np.void], names: list[bytes], end: int) -> NDArray[np.int64]:
    """For each member, where the next one begins. Raises when two share a byte."""
    order = np.argsort(columns["offset"], kind="stable")
    offsets = columns["offset"][order]
    following = np.append(offsets[1:], end)
    if (bad := offsets + LOCAL.size + columns["compressed"][order] > following).any():
        name = names[order[int(np.argmax(bad))]].decode()
        raise ArchiveInvalid(f"The archive's members overlap at {name!r}.", "Do not trust it.")
    ends = np.empty_like(following)
    ends[order] = following
    return ends


def _too_small(name: bytes) -> NoReturn:
    raise ArchiveInvalid(f"The archive is too small to hold its member {name.decode()!r}.", _NEXT_STEP)
