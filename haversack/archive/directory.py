"""Parser and validator of a zip archive's central directory.

The format is PKWARE's APPNOTE 6.3.10 (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT), sections 4.3.12 to
4.3.16: the end of central directory record, its zip64 form, and one record per member. Sizes, offsets and CRCs are
read from these records only, so members with data descriptors need no special case.

An archive whose directory contradicts itself is refused as a whole: an archive that two programs read differently can
hide files from one of them. Split archives and encrypted central directories are not supported.

Data sets have hundreds of thousands of members, so the records are parsed as numpy columns, not one by one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NoReturn, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from haversack.archive.names import ExtraFields, decode_names
from haversack.errors import ArchiveInvalid

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
LOCAL = struct.Struct("<4s5H3L2H")
"""The local file header before a member's bytes (APPNOTE 4.3.7)."""

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
"""One row per member. Offsets and sizes are in bytes.

`offset` is that of the local header; `end` is where the next member, or the central directory, starts; `name_end` is
where the member's name ends in the concatenation of all names.
"""

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
# A 32-bit field with this value has its real value in the zip64 extra field (APPNOTE 4.5.3).
_ZIP64_MARKER = 0xFFFFFFFF
# The best ratio that deflate can reach, by zlib's technical notes (https://zlib.net/zlib_tech.html).
_MAX_DEFLATE_RATIO = 1032
# No real archive is this large; larger numbers could overflow when 64-bit values are added.
_MAX_NUMBER = 1 << 52
_NEXT_STEP = "Fetch it again, or ask its author for an intact copy."


