"""The list of packages that a notebook brings with it.

It is the first of these: a PEP 723 block, juv's lock, `haversack.environment(packages=…)`, a `requirements.txt` beside
the notebook.

PEP 723 (https://peps.python.org/pep-0723/) puts `requires-python` and `dependencies` into a comment of one cell. juv
keeps the lock of that block, a `uv.lock`, in the notebook's metadata under that name. Both are complete: nothing is
added to them. An environment that several notebooks share and a `requirements.txt` are often written for more than one
notebook, so imports may add to them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haversack.errors import InputError
from haversack.packages.declared import Declaration
from haversack.packages.imports import lines

_BLOCK = re.compile(r"(?m)^# /// script[ \t]*$\s(?P<content>(^#(| .*)$\s)+)^# ///[ \t]*$")
_FILE = "requirements.txt"


@dataclass
class Recipe:
    """What a notebook says itself about its environment.

    Attributes:
        origin: where `dependencies` were found, in words; "" if there are none.
        dependencies: requirements, each a line of a requirements file.
        complete: True if nothing is to be added to `dependencies`.
        options: other lines of the requirements files, such as `--index-url URL`.
        python: the Python version as a PEP 440 specifier; "" if none is given.
        lock: the text of the `uv.lock` in the notebook's metadata; "" if there is none.
        block: the TOML text of the PEP 723 block; "" if there is none.
    """

    origin: str = ""
    dependencies: list[str] = field(default_factory=list)
    complete: bool = False
    options: list[str] = field(default_factory=list)
    python: str = ""
    lock: str = ""
    block: str = ""


def recipe_of(
    cells: Sequence[str], metadata: Mapping[str, Any], folder: Path | None, environment: Declaration | None = None
) -> Recipe:
    """Return the recipe of a notebook of these code cells and this metadata in `folder` (None for no folder).

    `environment` is what its calls of `haversack.environment` describe. A block with `dependencies` takes precedence
    over a lock without one, that over `environment`, and that over `requirements.txt`. Raises `InputError` if a block,
    lock or file cannot be read, or if two cells have a block.
    """
    found = Recipe()
    _read_block(cells, found)
    _read_lock(metadata, found)
    if not found.complete and environment is not None and environment.packages:
        where = ", ".join(f"cell {cell}" for cell in environment.cells)
        found.origin, found.dependencies = f"haversack.environment in {where}", list(environment.packages)
    if not found.origin and folder is not None and (folder / _FILE).is_file():
        found.origin = _FILE
        _read_file(folder / _FILE, found, seen=set())
    return found


def _read_block(cells: Sequence[str], found: Recipe) -> None:
    blocks = [(number, match) for number, cell in enumerate(cells, 1) for match in _BLOCK.finditer(cell)]
    if len(blocks) > 1:
        where = " and ".join(f"cell {number}" for number, _ in blocks)
        raise InputError(f"The notebook has {len(blocks)} PEP 723 blocks, in {where}.", "Keep one of them.")
    for number, match in blocks:
        where = f"The PEP 723 block in cell {number}"
        found.block = "".join(line[2:] or "\n" for line in match["content"].splitlines(keepends=True))
        content = _toml(found.block, where)
        found.python = _text(content, "requires-python", where)
        dependencies = content.get("dependencies")
        if dependencies is None:
            continue
        if not isinstance(dependencies, list) or not all(isinstance(one, str) for one in dependencies):
            raise InputError(f"{where} has `dependencies` that is not a list of strings.", 'Write ["pandas", "numpy"].')
        found.origin, found.dependencies, found.complete = f"PEP 723 block in cell {number}", dependencies, True


def _read_lock(metadata: Mapping[str, Any], found: Recipe) -> None:
    lock = metadata.get("uv.lock")
    if not lock:
        return
    where = "The uv.lock in the notebook's metadata"
    if not isinstance(lock, str):
        raise InputError(f"{where} is not text.", "Lock the notebook again: juv lock NOTEBOOK")
    content = _toml(lock, where)
    found.lock = lock
    found.python = found.python or _text(content, "requires-python", where)
    if not found.complete:
        manifest = content.get("manifest") or {}
        found.dependencies = [_locked(one) for one in manifest.get("requirements", [])]
        found.origin, found.complete = "uv.lock in the notebook's metadata", True


def _locked(one: Mapping[str, Any]) -> str:
    """One of a lock's `manifest.requirements` as a requirement."""
    extras = f"[{','.join(one['extras'])}]" if one.get("extras") else ""
    address = one.get("url") or (f"git+{one['git']}" if one.get("git") else "")
    version = f" @ {address}" if address else one.get("specifier", "")
    return f"{one['name']}{extras}{version}" + (f" ; {one['marker']}" if one.get("marker") else "")


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not TOML: {error}.", "Correct it, or remove it.") from None


def _text(content: Mapping[str, Any], key: str, where: str) -> str:
    value = content.get(key, "")
    if not isinstance(value, str):
        raise InputError(f"{where} has a `{key}` that is not a string.", 'Write for example ">=3.11".')
    return value


def _read_file(path: Path, found: Recipe, seen: set[Path]) -> None:
    if path.resolve() in seen:
        return
    seen.add(path.resolve())
    for line in lines(_decoded(path)):
        option, _, value = re.sub(r"^(-[rcef])(?=\S)|^(--[\w-]+)=", r"\1\2 ", line).partition(" ")
        value = value.strip()
        if option in ("-r", "--requirement"):
            _read_file(path.parent / value, found, seen)
        elif option in ("-c", "--constraint"):
            found.options.append(f"-c {(path.parent / value).resolve()}")
        elif option in ("-e", "--editable"):
            found.dependencies.append(_placed(value, path.parent))
        elif option in ("-f", "--find-links"):
            # Without a slash it is a folder's name, and nothing else.
            folder = path.parent / value
            found.options.append(f"-f {folder.resolve() if folder.is_dir() else _placed(value, path.parent)}")
        elif line.startswith("-"):
            found.options.append(line)
        else:
            found.dependencies.append(_placed(line, path.parent))


def _placed(requirement: str, folder: Path) -> str:
    """`requirement` with a path made absolute, because a job has another current folder."""
    is_path = requirement.startswith((".", "/")) or ("/" in requirement and (folder / requirement).exists())
    return str((folder / requirement).resolve()) if is_path else requirement


def _decoded(path: Path) -> str:
    """The text of a requirements file: UTF-8, or UTF-16 with its mark, as PowerShell's `pip freeze >` writes it."""
    try:
        content = path.read_bytes()
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise InputError(f"{path} cannot be read: {reason}.", "Correct it, or remove it.") from None
