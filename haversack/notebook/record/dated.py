"""How old a notebook is, by what it says of itself.

Colab and Kaggle keep in a notebook when each cell was executed. A notebook without that may name versions of libraries,
in comments or in what its cells once printed, or a version of Python, which are not older than their release. The
file's own time says nothing: it is that of the download.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# Releases from before July 2023: a notebook that names no newer one is of that time.
_BEFORE = "2023-06"
_OLD = {
    "tensorflow": (2, 12),
    "torch": (2, 0),
    "keras": (2, 12),
    "numpy": (1, 24),
    "pandas": (2, 0),
    "scikit-learn": (1, 2),
    "sklearn": (1, 2),
    "matplotlib": (3, 7),
    "transformers": (4, 30),
}
_VERSION = re.compile(
    rf"\b({'|'.join(_OLD)})(?:\.__version__)?(?:\s+version)?\W{{1,4}}v?(\d+)\.(\d+)\b(?:\.\d+)?", re.IGNORECASE
)
_OLD_PYTHON = (3, 9)
# No cloud notebook is older; a smaller number is no time.
_FIRST = 2015


def month_of(notebook: Path) -> str:
    """Return the month in which the notebook at this path was last executed, or at most that, as "2023-09".

    "" if it does not tell. It must be a notebook: `document.read` has read it.
    """
    content = json.loads(notebook.read_text(encoding="utf-8"))
    cells = [cell for cell in content.get("cells", ()) if isinstance(cell, dict)]
    metadata = content.get("metadata") or {}
    executed = [*_times(_executions(cells)), *_times([metadata.get("papermill")])]
    times = executed or list(_times([metadata.get("colab")]))
    return f"{max(times):%Y-%m}" if times else _by_versions(cells, metadata)


def _executions(cells: list[dict[str, Any]]) -> Iterator[Any]:
    for cell in cells:
        metadata = cell.get("metadata") or {}
        yield from (metadata.get("executionInfo"), metadata.get("execution"), metadata.get("papermill"))


def _times(values: Any) -> Iterator[datetime]:
    """Yield every time in these values: milliseconds since 1970 as `timestamp`, and texts in ISO 8601."""
    for value in values:
        if isinstance(value, Mapping):
            if isinstance(stamp := value.get("timestamp"), int | float):
                yield from _moment(stamp / 1000)
            yield from _times(value.values())
        elif isinstance(value, list):
            yield from _times(value)
        elif isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value):
            yield from _moment(value)


def _moment(value: float | str) -> Iterator[datetime]:
    try:
        moment = datetime.fromtimestamp(value, UTC) if isinstance(value, float) else datetime.fromisoformat(value[:19])
    except (ValueError, OverflowError, OSError):
        return
    if moment.year >= _FIRST:
        yield moment.replace(tzinfo=None)


def _by_versions(cells: list[dict[str, Any]], metadata: Mapping[str, Any]) -> str:
    """Return `_BEFORE` if the notebook names old versions and no newer one, else ""."""
    texts = [text for cell in cells for text in _texts(cell)]
    named = {(found[1].lower(), (int(found[2]), int(found[3]))) for text in texts for found in _VERSION.finditer(text)}
    python = re.match(r"(\d+)\.(\d+)", str((metadata.get("language_info") or {}).get("version", "")))
    is_old = [version <= _OLD[name] for name, version in named]
    if python is not None:
        is_old.append((int(python[1]), int(python[2])) <= _OLD_PYTHON)
    return _BEFORE if is_old and all(is_old) else ""


def _texts(cell: Mapping[str, Any]) -> Iterator[str]:
    """Yield a cell's source, and what it once printed."""
    outputs = [output for output in cell.get("outputs") or () if isinstance(output, dict)]
    shown = [output.get("text") or (output.get("data") or {}).get("text/plain") or "" for output in outputs]
    for text in (cell.get("source", ""), *shown):
        yield text if isinstance(text, str) else "".join(map(str, text))