class Bytes(Protocol):
    """A file, local or remote, whose `size` in bytes is known and that is readable at any offset.

    Implementations are thread-safe: `reader.LocalFile`, `blocks.ranges.RemoteFile`, `datasets.stored.StoredFile`.
    """

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes from `offset`.

        Raises `IntegrityError` if the file has fewer, or changed while it is open. A remote file also raises
        `ConnectionFailed`, `RemoteError` or `SignInError`, and `DiskFull` if the fetched bytes cannot be stored.
        """
        ...


@dataclass(frozen=True, slots=True)
class Directory:
    """All members of an archive, including folders, in the order of the central directory.

    Attributes:
        columns: a structured array of dtype `COLUMNS`, one row per member: offsets, sizes, CRC, method, encryption.
        names: the members' names in UTF-8; a folder's ends with a slash. Several members may have one name.
    """

    columns: NDArray[np.void]
    names: list[bytes]


@dataclass(frozen=True, slots=True)
class _Location:
    """Where the central directory is in the file.

    Attributes:
        offset, size: in bytes.
        count: the number of records in it.
        shift: bytes to add to every offset in the archive, because data precedes it, as in self-extracting archives.
    """

    offset: int
    size: int
    count: int
    shift: int


def read_directory(file: Bytes) -> Directory:
    """Parse and validate the archive's central directory; no other part of the archive is read.

    Raises `ArchiveInvalid` if the directory is missing, cut off, inconsistent or unsupported, or if a name is invalid
    (`names.decode_names`). Errors of `file.read_at` pass through.
    """
    location = _locate(file)
    data = file.read_at(location.offset, location.size)
    starts = _record_starts(data, location.count)
    if not len(starts):
        return Directory(np.zeros(0, COLUMNS), [])
    flat = np.frombuffer(data, np.uint8)
    records = sliding_window_view(flat, _RECORD.itemsize)[starts].view(_RECORD)[:, 0]
    name_starts = starts + _RECORD.itemsize
    name_ends = name_starts + records["name_length"]
    extra_ends = (name_ends + records["extra_length"]).tolist()
    raw = [data[start:end] for start, end in zip(name_starts.tolist(), name_ends.tolist(), strict=True)]
    extras = ExtraFields(data, name_ends.tolist(), extra_ends)
    names = decode_names(raw, records["flags"], extras)
    columns = _columns(data, records, name_ends, extras, names, location.shift)
    _check_members(columns, records, names, location.offset)
    columns["end"] = _next_offsets(columns, names, location.offset)
    return Directory(columns, names)


def _locate(file: Bytes) -> _Location:
    """Locate the central directory by the last end record whose comment ends exactly at the end of the file.

    Raises `ArchiveInvalid` if there is none, or if its numbers cannot be right.
    """
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
        raise ArchiveInvalid("The archive has no end record: it is cut off, or it is not a zip archive.", _NEXT_STEP)
    end = file.size - len(tail) + found
    locator = found - _LOCATOR64.size
    if (count == 0xFFFF or 0xFFFFFFFF in (size, offset)) and locator >= 0 and tail[locator : locator + 4] == b"PK\6\7":
        count, size, offset, end = _read_zip64(file, end - _LOCATOR64.size)
    elif disk or first_disk:
        raise ArchiveInvalid("The archive is one part of several.", "Join the parts into one archive first.")
    shift = end - size - offset
    if shift < 0:
        raise ArchiveInvalid("The archive is cut off: it is smaller than its directory says.", _NEXT_STEP)
    if count * _RECORD.itemsize > size:
        raise ArchiveInvalid(f"The archive claims {count:,} members in a directory of {size:,} bytes.", _NEXT_STEP)
    return _Location(offset + shift, size, count, shift)


def _read_zip64(file: Bytes, locator: int) -> tuple[int, int, int, int]:
    """Return the count, size and offset of the zip64 end record, and the offset of that record itself.

    `locator` is the offset of the zip64 locator. Raises `ArchiveInvalid` if the record is cut off or missing.
    """
    # Search directly before the locator: the offset that the locator names is wrong if data precedes the archive, and
    # no known writer uses the record's extensible part.
    begin = locator - _END64.size
    if begin < 0:
        raise ArchiveInvalid("The archive's zip64 record is cut off.", _NEXT_STEP)
    signature, _, _, _, disk, first_disk, _, count, size, offset = _END64.unpack(file.read_at(begin, _END64.size))
    if signature != b"PK\6\6":
        raise ArchiveInvalid("The archive's zip64 record is missing.", _NEXT_STEP)
    if disk or first_disk:
        raise ArchiveInvalid("The archive is one part of several.", "Join the parts into one archive first.")
    return count, size, offset, begin


def _record_starts(data: bytes, count: int) -> NDArray[np.int64]:
    """Return the offset of each of the `count` records in the directory `data`.

    Every occurrence of the record signature is found in one vectorized pass. If some of them are not records (a name
    or comment contains the signature), the records are followed one by one instead. Raises `ArchiveInvalid` unless the
    records are contiguous and fill `data` exactly.
    """
    flat = np.frombuffer(data, np.uint8)
    found = np.flatnonzero(
        (flat[:-3] == ord("P")) & (flat[1:-2] == ord("K")) & (flat[2:-1] == 1) & (flat[3:] == 2)
    ).astype(np.int64)
    found = found[found + _RECORD.itemsize <= len(data)]
    if not count:
        if data:
            raise ArchiveInvalid("The archive's directory has data beyond its members.", _NEXT_STEP)
        return found[:0]
    if not len(found) or found[0] != 0:
        _raise_truncated(1)
    records = sliding_window_view(flat, _RECORD.itemsize)[found].view(_RECORD)[:, 0]
    lengths = [records[part].astype(np.int64) for part in ("name_length", "extra_length", "comment_length")]
    stops = found + _RECORD.itemsize + lengths[0] + lengths[1] + lengths[2]
    if len(found) != count or (stops[:-1] != found[1:]).any():
        chain = _follow_records(found, stops, count)
        found, stops = found[chain], stops[chain]
    if stops[-1] > len(data):
        _raise_truncated(count)
    if stops[-1] != len(data):
        raise ArchiveInvalid("The archive's directory has data beyond its members.", _NEXT_STEP)
    return found


def _follow_records(found: NDArray[np.int64], stops: NDArray[np.int64], count: int) -> list[int]:
    """Return the indices into `found` of `count` records, each of which starts where the one before it stops."""
    following = np.searchsorted(found, stops)
    known = following < len(found)
    known[known] = found[following[known]] == stops[known]
    steps = np.where(known, following, -1).tolist()
    chain = [0]
    while len(chain) < count:
        step = steps[chain[-1]]
        if step < 0:
            _raise_truncated(len(chain) + 1)
        chain.append(step)
    return chain


def _raise_truncated(member: int) -> NoReturn:
    raise ArchiveInvalid(f"The archive's directory breaks off at member {member:,}.", _NEXT_STEP)


def _columns(
    data: bytes,
    records: NDArray[np.void],
    name_ends: NDArray[np.int64],
    extras: ExtraFields,
    names: list[bytes],
    shift: int,
) -> NDArray[np.void]:
    """Convert directory records to `COLUMNS`, with zip64 values and `shift` applied; `end` remains 0."""
    columns = np.zeros(len(records), COLUMNS)
    columns["name_end"] = np.cumsum(np.fromiter(map(len, names), np.int64, len(names)))
    columns["crc"] = records["crc"]
    columns["method"] = records["method"]
    columns["encrypted"] = records["flags"] & 1
    numbers = {field: records[field].astype(np.uint64) for field in ("size", "compressed", "offset")}
    _apply_zip64(numbers, data, name_ends, extras, names)
    for field, values in numbers.items():
        if (values > _MAX_NUMBER).any():
            _raise_too_small(names[int(np.argmax(values > _MAX_NUMBER))])
        columns[field] = values
    columns["offset"] += shift
    return columns


def _apply_zip64(
    numbers: dict[str, NDArray[np.uint64]],
    data: bytes,
    name_ends: NDArray[np.int64],
    extras: ExtraFields,
    names: list[bytes],
) -> None:
    """Replace each value in `numbers` that is `_ZIP64_MARKER` by its value in the extra field 0x0001 (APPNOTE 4.5.3).

    The field has only the values that did not fit, in the order size, compressed size, offset. Raises `ArchiveInvalid`
    if it is missing or too short.
    """
    wide = {field: values == _ZIP64_MARKER for field, values in numbers.items()}
    rows = np.flatnonzero(wide["size"] | wide["compressed"] | wide["offset"])
    if not len(rows):
        return
    needed = 8 * sum(wide[field][rows].astype(np.int64) for field in numbers)
    # Writers put this field first: read it there in one vectorized pass, and search the other rows one by one.
    in_range = name_ends[rows] + 4 + needed <= len(data)
    first, rest = rows[in_range], rows[~in_range]
    heads = sliding_window_view(np.frombuffer(data, np.uint8), 4)[name_ends[first]].view("<u2")
    lengths = np.minimum(heads[:, 1], [extras.length(row) - 4 for row in first.tolist()])
    usual = (heads[:, 0] == 1) & (lengths >= needed[in_range])
    unusual = np.concatenate([first[~usual], rest])
    first = first[usual]
    at = name_ends[first] + 4
    eights = sliding_window_view(np.frombuffer(data, np.uint8), 8)
    for field, values in numbers.items():
        mask = wide[field][first]
        values[first[mask]] = eights[at[mask]].view("<u8")[:, 0]
        at = at + 8 * mask
    for row in unusual.tolist():
        zip64 = extras.find(row, 1)
        fields = [field for field in numbers if wide[field][row]]
        if zip64 is None or len(zip64) < 8 * len(fields):
            raise ArchiveInvalid(f"The archive lacks the zip64 sizes of {names[row].decode()!r}.", _NEXT_STEP)
        for place, field in enumerate(fields):
            numbers[field][row] = int.from_bytes(zip64[8 * place : 8 * place + 8], "little")


def _check_members(columns: NDArray[np.void], records: NDArray[np.void], names: list[bytes], end: int) -> None:
    """Raise `ArchiveInvalid` if a member's own numbers are impossible; `end` is the offset of the directory."""
    after = columns["offset"] + LOCAL.size + records["name_length"] + columns["compressed"]
    if (bad := after > end).any():
        _raise_too_small(names[int(np.argmax(bad))])
    # An encrypted member has an encryption header of 12 bytes (APPNOTE 6.1.3).
    plain = columns["compressed"] - 12 * columns["encrypted"].astype(np.int64)
    if (bad := (columns["method"] == STORED) & (columns["size"] != plain)).any():
        name = names[int(np.argmax(bad))].decode()
        raise ArchiveInvalid(f"The archive gives two sizes for its member {name!r}.", _NEXT_STEP)
    if (bad := (columns["method"] == DEFLATED) & (columns["size"] > columns["compressed"] * _MAX_DEFLATE_RATIO)).any():
        name = names[int(np.argmax(bad))].decode()
        raise ArchiveInvalid(
            f"The archive's member {name!r} cannot be as large as it claims.", "Do not use it: it may be malicious."
        )


def _next_offsets(columns: NDArray[np.void], names: list[bytes], end: int) -> NDArray[np.int64]:
    """Return for each member the offset of the member behind it in the file; `end` for the last one.

    Raises `ArchiveInvalid` if two members overlap.
    """
    order = np.argsort(columns["offset"], kind="stable")
    offsets = columns["offset"][order]
    following = np.append(offsets[1:], end)
    if (bad := offsets + LOCAL.size + columns["compressed"][order] > following).any():
        name = names[order[int(np.argmax(bad))]].decode()
        raise ArchiveInvalid(f"The archive's members overlap at {name!r}.", "Do not use it: it may be malicious.")
    ends = np.empty_like(following)
    ends[order] = following
    return ends


def _raise_too_small(name: bytes) -> NoReturn:
    raise ArchiveInvalid(f"The archive is too small to hold its member {name.decode()!r}.", _NEXT_STEP)
