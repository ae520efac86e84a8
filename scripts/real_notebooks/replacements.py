"""Lines that are replaced before a notebook runs: data of the internet becomes a small stand-in made on the spot.

`real_replacements.tsv` has one row each: which notebooks (a pattern for "owner/name/path"), a regular expression, what
stands in its place (`\\1` is its first group), and why. Every line that a row changes is counted and shown in the table
of results. The stand-ins that the lines name are put into one more first cell, out of `stand_ins.py`.
"""

from __future__ import annotations

import ast
import fnmatch
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STAND_INS = Path(__file__).with_name("stand_ins.py")
_NAMED = re.compile(r"\bstand_in_\w+")


@dataclass(frozen=True)
class Replacement:
    """One row: `notebooks` is a shell pattern, `line` and `by` are as `re.sub` takes them."""

    notebooks: str
    line: re.Pattern[str]
    by: str
    why: str


def read(table: Path) -> list[Replacement]:
    rows = [line.split("\t") for line in table.read_text().splitlines()[1:]]
    return [Replacement(notebooks, re.compile(line), by, why) for notebooks, line, by, why in rows]


def replaced(notebook: dict[str, Any], place: str, table: list[Replacement]) -> int:
    """Replace lines of a notebook (format 4) in place; return how many lines were changed."""
    rows = [row for row in table if fnmatch.fnmatchcase(place, row.notebooks)]
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            lines = _source(cell).split("\n")
            changed = [_replaced_line(line, rows) for line in lines]
            count += sum(new != old for new, old in zip(changed, lines, strict=True))
            cell["source"] = "\n".join(changed)
    if needed := _definitions({name for cell in notebook["cells"] for name in _NAMED.findall(_source(cell))}):
        notebook["cells"].insert(0, _cell(needed, any("id" in cell for cell in notebook["cells"])))
    return count


def _source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def _replaced_line(line: str, rows: list[Replacement]) -> str:
    for row in rows:
        line = row.line.sub(row.by, line)
    return line


def _definitions(names: set[str]) -> str:
    """The source of these definitions of `stand_ins.py`."""
    source = STAND_INS.read_text()
    found = [node for node in ast.parse(source).body if getattr(node, "name", None) in names]
    return "\n\n\n".join(ast.get_source_segment(source, node) or "" for node in found)


def _cell(source: str, with_id: bool) -> dict[str, Any]:
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}
    return cell | ({"id": "stand-ins"} if with_id else {})


def copy(source: Path, target: Path, place: str, table: list[Replacement]) -> int:
    """Write a notebook with its lines replaced; return how many lines were."""
    notebook = json.loads(source.read_bytes())
    count = replaced(notebook, place, table)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(notebook, ensure_ascii=False))
    return count
