"""What a drive holds beside files and folders: Google's documents, and shortcuts. On disk each is a small plain file.

    NAME.gdoc, NAME.gslides   a document, a presentation: its text (UTF-8)
    NAME.gsheet               a spreadsheet: its cells as CSV (UTF-8)
    NAME.gshortcut            a shortcut: {"target": ID}

Through the API they bear their name without the suffix and have no bytes: documents are exported, and the hub exports
what it can make of plain text. It does not edit them, and what it exports is not laid out.
"""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable
from pathlib import Path

from haversack.hub.refusal import Refusal

DOCUMENT = "application/vnd.google-apps.document"
SHEET = "application/vnd.google-apps.spreadsheet"
SLIDES = "application/vnd.google-apps.presentation"
SHORTCUT = "application/vnd.google-apps.shortcut"
SUFFIXES = {DOCUMENT: ".gdoc", SHEET: ".gsheet", SLIDES: ".gslides", SHORTCUT: ".gshortcut"}
DOCUMENTS = frozenset({DOCUMENT, SHEET, SLIDES})
_LARGEST_EXPORT = 10 * 10**6  # bytes, Drive's own limit
_LONGEST_SHORTCUT = 10_000


def exports(mime: str) -> list[str]:
    """The types that a document can be exported to."""
    return list(_EXPORTS.get(mime, {}))


def export(path: Path, mime: str, wanted: str) -> bytes:
    """A document's content as the type `wanted`. Raises `Refusal` where it has none of that type."""
    make = _EXPORTS.get(mime, {}).get(wanted)
    if mime not in _EXPORTS:
        raise Refusal(
            403, "fileNotExportable", "Export only supports Docs Editors files.", where="fileId"
        )  # fmt: skip
    if make is None:
        raise Refusal(400, "badRequest", "The requested conversion is not supported.", where="convertTo")
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            text = file.read(_LARGEST_EXPORT + 1)
    except FileNotFoundError:
        raise Refusal(404, "notFound", "The file is gone.") from None
    if len(text) > _LARGEST_EXPORT:
        raise Refusal(403, "exportSizeLimitExceeded", "This file is too large to be exported.")
    return make(text)


def shortcut(target: str) -> bytes:
    """The content of a shortcut's file."""
    return json.dumps({"target": target}).encode()


def target_of(path: Path) -> str | None:
    """The id that a shortcut's file leads to; None where it says none."""
    try:
        with open(path, "rb") as file:
            said = json.loads(file.read(_LONGEST_SHORTCUT))
    except (OSError, ValueError, RecursionError):
        return None
    target = said.get("target") if isinstance(said, dict) else None
    return target if isinstance(target, str) and target.isascii() else None


def _as_html(text: str) -> bytes:
    paragraphs = "".join(f"<p>{html.escape(line)}</p>" for line in text.splitlines() if line.strip())
    return f'<html><head><meta charset="utf-8"></head><body>{paragraphs}</body></html>'.encode()


def _as_tsv(text: str) -> bytes:
    cells = io.StringIO()
    csv.writer(cells, dialect="excel-tab").writerows(csv.reader(io.StringIO(text)))
    return cells.getvalue().encode()


_TEXT: dict[str, Callable[[str], bytes]] = {"text/plain": str.encode, "text/html": _as_html}
_EXPORTS: dict[str, dict[str, Callable[[str], bytes]]] = {
    DOCUMENT: {**_TEXT, "text/markdown": str.encode},
    SLIDES: _TEXT,
    SHEET: {"text/csv": str.encode, "text/tab-separated-values": _as_tsv},
}
