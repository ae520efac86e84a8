"""A name means one thing: no class name stands twice in the package."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import haversack

PACKAGE = Path(haversack.__file__).parent


def test_no_class_name_stands_twice() -> None:
    counted = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in counted.items() if count > 1] == []
