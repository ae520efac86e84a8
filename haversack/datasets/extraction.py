"""Extraction of a data set's files into a folder; nothing is extracted if any file conflicts with an existing one.

All files are written to a temporary folder, then renamed into the target. An existing file with the same bytes is left
alone; one with different bytes is never overwritten. Nothing is written outside the target, not even through symbolic
links in it.
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

_TEMPORARY = ".haversack-extracting"


def extract(contents: Contents, to: Path, name: str) -> Path:
    """Write every file of `contents` below the folder `to`, created if it is missing; return its absolute path.

    First the whole data set is fetched and verified, unless all files are in `to` already. `name` names the data set in
    messages. Processes that extract to the same folder wait for each other.

    Raises `InputError` if `to` is not a folder, if a different file is in the way, if a link leads out of `to`, or if a
    name is both a file and a folder; `DiskFull` before a file is written; `ArchiveInvalid` for a member that is
    encrypted or neither stored nor deflated; `IntegrityError` for wrong bytes; and `ConnectionFailed`, `SignInError` or
    `RemoteError` if a server does not answer or refuses. After these errors `to` is unchanged.
    """
    to = to.expanduser().absolute()
    if to.exists() and not to.is_dir():
        raise InputError(f"{to} is not a folder.", "Name a folder, or a path that does not exist yet.")
    with lock_of(to):
        if _missing_files(contents, to) or not to.exists():
            contents.complete()
            missing = _missing_files(contents, to)
            to.parent.mkdir(parents=True, exist_ok=True)
            temporary = to / _TEMPORARY if to.exists() else to.with_name(f".{to.name}{_TEMPORARY}")
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                _write_files(contents, missing, temporary, name)
                _move_files(missing, temporary, to)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return to


def _missing_files(contents: Contents, to: Path) -> list[tuple[str, int]]:
    """List the name and size of each file that is not below `to` yet.

    Raises `InputError` for the first file whose path is occupied by something different or leads out of `to`.
    """
    if not to.exists():
        return list(sizes_of(contents.files))
    missing = []
    checked: set[Path] = set()
    for name, size in sizes_of(contents.files):
        target = to / name
        if target.parent not in checked:
            _check_folder(target.parent, to)
            checked.add(target.parent)
        if not os.path.lexists(target):
            missing.append((name, size))
        elif target.is_symlink() or not target.is_file() or not contents.matches(name, target):
            raise _conflict(target)
    return missing


def _check_folder(folder: Path, to: Path) -> None:
    """Raise `InputError` if `folder` cannot be created below `to`: a file is in the way, or a link leads out."""
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not existing.resolve().is_relative_to(to.resolve()):
        raise InputError(f"{existing} is a link that leads out of {to}.", "Remove it, or name another folder.")
    if not existing.is_dir():
        raise _conflict(existing)


def _conflict(path: Path) -> InputError:
    return InputError(f"{path} exists and is a different file.", "Move it away, or name another folder.")


def _write_files(contents: Contents, files: list[tuple[str, int]], temporary: Path, name: str) -> None:
    """Write `files` (name, size) into the new folder `temporary`, and sync them."""
    total = sum(size for _, size in files)
    made: set[Path] = set()
    require_space(temporary.parent, total)
    temporary.mkdir()
    with progress.bar(f"Extracting {name}", total) as advance:
        for each, size in files:
            target = temporary / each
            try:
                if target.parent not in made:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    made.add(target.parent)
                contents.write(each, target)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise InputError(
                    f"{each} is both a file and a folder in {name}.", "Use `Dataset.read` for its files instead."
                ) from None
            advance(size)
    # Sync once for all files: fsync of thousands of small files takes a minute.
    os.sync()


def _move_files(files: list[tuple[str, int]], temporary: Path, to: Path) -> None:
    """Rename the folder `temporary` to `to`, or, if `to` exists, each of the files into it."""
    if not to.exists():
        temporary.rename(to)
        return
    for name, _ in files:
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (temporary / name).replace(target)
