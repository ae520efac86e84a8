"""Imports go down only, file by file and room by room, and `import haversack` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import haversack

PACKAGE = Path(haversack.__file__).parent
ROOT = PACKAGE.parent

# The rooms of the house from top to bottom; a room may import those that stand after it. Rooms in one set stand beside
# each other and import none of each other. A room is a file or a folder; what is in a folder may import each other, as
# far as no circle comes of it and, in the folders below, as far as their own order allows.
FLOORS: dict[str, list[set[str]]] = {
    "": [
        {"__main__"},
        {"cli"},
        {"machine", "device_report"},
        {"__init__"},
        {"notebook"},
        {"account"},
        {"runs"},
        {"training", "datasets", "drive", "packages"},
        {"archive"},
        {"blocks"},
        {"http"},
        {"rate_limit", "route"},
        {"credentials"},
        {"embedded", "google"},
        {"hub"},
        {"signin", "consent"},
        {"progress"},
        {"place", "gpus"},
        {"settings"},
        {"answer", "disk"},
        {"errors"},
    ],
    "drive": [
        {"filesystem"},
        {"care"},
        {"fuse"},
        {"tree"},
        {"resolve"},
        {"index"},
        {"writeback"},
        {"cache"},
        {"remote"},
        {"__init__"},
    ],
    "gpus": [{"taken"}, {"queue"}, {"locks"}, {"nvidia_smi"}, {"__init__"}],
    "training": [
        {"keras", "loops"},
        {"lightning"},
        {"owned_run", "torch"},
        {"runs", "streams", "state_tree", "batches", "machine", "facts"},
        {"part", "checkpoints"},
        {"devices", "framework_process", "location", "interrupts", "rhythm", "console", "code_digest", "verdict"},
        {"clock", "framework_devices"},
        {"__init__"},
    ],
    "notebook": [
        {"__init__"},
        {"job"},
        {"sessions", "sources"},
        {"record"},
        {"colab"},
        {"kaggle"},
        {"place"},
        {"plain_lightning"},
        {"plainfit", "files", "streams"},
        {"clients", "ending", "uploads"},
        {"secrets"},
        {"channel", "import_hook"},
    ],
}
# The hub is held against Google's discovery document and the official clients, and shares no protocol code with the
# client side, so that both cannot share one mistake.
HUB_MAY_IMPORT = {"hub", "settings", "errors", "disk"}


@dataclass(frozen=True)
class Import:
    """A line of `importer` that imports the file `imported`; both as module names without `haversack.`."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{path_of(self.importer).relative_to(ROOT)}:{self.line} imports haversack.{self.imported}"


@cache
def modules() -> dict[str, Path]:
    """Every file of the package by its module name; a package's own file as `name.__init__`."""
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def path_of(module: str) -> Path:
    return modules()[module]


@cache
def imports() -> list[Import]:
    """Every import of the package by the package, also those in functions and for types only."""
    return [one for module, path in modules().items() for one in _imports_of(module, ast.parse(path.read_text()))]


def _imports_of(module: str, tree: ast.Module) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path_of(module)}:{node.lineno} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            target = _file_of(name)
            if target is not None and target != module:
                yield Import(module, target, node.lineno)


def _file_of(name: str) -> str | None:
    """The file that has the dotted `name`, which may be a module's or that of something in it; None if not ours."""
    first, *parts = name.split(".")
    if first != "haversack":
        return None
    for count in range(len(parts), -1, -1):
        for module in (".".join(parts[:count]), ".".join([*parts[:count], "__init__"])):
            if module in modules():
                return module
    raise AssertionError(f"{name} is imported and no file has it")


def room(module: str, house: str) -> str | None:
    """The room of `module` in the folder `house` ("" is the package); None if it is not below that folder."""
    prefix = f"{house}." if house else ""
    return module.removeprefix(prefix).partition(".")[0] if module.startswith(prefix) else None


def floor(name: str, house: str) -> int:
    found = [number for number, rooms in enumerate(FLOORS[house]) if name in rooms]
    assert found, f"haversack/{house} has a room {name!r} that has no floor: give it one in FLOORS and docs/design.md"
    return found[0]


def advice(one: Import, house: str) -> str:
    upper, lower = room(one.importer, house), room(one.imported, house)
    assert upper is not None
    assert lower is not None
    below = [name for rooms in FLOORS[house][floor(upper, house) + 1 :] for name in sorted(rooms)]
    return (
        f"{one}\n  {upper} may import only {', '.join(below) or 'nothing'}. Move what it needs out of {lower} into "
        f"{upper} or one of those, or move the code that needs it up into {lower} or above."
    )


@pytest.mark.parametrize("house", FLOORS)
def test_rooms_import_only_the_rooms_below_them(house: str) -> None:
    wrong = []
    for one in imports():
        upper, lower = room(one.importer, house), room(one.imported, house)
        if upper is None or lower is None or upper == lower:
            continue
        if floor(upper, house) >= floor(lower, house):
            wrong.append(advice(one, house))
    assert not wrong, "\n".join(["", *wrong])


def test_no_import_circles() -> None:
    found = ["\n  ".join(map(str, circle)) for circle in circles()]
    assert not found, "\n".join(
        ["", *(f"A circle; move what both need into a file of its own:\n  {one}" for one in found)]
    )


def circles() -> list[list[Import]]:
    """The imports inside each group of files that import each other, by Tarjan's algorithm."""
    edges: dict[str, list[Import]] = {module: [] for module in modules()}
    for one in imports():
        edges[one.importer].append(one)
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[set[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for one in edges[module]:
            if one.imported not in number:
                visit(one.imported)
                lowest[module] = min(lowest[module], lowest[one.imported])
            elif one.imported in stack:
                lowest[module] = min(lowest[module], number[one.imported])
        if lowest[module] == number[module]:
            group = set(stack[stack.index(module) :])
            del stack[stack.index(module) :]
            if len(group) > 1:
                groups.append(group)

    for module in modules():
        if module not in number:
            visit(module)
    return [[one for module in sorted(group) for one in edges[module] if one.imported in group] for group in groups]


def test_the_hub_shares_no_protocol_code_with_clients() -> None:
    wrong = [
        one for one in imports() if room(one.importer, "") == "hub" and room(one.imported, "") not in HUB_MAY_IMPORT
    ]
    assert not wrong, "\n".join(["", *map(str, wrong)])


def test_every_folder_with_rooms_stands_in_the_design() -> None:
    house = (ROOT / "docs" / "design.md").read_text()
    names = {name for floors in FLOORS.values() for rooms in floors for name in rooms} - {"__init__", "__main__"}
    assert not [name for name in sorted(names) if name not in house]


def test_importing_haversack_loads_nothing_heavy() -> None:
    heavy = {"numpy", "keras", "jax", "torch", "aiohttp", "IPython", "fsspec", "PIL", "rich", "typer", "asyncio"}
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
