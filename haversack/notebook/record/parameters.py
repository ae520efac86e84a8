"""Set a notebook's variables from the command line: `--param epochs=5`.

Runs in the process of `haversack run`. A variable that is assigned in the cell tagged `parameters` is assigned again in
a new cell after it, as papermill does (https://papermill.readthedocs.io/en/latest/usage-parameterize.html). For any
other variable the value is replaced in the source: that of its first assignment with a `#@param` form or, without one,
that of its first assignment. Only assignments at the top level of a cell to a single name count. A name that the
notebook never assigns is an error.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from haversack.errors import InputError, ParameterUnknown
from haversack.notebook.record.schema import nbformat

# A shell command or a magic with its continuation lines, also one whose output is assigned.
_MAGIC = re.compile(r"^([ \t]*)(?:[\w, ]+=[ \t]*)?[!%](?:.*\\\n)*.*$", re.MULTILINE)


@dataclass(frozen=True)
class Assignment:
    """One `name = value` in a cell.

    Attributes:
        cell: the cell's index in the notebook.
        start, end: where the value starts and ends, as (line from 1, column in UTF-8 bytes from 0), as in `ast`.
        is_form: whether the value's last line has a `#@param` form.
    """

    cell: int
    name: str
    start: tuple[int, int]
    end: tuple[int, int]
    is_form: bool


def parse(given: Iterable[str]) -> dict[str, Any]:
    """Return `["name=value", …]` as name → value. A value that is not JSON is the text itself.

    Raises `InputError` for a string without `=` or whose name is not a Python identifier.
    """
    values: dict[str, Any] = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip().isidentifier():
            raise InputError(f"{pair!r} sets no parameter.", "Write name=value, for example epochs=5.")
        try:
            values[name.strip()] = json.loads(text)
        except json.JSONDecodeError:
            values[name.strip()] = text
    return values


def apply(notebook: Any, values: Mapping[str, Any]) -> None:
    """Set variables in the notebook, in place, as the module describes; `values` is name → JSON value.

    Raises `ParameterUnknown` for a name that the notebook never assigns.
    """
    assignments = list(_assignments(notebook))
    tagged = next((i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])), None)
    injected = {}
    for name, value in values.items():
        found = [assignment for assignment in assignments if assignment.name == name]
        if not found:
            names = ", ".join(dict.fromkeys(assignment.name for assignment in assignments)) or "none"
            raise ParameterUnknown(f"The notebook sets no {name!r}.", f"It sets: {names}.")
        if any(assignment.cell == tagged for assignment in found):
            injected[name] = value
        else:
            chosen = next((assignment for assignment in found if assignment.is_form), found[0])
            _replace(notebook.cells[chosen.cell], chosen, value)
            assignments = list(_assignments(notebook))
    if injected and tagged is not None:
        source = "\n".join(["# Parameters", *(f"{name} = {_literal(value)}" for name, value in injected.items())])
        cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]})
        if nbformat.reader.get_version(notebook) < (4, 5):
            del cell["id"]
        notebook.cells.insert(tagged + 1, cell)


def _assignments(notebook: Any) -> Iterator[Assignment]:
    """Yield all top-level assignments to a single name, in order."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        lines = cell.source.splitlines()
        try:
            module = ast.parse(_MAGIC.sub(lambda magic: magic[1] + "pass" + "\n" * magic[0].count("\n"), cell.source))
        except SyntaxError:
            continue  # a cell magic, or a syntax error that executing the cell will report
        for statement in module.body:
            match statement:
                case (
                    ast.Assign(targets=[ast.Name(id=name)], value=value)
                    | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                ):
                    end = (value.end_lineno or value.lineno, value.end_col_offset or 0)
                    is_form = "#@param" in lines[end[0] - 1].replace("# @param", "#@param")
                    yield Assignment(index, name, (value.lineno, value.col_offset), end, is_form)


def _replace(cell: Any, assignment: Assignment, value: Any) -> None:
    """Replace the assignment's value in the cell's source."""
    lines = cell.source.encode().split(b"\n")
    (first, start), (last, end) = assignment.start, assignment.end
    line = lines[first - 1][:start] + _literal(value).encode() + lines[last - 1][end:]
    cell.source = b"\n".join([*lines[: first - 1], line, *lines[last:]]).decode()


def _literal(value: Any) -> str:
    """Return a JSON value as a Python expression. NaN and infinities, which have no literal, become `float('…')`."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_literal(one)}' for key, one in value.items())}}}"
    return repr(value)
