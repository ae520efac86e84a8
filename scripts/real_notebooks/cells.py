"""What the source of a notebook's cells says, as far as the sorting of stops needs it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable


def as_python(source: str) -> str:
    """A cell's source with its magics and commands replaced by `pass`."""
    return re.sub(r"^(\s*)[!%].*", r"\1pass", source, flags=re.MULTILINE)


def imported(sources: Iterable[str]) -> dict[str, str]:
    """The names that cells import, each with the first name of its module: {"Adam": "keras"}.

    Cells that are not Python are passed over.
    """
    found: dict[str, str] = {}
    for source in sources:
        try:
            tree = ast.parse(as_python(source))
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found |= {one.asname or one.name: node.module.partition(".")[0] for one in node.names}
            elif isinstance(node, ast.Import):
                found |= {(one.asname or one.name).partition(".")[0]: one.name.partition(".")[0] for one in node.names}
    return found


def asks_for_object(sources: Iterable[str]) -> bool:
    """Whether a cell asks which columns of a table have the type "object", as columns of text had until pandas 3."""
    asking = (
        r"select_dtypes\([^)]*\bobject\b"
        r"|\bdtypes?\s*[=!]=\s*['\"]?(?:object|O)\b"
    )
    return any(re.search(asking, source) for source in sources)
