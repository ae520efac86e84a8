"""A folder as one zip archive: stored, zip64 where it must be, and the same bytes for the same files.

Stored, because images and most data are compressed already and a stored member is read at the speed of the disk. Names
are sorted and times fixed, so an interrupted upload of a packed folder can go on after packing it anew. Permissions,
times and empty folders are not kept.
"""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from pathlib import Path

from haversack.errors import DiskFull, InputError

_PIECE = 1 << 20


def folder_files(folder: Path) -> dict[str, Path]:
    """The files below `folder` by their names in an archive, sorted.

    Raises `InputError` for what an archive cannot keep: links to folders, links to nowhere, sockets and the like.
    """
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in [*files, *(name for name in folders if Path(parent, name).is_symlink())]:
            path = Path(parent, name)
            if not path.is_file():
                raise InputError(f"{path} is neither a file nor a folder.", "Remove it, or copy in what it points to.")
            found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def pack(folder: Path, archive: Path) -> None:
    """Write every file below `folder` into a new `archive`, which is complete or absent.

    Raises `InputError` for a folder without files or with names that are not Unicode, `DiskFull` where it does not fit.
    """
    files = folder_files(folder)
    if not files:
        raise InputError(f"There is no file in {folder}.", "Give a folder with the files to pack.")
    needed = sum(path.stat().st_size for path in files.values())
    if needed > shutil.disk_usage(archive.parent).free:
        raise DiskFull(
            f"Packing {folder} needs {needed:,} bytes beside {archive.name}.", "Free space, or name another."
        )
    aside = archive.with_name(f".{archive.name}.{os.getpid()}")
    try:
        with open(aside, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as out:
                for name, path in files.items():
                    _add(out, name, path)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(archive)
    finally:
        aside.unlink(missing_ok=True)


def _add(out: zipfile.ZipFile, name: str, path: Path) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"The name {name!r} is not Unicode.", "Rename the file.") from None
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    entry.file_size = path.stat().st_size
    with open(path, "rb") as source, out.open(entry, "w") as target:
        shutil.copyfileobj(source, target, _PIECE)
