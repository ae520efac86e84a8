"""Google's documents, and shortcuts. On disk each is a small plain file.

    NAME.gdoc, NAME.gslides   a document, a presentation: its text (UTF-8)
    NAME.gsheet               a spreadsheet: its cells as CSV (UTF-8)
    NAME.gshortcut            a shortcut: {"target": ID}

In the API their names have no suffix, and they have no binary content: documents are exported instead. The hub exports
formats that it can convert from plain text, without layout. It does not edit documents.
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
_MAX_EXPORT = 10 * 10**6  # bytes, Drive's own limit
_MAX_SHORTCUT = 10_000


def export_types(mime: str) -> list[str]:
    """Return the MIME types that a file of type `mime` can be exported to; empty unless it is a document."""
    return list(_CONVERTERS.get(mime, {}))


def export(path: Path, mime: str, wanted: str) -> bytes:
    """Return the content of the document at `path`, of type `mime`, converted to the MIME type `wanted`.

    Raises `Refusal`: 403 if `mime` is not a document's type or the text is longer than 10 million characters (Drive's
    limit is 10 MB), 400 for an unsupported conversion, 404 if the file does not exist.
    """
    convert = _CONVERTERS.get(mime, {}).get(wanted)
    if mime not in _CONVERTERS:
        raise Refusal(
            403, "fileNotExportable", "Export only supports Docs Editors files.", where="fileId"
        )  # fmt: skip
    if convert is None:
        raise Refusal(400, "badRequest", "The requested conversion is not supported.", where="convertTo")
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            text = file.read(_MAX_EXPORT + 1)
    except FileNotFoundError:
        raise Refusal(404, "notFound", "The file no longer exists.") from None
    if len(text) > _MAX_EXPORT:
        raise Refusal(403, "exportSizeLimitExceeded", "This file is too large to be exported.")
    return convert(text)


def shortcut_content(target: str) -> bytes:
    """Return the content of the file that stores a shortcut to the file id `target`."""
    return json.dumps({"target": target}).encode()


def read_target(path: Path) -> str | None:
    """Return the file id that the shortcut stored at `path` points to; None if the file is unreadable or invalid."""
    try:
        with open(path, "rb") as file:
            record = json.loads(file.read(_MAX_SHORTCUT))
    except (OSError, ValueError, RecursionError):
        return None
    target = record.get("target") if isinstance(record, dict) else None
    return target if isinstance(target, str) and target.isascii() else None


def _as_html(text: str) -> bytes:
    paragraphs = "".join(f"<p>{html.escape(line)}</p>" for line in text.splitlines() if line.strip())
    return f'<html><head><meta charset="utf-8"></head><body>{paragraphs}</body></html>'.encode()


def _as_tsv(text: str) -> bytes:
    cells = io.StringIO()
    csv.writer(cells, dialect="excel-tab").writerows(csv.reader(io.StringIO(text)))
    return cells.getvalue().encode()


_TEXT_CONVERTERS: dict[str, Callable[[str], bytes]] = {"text/plain": str.encode, "text/html": _as_html}
_CONVERTERS: dict[str, dict[str, Callable[[str], bytes]]] = {
    DOCUMENT: {**_TEXT_CONVERTERS, "text/markdown": str.encode},
    SLIDES: _TEXT_CONVERTERS,
    SHEET: {"text/csv": str.encode, "text/tab-separated-values": _as_tsv},
}
