"""The names in a zip archive: which text their bytes are, and that none of them leaves its folder.

A name is UTF-8 where its record says so (flag 0x800) or an Info-ZIP Unicode Path field (0x7075, APPNOTE 4.6.9) gives
it. For all others of an archive together, one rule: they are UTF-8 if every one of them is; else GBK if every one of
them is, what is not ASCII in them are Chinese characters, and most keep to those in everyday use (GB 2312); else code
page 437, which the format prescribes.
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
class Extras:
    """The extra fields of each record, in the directory's bytes."""

    data: bytes
    starts: list[int]
    ends: list[int]

    def length(self, row: int) -> int:
        return self.ends[row] - self.starts[row]

    def find(self, row: int, kind: int) -> bytes | None:
        """What that field of a record holds; None where there is none."""
        at, end = self.starts[row], self.ends[row]
        while at + 4 <= end:
            length = int.from_bytes(self.data[at + 2 : at + 4], "little")
            if int.from_bytes(self.data[at : at + 2], "little") == kind:
                return self.data[at + 4 : min(at + 4 + length, end)]
            at += 4 + length
        return None


def decoded(raw: list[bytes], flags: NDArray[np.uint16], extras: Extras) -> list[bytes]:
    """The names in UTF-8. Raises `ArchiveInvalid` for one that is no text, or that would leave its folder."""
    named = raw if b"".join(raw).isascii() else _recoded(raw, flags, extras)
    if _may_leave(named):
        for name in named:
            _check(name)
    return named


def _recoded(raw: list[bytes], flags: NDArray[np.uint16], extras: Extras) -> list[bytes]:
    named = list(raw)
    unknown = []
    for row, name in enumerate(raw):
        if name.isascii():
            continue
        if flags[row] & _UTF8:
            _check_utf8(name)
        elif (path := _unicode_path(extras.find(row, _UNICODE_PATH), name)) is not None:
            named[row] = path
        else:
            unknown.append(row)
    encoding = _encoding([raw[row] for row in unknown])
    for row in unknown:
        named[row] = raw[row].decode(encoding).encode()
    return named


def _unicode_path(field: bytes | None, name: bytes) -> bytes | None:
    """The name in an Info-ZIP Unicode Path field, unless it belongs to another name: the entry was renamed since."""
    if field is None or field[:1] != b"\1" or int.from_bytes(field[1:5], "little") != zlib.crc32(name):
        return None
    _check_utf8(field[5:])
    return field[5:]


def _encoding(names: list[bytes]) -> str:
    if all(map(partial(_is, encoding="utf-8"), names)):
        return "utf-8"
    if all(_is(name, "gbk") and _CHINESE.fullmatch(name.decode("gbk")) for name in names):
        everyday = sum(_is(name, "gb2312") for name in names)
        return "gbk" if 2 * everyday > len(names) else "cp437"
    return "cp437"


def _is(name: bytes, encoding: str) -> bool:
    try:
        name.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _check_utf8(name: bytes) -> None:
    if not _is(name, "utf-8"):
        raise ArchiveInvalid(
            f"The archive has a name that is not UTF-8: {name[:80]!r}.",
            "Fetch it again, or ask whoever made it for a whole one.",
        )


def _may_leave(names: list[bytes]) -> bool:
    """Whether a name has to be looked at by itself: a look at all of them at once, which is what nearly all stand."""
    joined = b"/" + b"/".join(names) + b"/"
    return any(part in joined for part in (b"/../", b"//", b"\\", b"\0", b":"))


def _check(name: bytes) -> None:
    text = name.decode()
    parts = re.split(r"[/\\]", text)
    if not text or "\0" in text or ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", text):
        raise ArchiveInvalid(f"The archive has a member that would leave its folder: {text!r}.", "Do not trust it.")
