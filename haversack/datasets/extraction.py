"""A data set's files laid out in a folder: all of them or, where something is in the way, none.

Files are written aside first and moved into place when every one of them is whole. A file that is there already with
the same bytes stays; one with other bytes is never overwritten. Nothing is written outside the folder, also where a
link in it leads out.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from haversack import progress
from haversack.blocks.sparse import require_space
from haversack.datasets.contents import Contents, sizes_of
from haversack.datasets.locks import lock_of
from haversack.errors import InputError

_ASIDE = ".haversack-extracting"


def extract(contents: Contents, to: Path, name: str) -> Path:
    """Put every file of `contents` below the folder `to`, which is made if need be; `name` is what the user is told.

    Raises `InputError` where something else is in the way, `DiskFull` before anything is written.
    """
    to = to.expanduser().absolute()
    if to.exists() and not to.is_dir():
        raise InputError(f"{to} is not a folder.", "Name a folder, or one to be made.")
    with lock_of(to):
        if _not_there(contents, to) or not to.exists():
            contents.complete()
            wanted = _not_there(contents, to)
            to.parent.mkdir(parents=True, exist_ok=True)
            aside = to / _ASIDE if to.exists() else to.with_name(f".{to.name}{_ASIDE}")
            shutil.rmtree(aside, ignore_errors=True)
            try:
                _write(contents, wanted, aside, name)
                _move(wanted, aside, to)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    return to


def _not_there(contents: Contents, to: Path) -> list[tuple[str, int]]:
    """The files that are still to be put below `to`, with their sizes. Raises for the first one that cannot be."""
    if not to.exists():
        return list(sizes_of(contents.files))
    wanted = []
    checked: set[Path] = set()
    for name, size in sizes_of(contents.files):
        target = to / name
        if target.parent not in checked:
            _check_way(target.parent, to)
            checked.add(target.parent)
        if not os.path.lexists(target):
            wanted.append((name, size))
        elif target.is_symlink() or not target.is_file() or not contents.is_at(name, target):
            raise _occupied(target)
    return wanted


def _check_way(folder: Path, to: Path) -> None:
    """Refuse a folder that cannot be made below `to`, or that is reached by leaving it."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.resolve().is_relative_to(to.resolve()):
        raise InputError(f"{there} is a link that leads out of {to}.", "Remove it, or name another folder.")
    if not there.is_dir():
        raise _occupied(there)


def _occupied(path: Path) -> InputError:
    return InputError(f"{path} is there and is another file.", "Move it away, or name another folder.")


def _write(contents: Contents, wanted: list[tuple[str, int]], aside: Path, name: str) -> None:
    total = sum(size for _, size in wanted)
    made: set[Path] = set()
    require_space(aside.parent, total)
    aside.mkdir()
    with progress.bar(f"Extracting {name}", total) as advance:
        for each, size in wanted:
            target = aside / each
            try:
                if target.parent not in made:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    made.add(target.parent)
                contents.write(each, target)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise InputError(
                    f"{each} is both a file and a folder in {name}.", "Read its files one by one."
                ) from None
            advance(size)
    # One sync for all: thousands of small files would take a minute with one each.
    os.sync()


def _move(wanted: list[tuple[str, int]], aside: Path, to: Path) -> None:
    if not to.exists():
        aside.rename(to)
        return
    for name, _ in wanted:
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (aside / name).replace(target)
