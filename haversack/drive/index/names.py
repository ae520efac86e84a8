"""How names on a drive are shown among files, and what a shown name may stand for on the drive.

A drive takes names that no file system can: `/` is shown as `／`, `.` and `..` as `．` and `．．`, so that none leaves
its folder. Google's documents are shown with the endings that Drive's own clients give them (`.gdoc`, `.gsheet`, …).
Two files of one name may lie in one folder: the one made first keeps it, the others are shown as `name (1).ext` and so
on; `index` sees to it that a file keeps the name it was shown under.
"""

from __future__ import annotations

import os
import re

from haversack.drive.remote.calls import FOLDER, SHORTCUT, File

_GOOGLE = "application/vnd.google-apps."
_ENDINGS = {
    _GOOGLE + kind: ending
    for kind, ending in {
        "document": ".gdoc",
        "drawing": ".gdraw",
        "form": ".gform",
        "jam": ".gjam",
        "map": ".gmap",
        "presentation": ".gslides",
        "script": ".gscript",
        "site": ".gsite",
        "spreadsheet": ".gsheet",
    }.items()
}
_OTHER_ENDING = ".glink"
_NUMBERED = re.compile(r"(?s)(.+) \(([1-9][0-9]{0,5})\)((?:\.[^.]*)?)")


def is_document(file: File) -> bool:
    """Whether it is one of Google's own documents, which have no bytes."""
    return file.mime_type.startswith(_GOOGLE) and file.mime_type not in (FOLDER, SHORTCUT)


def shown_name(name: str) -> str:
    """A name as a file system can carry it."""
    if name in (".", ".."):
        return name.replace(".", "．")
    return name.replace("/", "／").replace("\0", "␀") or "␣"


def shown(file: File) -> str:
    """The name a file is shown under while no other has it."""
    return shown_as(file.name, file.mime_type)


def shown_as(name: str, mime_type: str) -> str:
    """As `shown`, of a file's name and kind."""
    if mime_type.startswith(_GOOGLE):
        return shown_name(name) + _ending(name, mime_type)
    return shown_name(name)


def kept(file: File, name: str) -> str:
    """What `file` is to be called on the drive so that it is shown as `name`."""
    ending = _ending("", file.mime_type)
    return name.removesuffix(ending) if ending and name != ending else name


def numbered(name: str, number: int) -> str:
    """`a.txt` as `a (1).txt`."""
    stem, ending = os.path.splitext(name)
    return f"{stem} ({number}){ending}"


def unnumbered(name: str) -> str | None:
    """`a (1).txt` as `a.txt`; None for a name without a number."""
    found = _NUMBERED.fullmatch(name)
    return found[1] + found[3] if found else None


def meant(name: str) -> list[str]:
    """The names on the drive that are shown like this while no other file has the name, the likeliest first."""
    names = [name]
    if name in ("．", "．．"):
        names.append(name.replace("．", "."))
    if "／" in name:
        names.append(name.replace("／", "/"))
    stem, ending = os.path.splitext(name)
    if ending == _OTHER_ENDING or ending in _ENDINGS.values():
        names += meant(stem)
    return names


def _ending(name: str, mime_type: str) -> str:
    if not mime_type.startswith(_GOOGLE) or mime_type in (FOLDER, SHORTCUT):
        return ""
    ending = _ENDINGS.get(mime_type, _OTHER_ENDING)
    return "" if name.endswith(ending) else ending
