"""The notebooks' files: out of clones or from GitHub, into a folder that git ignores; none is ever committed."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from scripts.real_notebooks import drawing
from scripts.real_notebooks.drawing import Listed

RAW = "https://raw.githubusercontent.com"


def path_of(row: Listed, folder: Path) -> Path:
    return folder / row.repository / row.path


def fetch(rows: list[Listed], folder: Path, clones: Path | None) -> list[str]:
    """Put the files that are not there yet into `folder`; return one sentence for each that could not be had."""
    return [said for row in rows if not path_of(row, folder).exists() and (said := _fetch_one(row, folder, clones))]


def _fetch_one(row: Listed, folder: Path, clones: Path | None) -> str:
    try:
        found = drawing.show(drawing.clone(clones, row.repository), row.commit, row.path) if clones else _download(row)
    except (urllib.error.URLError, OSError) as error:
        return f"{row.place} could not be had: {error}"
    path = path_of(row, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(found)
    part.rename(path)
    return ""


def _download(row: Listed) -> bytes:
    url = f"{RAW}/{row.repository}/{row.commit}/{urllib.parse.quote(row.path)}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()
