"""Files as zip archives: stored, zip64 where it must be, and the same bytes for the same files.

Stored, because images and most data are compressed already and a stored member is read at the speed of the disk. Times
are fixed, and the names of a folder's files sorted, so an interrupted upload of a packed folder can go on after packing
it anew. Permissions, times and empty folders are not kept.

What is too large for one archive becomes shards: `NAME-00000-of-00003.zip` and so on, whose names tell whether all of
them are there. Each is an archive of its own that any tool opens.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from haversack import disk
from haversack.errors import DiskFull, InputError

_PIECE = 1 << 20
# What a member takes beside its bytes and twice its name, and what an archive takes beside its members (APPNOTE 4.3).
_MEMBER = 30 + 20 + 46 + 28
_END = 22 + 20 + 56


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
    _require_space(files, archive)
    with disk.replacing(archive, durable=False) as temporary, _archive(temporary) as out:
        for name, path in files.items():
            _add(out, name, path)


def write_shards(files: Iterable[tuple[str, bytes | Path]], to: Path, limit: int) -> list[Path]:
    """Write files into archives of at most `limit` bytes each, in the new folder `to`; it is complete or absent.

    Args:
        files: each file's name, with slashes, and its bytes or where it lies; read one after the other.
        to: the folder, which is not there yet; the archives are called after it.
        limit: in bytes.

    Returns the archives. Raises `InputError` for a file that is larger than the limit, a name that is given twice or
    would leave its folder, and where `to` is there already; `DiskFull`.
    """
    if to.exists():
        raise InputError(f"{to} is there already.", "Remove it, or name another folder.")
    to.parent.mkdir(parents=True, exist_ok=True)
    aside = to.with_name(f".{to.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        count, room = 0, 0
        with ExitStack() as last:
            for name, source, needed in _checked(files, limit):
                if needed > room:
                    last.close()
                    out, room = last.enter_context(_archive(aside / str(count))), limit - _END
                    count += 1
                _add(out, name, source)
                room -= needed
        if not count:
            raise InputError(f"There is no file for {to}.", "Give a folder with the files to pack.")
        names = [f"{to.name}-{number:05}-of-{count:05}.zip" for number in range(count)]
        for number, name in enumerate(names):
            (aside / str(number)).rename(aside / name)
        aside.rename(to)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return [to / name for name in names]


def _checked(files: Iterable[tuple[str, bytes | Path]], limit: int) -> Iterator[tuple[str, bytes | Path, int]]:
    """The files, each with the room that it takes."""
    seen: set[str] = set()
    for name, source in files:
        if not {"", ".", ".."}.isdisjoint(name.split("/")) or "\\" in name or "\0" in name:
            raise InputError(f"The name {name!r} would leave its folder.", "Rename the file.")
        if name in seen:
            raise InputError(f"The name {name!r} is given twice.", "Rename one of the files.")
        seen.add(name)
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        needed = size + _MEMBER + 2 * len(name.encode(errors="replace"))
        if needed + _END > limit:
            raise InputError(f"{name} has {size:,} bytes, too many for archives of {limit:,}.", "Allow larger ones.")
        yield name, source, needed


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A new archive, synced when the block ends."""
    try:
        with open(path, "xb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as out:
                yield out
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(f"The disk of {path.parent.parent} is full.", "Free space there, or name another.") from error


def _add(out: zipfile.ZipFile, name: str, source: bytes | Path) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"The name {name!r} is not Unicode.", "Rename the file.") from None
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    if isinstance(source, bytes):
        out.writestr(entry, source)
        return
    entry.file_size = source.stat().st_size
    with open(source, "rb") as file, out.open(entry, "w") as target:
        shutil.copyfileobj(file, target, _PIECE)


def _require_space(files: dict[str, Path], archive: Path) -> None:
    needed = sum(path.stat().st_size for path in files.values())
    if needed > shutil.disk_usage(archive.parent).free:
        raise DiskFull(f"Packing needs {needed:,} bytes beside {archive.name}.", "Free space, or name another.")
