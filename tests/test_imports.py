"""Imports go down only, and `import haversack` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import haversack

PACKAGE = Path(haversack.__file__).parent

# Every room, from the ground up; a module may import from its own room and from the rooms it is built on.
FOUNDATION = {"errors", "settings", "place", "progress"}
BELOW: dict[str, set[str]] = {
    "errors": set(),
    "settings": {"errors"},
    "place": {"errors", "settings"},
    "progress": {"place"},
    "embedded": FOUNDATION,
    "answer": {"errors"},
    "pace": {"errors"},
    "route": {"errors"},
    "signin": FOUNDATION,
    "consent": FOUNDATION,
    "google": FOUNDATION | {"answer", "signin", "consent"},
    "credentials": FOUNDATION | {"embedded", "answer", "signin", "consent", "google"},
}
BELOW["http"] = BELOW["credentials"] | {"pace", "route", "credentials"}
BELOW["blocks"] = BELOW["http"] | {"http"}
BELOW["archive"] = BELOW["http"] | {"http", "blocks"}
BELOW["training"] = BELOW["archive"] | {"archive"}
BELOW["runs"] = BELOW["training"] | {"training"}
BELOW["datasets"] = BELOW["archive"] | {"archive"}
BELOW["drive"] = BELOW["archive"] | {"archive"}
BELOW["account"] = BELOW["drive"] | {"drive", "datasets"}
BELOW["notebook"] = BELOW["archive"] | {"archive", "embedded", "training", "runs", "datasets", "drive", "hub"}
BELOW["hub"] = {"settings", "errors"}
BELOW["cli"] = BELOW["notebook"] | {"notebook", "account"}
BELOW["__main__"] = {"cli"}
BELOW["__init__"] = set(BELOW) - {"cli", "__main__", "hub"}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_imported_by(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("haversack.")}
    return found & set(BELOW)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    assert rooms_imported_by(path) <= BELOW[room(path)] | {room(path)}


def test_importing_haversack_loads_nothing_heavy() -> None:
    heavy = {"numpy", "keras", "jax", "aiohttp", "IPython", "fsspec", "PIL", "rich", "typer", "asyncio"}
    code = f"import haversack, sys; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", haversack.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    value = getattr(haversack, name)
    assert value.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = haversack.nothing


def test_no_wheel_can_overwrite_the_genuine_google_package() -> None:
    assert not (PACKAGE / "google").exists()
    assert not (PACKAGE.parent / "google").exists()
