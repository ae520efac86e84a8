"""File names on disk for any name on the drive.

A drive allows what a file system does not: slashes, two files of one name, names of 400 characters. The table of files
keeps the true name; the disk gets the closest name that the file system allows.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable

from haversack.hub.refusal import invalid

_MAX_BYTES = 255  # bytes; NAME_MAX of every common Linux file system
_MAX_CHARACTERS = 32_767  # characters, so that no record grows without bound


def validate(name: str) -> str:
    """Return `name` if the drive can store it.

    Raises `Refusal` (400) if it is empty, longer than 32,767 characters or not valid Unicode.
    """
    if not name or len(name) > _MAX_CHARACTERS:
        raise invalid(f"A name has 1 to {_MAX_CHARACTERS} characters.", "name")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise invalid("The name is not valid Unicode: it has a lone surrogate.", "name") from None
    return name


def to_disk(name: str) -> bytes:
    """Return the name that the file system allows and is closest to `name`; it can collide with another file's.

    `/` and control characters become `_`, and it is cut to 255 bytes before the suffix.
    """
    plain = "".join("_" if letter == "/" or unicodedata.category(letter) == "Cc" else letter for letter in name)
    if plain in (".", ".."):
        plain = plain.replace(".", "_")
    return _shorten(plain, "")


def free_name(name: str, is_taken: Callable[[bytes], bool]) -> bytes:
    """Return the first of `name`, `name (1)`, `name (2)` … as a name on disk that is not taken.

    The number precedes the suffix: `a (1).txt`. `is_taken` is called with names on disk.
    """
    candidate = to_disk(name)
    plain = os.fsdecode(candidate)
    count = 0
    while is_taken(candidate):
        count += 1
        candidate = _shorten(plain, f" ({count})")
    return candidate


def from_disk(disk: bytes) -> str:
    """Return the drive name of a file that was put into the folder by hand; bytes that are not UTF-8 become �."""
    return disk.decode(errors="replace")


def _shorten(name: str, mark: str) -> bytes:
    """Insert `mark` before the suffix of `name`, and truncate the part before it to 255 bytes in total."""
    stem, suffix = os.path.splitext(name)
    if len(suffix.encode()) > 32:
        stem, suffix = name, ""
    room = _MAX_BYTES - len((mark + suffix).encode())
    return (stem.encode()[:room].decode(errors="ignore") + mark + suffix).encode()
