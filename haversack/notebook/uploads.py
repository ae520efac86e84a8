"""Which of a job's uploads a call of `files.upload()` receives. Runs in the kernel.

On Colab a person picks the files of each call. A job has no such person, so the notebook itself is read: the last call
receives all files that are left. While more calls follow, a call receives the files whose names occur as string
literals or in shell lines between it and the next call. If there are none, it receives one file: the first that no
later call asks for in this way.

Calls are found in the source, as `files.upload(…)` and `files.upload_file(…)`. A call in a function that another cell
calls, or in a loop, counts once, where it is written.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

_FUNCTIONS = ("upload", "upload_file")
_MODULES = ("google.colab", "haversack")
# The cell magics that execute the rest of the cell as Python.
_PYTHON_MAGICS = ("%%capture", "%%time", "%%prun")


@dataclass(frozen=True)
class _Source:
    """What matters of one cell: the lines with a call (from 1), and the texts of its string literals with their lines.

    Shell lines and cell magics are literals too: IPython turns them into calls with a string. In a `shifted` cell, a
    magic executes the rest as Python, with other line numbers.
    """

    shifted: bool = False
    calls: list[int] = field(default_factory=list)
    texts: list[tuple[int, str]] = field(default_factory=list)


def chosen(cells: Sequence[str], cell: int, line: int | None, left: Sequence[str]) -> list[str]:
    """Return those of the uploads `left` that a call of `files.upload()` receives, in their order.

    Args:
        cells: the sources of the notebook's code cells, in order.
        cell: the index in `cells` of the cell that calls, from 0.
        line: the line of the call in that cell, from 1; None if unknown: then it is the first call in it.
        left: the uploads that were not received yet, as paths; not empty. Their last parts are the files' names.
    """
    sources = _read(cells)[cell:]
    first = sources[0] if sources else _Source()
    parts = _parts(sources, min(first.calls, default=1) if line is None or first.shifted else line)
    if len(parts) == 1:
        return list(left)
    asked = _named(parts[0], left)
    if asked:
        return asked
    later = [name for part in parts[1:] for name in _named(part, left)]
    return [next((name for name in left if name not in later), left[0])]


def one(filename: str, left: Sequence[str]) -> str:
    """Return that one of the uploads `left` that `files.upload_file(filename)` receives.

    It is the first with the same name as `filename`, else the first of all; `left` is not empty.
    """
    wanted = PurePosixPath(filename).name
    return next((path for path in left if PurePosixPath(path).name == wanted), left[0])


def _parts(sources: Sequence[_Source], line: int) -> list[list[str]]:
    """Return the literals that follow the call in `line` of the first source, and those that follow each later call.

    Each list ends where the next call's line begins. The line of a call counts for that call.
    """
    parts: list[list[str]] = [[]]
    for index, source in enumerate(sources):
        events = [(call, 0, "") for call in set(source.calls)] + [(at, 1, text) for at, text in source.texts]
        for at, kind, text in sorted(events):
            if index == 0 and (at < line or (at == line and not kind)):
                continue
            if kind:
                parts[-1].append(text)
            else:
                parts.append([])
    return parts


def _named(texts: Sequence[str], left: Sequence[str]) -> list[str]:
    """Return those of the uploads `left` whose names occur in `texts` as whole words or as the ends of paths."""
    found = []
    for path in left:
        name = re.compile(rf"(?<![\w.-]){re.escape(PurePosixPath(path).name)}(?![\w-]|\.\w)")
        if any(name.search(text) for text in texts):
            found.append(path)
    return found


def _read(cells: Sequence[str]) -> list[_Source]:
    """Return the calls and literals of each cell; of a cell that is no Python only its text, as one literal."""
    trees = [_parse(cell) for cell in cells]
    modules, functions = {"files"}, set[str]()
    for node in (node for tree in trees if tree is not None for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and node.module in _MODULES:
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == "files"}
        elif isinstance(node, ast.ImportFrom) and node.module in [f"{module}.files" for module in _MODULES]:
            functions |= {alias.asname or alias.name for alias in node.names if alias.name in _FUNCTIONS}
    sources = []
    for cell, tree in zip(cells, trees, strict=True):
        source = _Source(shifted=cell.startswith(_PYTHON_MAGICS), texts=[(1, cell)] if tree is None else [])
        for node in ast.walk(tree) if tree is not None else ():
            if isinstance(node, ast.Call) and _is_upload(node.func, modules, functions):
                source.calls.append(node.lineno)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                source.texts.append((node.lineno, node.value))
        sources.append(source)
    return sources


def _parse(cell: str) -> ast.Module | None:
    """Return the syntax tree of what IPython executes for a cell's source; None if that is no Python."""
    from IPython.core.inputtransformer2 import TransformerManager

    if cell.startswith(_PYTHON_MAGICS):
        cell = "\n" + cell.partition("\n")[2]
    try:
        return ast.parse(TransformerManager().transform_cell(cell))
    except (SyntaxError, ValueError):
        return None


def _is_upload(function: ast.expr, modules: set[str], functions: set[str]) -> bool:
    """Whether a called expression is `files.upload` or `files.upload_file`; `modules` are the names of `files`."""
    if isinstance(function, ast.Name):
        return function.id in functions
    if not isinstance(function, ast.Attribute) or function.attr not in _FUNCTIONS:
        return False
    owner = function.value
    return (isinstance(owner, ast.Name) and owner.id in modules) or (
        isinstance(owner, ast.Attribute) and owner.attr in modules
    )
