"""The mapping between names on a drive and the names under which files are shown in a file system.

A drive accepts names that no file system can hold: `/` is shown as `／`, `.` and `..` as `．` and `．．`, so that no
name leads out of its folder. Google's documents are shown with the suffixes that Drive's own clients give them
(`.gdoc`, `.gsheet`, …). Two files in one folder may have the same name: the oldest is shown under it, the others as
`name (1).ext` and so on. The numbers are kept in the index (`rows`), so that a file keeps its shown name.
"""

from __future__ import annotations

import os
import re

from haversack.drive.remote.calls import FOLDER, SHORTCUT, File

_GOOGLE = "application/vnd.google-apps."
_SUFFIXES = {
    _GOOGLE + kind: suffix
    for kind, suffix in {
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
_OTHER_SUFFIX = ".glink"
_NUMBERED = re.compile(r"(?s)(.+) \(([1-9][0-9]{0,5})\)((?:\.[^.]*)?)")


def is_document(file: File) -> bool:
    """Whether `file` is a Google document (Docs, Sheets, …), which has no bytes of its own."""
    return file.mime_type.startswith(_GOOGLE) and file.mime_type not in (FOLDER, SHORTCUT)


def sanitize(name: str) -> str:
    """Return a drive name with what a file system cannot hold (`/`, NUL, `.`, `..`, "") replaced by lookalikes."""
    if name in (".", ".."):
        return name.replace(".", "．")
    return name.replace("/", "／").replace("\0", "␀") or "␣"


def shown_name(file: File) -> str:
    """Return the name under which `file` is shown if no other file in its folder is shown under that name."""
    return shown_name_of(file.name, file.mime_type)


def shown_name_of(name: str, mime_type: str) -> str:
    """Return the same as `shown_name` for a file with this drive name and MIME type."""
    if mime_type.startswith(_GOOGLE):
        return sanitize(name) + _suffix(name, mime_type)
    return sanitize(name)


def drive_name(file: File, shown: str) -> str:
    """Return the drive name that `file` must get to be shown as `shown`: without its document type's suffix."""
    suffix = _suffix("", file.mime_type)
    return shown.removesuffix(suffix) if suffix and shown != suffix else shown


def numbered(name: str, number: int) -> str:
    """Insert a number before the extension: `a.txt` becomes `a (1).txt`."""
    stem, extension = os.path.splitext(name)
    return f"{stem} ({number}){extension}"


def unnumbered(name: str) -> str | None:
    """Return `a.txt` for `a (1).txt`; None for a name without a number."""
    match = _NUMBERED.fullmatch(name)
    return match[1] + match[3] if match else None


def meant(name: str) -> list[str]:
    """Return every drive name that can be shown as `name` (ignoring numbers for duplicates), most likely first."""
    names = [name]
    if name in ("．", "．．"):
        names.append(name.replace("．", "."))
    if "／" in name:
        names.append(name.replace("／", "/"))
    stem, suffix = os.path.splitext(name)
    if suffix == _OTHER_SUFFIX or suffix in _SUFFIXES.values():
        names += meant(stem)
    return names


def _suffix(name: str, mime_type: str) -> str:
    """Return the suffix that a Google document's type adds to `name`; "" if it is there already or for other files."""
    if not mime_type.startswith(_GOOGLE) or mime_type in (FOLDER, SHORTCUT):
        return ""
    suffix = _SUFFIXES.get(mime_type, _OTHER_SUFFIX)
    return "" if name.endswith(suffix) else suffix
