"""Tiny notebooks for the tests, and their outputs as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_notebook


def write(path: Path, *sources: str, tags: dict[int, list[str]] | None = None, **metadata: Any) -> Path:
    """A notebook of code cells; `tags` maps a cell's index to its tags."""
    cells = [new_code_cell(source) for source in sources]
    for index, names in (tags or {}).items():
        cells[index].metadata["tags"] = names
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


def read(path: Path | str) -> Any:
    return nbformat.read(path, as_version=4)


def text(path: Path | str, index: int) -> str:
    """What the cell at `index` of an executed notebook shows, as text."""
    shown = []
    for output in read(path).cells[index].outputs:
        if output.output_type == "stream":
            shown.append(output.text)
        elif output.output_type == "error":
            shown += output.traceback
        else:
            shown.append(output.data.get("text/plain", ""))
    return "".join(shown)
