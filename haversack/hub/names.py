"""Any name as a name on disk.

A drive allows what a file system does not: slashes, two files of one name, names of 400 letters. The record keeps the
true name; the disk gets the nearest name that it can hold.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable

from haversack.hub.refusal import invalid

_LONGEST_ON_DISK = 255  # bytes; NAME_MAX of every common Linux file system
_LONGEST = 32_767  # characters, so that no record grows without bound


def checked(name: str) -> str:
    """The name as it is kept. Raises `Refusal` for one that is empty, too long or not Unicode text."""
    if not name or len(name) > _LONGEST:
        raise invalid(f"A name has 1 to {_LONGEST} characters.", "name")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise invalid("The name is not Unicode text: it has a lone surrogate.", "name") from None
    return name


def on_disk(name: str) -> bytes:
    """The name that a file of that name gets in a folder, before collisions."""
    plain = "".join("_" if letter == "/" or unicodedata.category(letter) == "Cc" else letter for letter in name)
    if plain in (".", ".."):
        plain = plain.replace(".", "_")
    return _shortened(plain, "")


def free(name: str, is_taken: Callable[[bytes], bool]) -> bytes:
    """The first of `name`, `name (1)`, `name (2)` … that is not taken, the suffix kept last."""
    candidate = on_disk(name)
    plain = os.fsdecode(candidate)
    count = 0
    while is_taken(candidate):
        count += 1
        candidate = _shortened(plain, f" ({count})")
    return candidate


def from_disk(disk: bytes) -> str:
    """The name of a file that was put into the folder by hand; bytes that are no text become �."""
    return disk.decode(errors="replace")


def _shortened(name: str, mark: str) -> bytes:
    """`name` with `mark` before its suffix, cut in the middle of the name to what a disk holds."""
    stem, suffix = os.path.splitext(name)
    if len(suffix.encode()) > 32:
        stem, suffix = name, ""
    room = _LONGEST_ON_DISK - len((mark + suffix).encode())
    return (stem.encode()[:room].decode(errors="ignore") + mark + suffix).encode()
