"""Decoding and validation of member names in a zip archive.

A name is UTF-8 if its record has flag 0x800 or an Info-ZIP Unicode Path extra field (0x7075, APPNOTE 4.6.9). All other
names of an archive get one encoding, the first of these that fits:

1. UTF-8, if every name is valid UTF-8.
2. GBK, if every name is valid GBK whose non-ASCII characters are all Chinese, and more than half of the names are valid
   in its subset for everyday use, GB 2312.
3. Code page 437, which the format prescribes.

Names that would be extracted outside the target folder make the archive invalid.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from haversack.errors import ArchiveInvalid

_UTF8 = 0x800
_UNICODE_PATH = 0x7075
_CHINESE = re.compile(r"[\x00-\x7f\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]*")


@dataclass(frozen=True, slots=True)
class ExtraFields:
    """The extra fields (APPNOTE 4.5) of the records of a central directory.

    Attributes:
        data: the bytes of the central directory.
        starts, ends: for each record, the range of its extra fields in `data`.
    """

    data: bytes
    starts: list[int]
    ends: list[int]

    def length(self, row: int) -> int:
        return self.ends[row] - self.starts[row]

    def find(self, row: int, kind: int) -> bytes | None:
        """Return the data of the first extra field with header ID `kind` in record `row`, or None if there is none.

        If the field claims to be longer than the record's extra fields, the data ends with them.
        """
        at, end = self.starts[row], self.ends[row]
        while at + 4 <= end:
            length = int.from_bytes(self.data[at + 2 : at + 4], "little")
            if int.from_bytes(self.data[at : at + 2], "little") == kind:
                return self.data[at + 4 : min(at + 4 + length, end)]
            at += 4 + length
        return None


def decode_names(raw: list[bytes], flags: NDArray[np.uint16], extras: ExtraFields) -> list[bytes]:
    """Convert the members' names `raw`, as they are in the records, to UTF-8.

    `flags` are the general purpose flags (APPNOTE 4.4.4) of the records, `extras` their extra fields, in the order of
    `raw`. A name that is not marked as UTF-8 is taken from the Unicode Path field if there is one; the encoding of the
    others is guessed for the whole archive.

    Raises `ArchiveInvalid` for a name that is marked as UTF-8 but is not valid UTF-8, for an empty one, one with a NUL
    character, and one that would be extracted outside the target folder: absolute, with a `..` part, or with a drive
    letter.
    """
    names = raw if b"".join(raw).isascii() else _to_utf8(raw, flags, extras)
    if _any_suspicious(names):
        for name in names:
            _check_inside(name)
    return names


def _to_utf8(raw: list[bytes], flags: NDArray[np.uint16], extras: ExtraFields) -> list[bytes]:
    names = list(raw)
    unknown = []
    for row, name in enumerate(raw):
        if name.isascii():
            continue
        if flags[row] & _UTF8:
            _check_utf8(name)
        elif (path := _unicode_path(extras.find(row, _UNICODE_PATH), name)) is not None:
            names[row] = path
        else:
            unknown.append(row)
    encoding = _guess_encoding([raw[row] for row in unknown])
    for row in unknown:
        names[row] = raw[row].decode(encoding).encode()
    return names


def _unicode_path(field: bytes | None, name: bytes) -> bytes | None:
    """Return the name in an Info-ZIP Unicode Path field.

    None if there is no field, its version is unknown, or its CRC is not that of `name`: a tool renamed the member and
    did not update the field.
    """
    if field is None or field[:1] != b"\1" or int.from_bytes(field[1:5], "little") != zlib.crc32(name):
        return None
    _check_utf8(field[5:])
    return field[5:]


def _guess_encoding(names: list[bytes]) -> str:
    if all(map(partial(_decodes_as, encoding="utf-8"), names)):
        return "utf-8"
    if all(_decodes_as(name, "gbk") and _CHINESE.fullmatch(name.decode("gbk")) for name in names):
        everyday = sum(_decodes_as(name, "gb2312") for name in names)
        return "gbk" if 2 * everyday > len(names) else "cp437"
    return "cp437"


def _decodes_as(name: bytes, encoding: str) -> bool:
    try:
        name.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _check_utf8(name: bytes) -> None:
    if not _decodes_as(name, "utf-8"):
        raise ArchiveInvalid(
            f"The archive has a name that is not UTF-8: {name[:80]!r}.",
            "Fetch it again, or ask its author for an intact copy.",
        )


def _any_suspicious(names: list[bytes]) -> bool:
    """Whether any name may fail `_check_inside`. One scan of all names, because nearly every archive passes it."""
    joined = b"/" + b"/".join(names) + b"/"
    return any(part in joined for part in (b"/../", b"//", b"\\", b"\0", b":"))


def _check_inside(name: bytes) -> None:
    """Raise `ArchiveInvalid` if the name is empty, absolute, has a NUL, a `..` part or a Windows drive letter."""
    text = name.decode()
    parts = re.split(r"[/\\]", text)
    if not text or "\0" in text or ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", text):
        raise ArchiveInvalid(
            f"The archive has a member that would leave its folder: {text!r}.", "Do not use it: it may be malicious."
        )
