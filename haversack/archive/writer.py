"""Writing zip archives: stored members, zip64 where needed, deterministic bytes.

Members are stored, not deflated: images and most other data are compressed already, and a stored member is read at the
speed of the disk. Timestamps are fixed and names sorted, so packing an unchanged folder again gives the same bytes, and
an interrupted upload of them can be resumed. Permissions, times and empty folders are not preserved.

A folder too large for one archive is written as shards, `NAME-00000-of-00003.zip` and so on. Each shard is an archive
that any tool opens; its name shows how many there are, so that a missing one is detected.
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

_PIECE_SIZE = 1 << 20
# Bytes of overhead with zip64 (APPNOTE 4.3): of a member, without its name, which is stored twice; of an archive.
_MEMBER_OVERHEAD = 30 + 20 + 46 + 28
_ARCHIVE_OVERHEAD = 22 + 20 + 56


def folder_files(folder: Path) -> dict[str, Path]:
    """Return the paths of all files below `folder` by their member names (relative, with slashes), sorted by name.

    Hidden files and links to files are included; empty folders are not. Raises `InputError` for anything that is
    neither a file nor a folder (links to folders, broken links, sockets, devices) and for a folder that cannot be read.
    """
    found = {}
    for parent, folders, files in os.walk(folder, onerror=_refuse_unreadable):
        for name in [*files, *(name for name in folders if Path(parent, name).is_symlink())]:
            path = Path(parent, name)
            if not path.is_file():
                raise InputError(
                    f"{path} is neither a file nor a folder.", "Remove it, or replace it by what it points to."
                )
            found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def _refuse_unreadable(error: OSError) -> None:
    raise InputError(
        f"The folder {error.filename} cannot be read: {error.strerror}.", "Make it readable, or move it elsewhere."
    ) from error


def pack(folder: Path, archive: Path) -> None:
    """Write every file below `folder` into the zip file `archive`, by atomic replace: an existing one is overwritten.

    Raises `InputError` if there is no file, a link to a folder, a broken link or a special file, or a name that is not
    valid Unicode; `DiskFull` if the disk has no space for the archive; another `OSError` if a file cannot be read.
    """
    files = folder_files(folder)
    if not files:
        raise InputError(f"There is no file in {folder}.", "Name a folder that contains files.")
    _require_space(files, archive)
    with disk.replacing(archive, durable=False) as temporary, _new_archive(temporary) as out:
        for name, path in files.items():
            _add_member(out, name, path)


def write_shards(files: Iterable[tuple[str, bytes | Path]], to: Path, limit: int) -> list[Path]:
    """Write files into shards, archives of at most `limit` bytes each, in the new folder `to`.

    An archive is begun when the next file does not fit into the current one. The folder is written under a temporary
    name and then renamed, so it is complete or absent.

    Args:
        files: pairs of a member's name, with slashes, and its bytes or the path of its file; iterated once.
        to: the folder to create, with missing parents. Archives are named `NAME-00000-of-00003.zip` by its name.
        limit: the maximum size of an archive in bytes.

    Returns the paths of the archives. Raises `InputError` if `to` exists, if there are no files, for a file larger than
    `limit`, and for a name that is duplicate, is not valid Unicode or would be extracted outside the target folder;
    `DiskFull` if the disk is full.
    """
    if to.exists():
        raise InputError(f"{to} exists already.", "Remove it, or name another folder.")
    to.parent.mkdir(parents=True, exist_ok=True)
    temporary = to.with_name(f".{to.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        count, room = 0, 0
        with ExitStack() as current:
            for name, source, needed in _checked_members(files, limit):
                if needed > room:
                    current.close()
                    archive = _new_archive(temporary / str(count))
                    out, room = current.enter_context(archive), limit - _ARCHIVE_OVERHEAD
                    count += 1
                _add_member(out, name, source)
                room -= needed
        if not count:
            raise InputError(f"There is no file for {to}.", "Name a folder that contains files.")
        names = [f"{to.name}-{number:05}-of-{count:05}.zip" for number in range(count)]
        for number, name in enumerate(names):
            (temporary / str(number)).rename(temporary / name)
        temporary.rename(to)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [to / name for name in names]


def _checked_members(files: Iterable[tuple[str, bytes | Path]], limit: int) -> Iterator[tuple[str, bytes | Path, int]]:
    """Yield each file with the bytes that it needs in an archive.

    Raises `InputError` for a name that is unsafe or duplicate, and for a file too large for `limit`.
    """
    seen: set[str] = set()
    for name, source in files:
        if not {"", ".", ".."}.isdisjoint(name.split("/")) or "\\" in name or "\0" in name:
            raise InputError(f"The member name {name!r} would leave its folder.", "Rename the file.")
        if name in seen:
            raise InputError(f"The member name {name!r} is given twice.", "Rename one of the files.")
        seen.add(name)
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        needed = size + _MEMBER_OVERHEAD + 2 * len(name.encode(errors="replace"))
        if needed + _ARCHIVE_OVERHEAD > limit:
            raise InputError(
                f"{name} has {size:,} bytes, too many for archives of {limit:,}.", "Choose a larger limit."
            )
        yield name, source, needed


@contextmanager
def _new_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Create the zip file `path`, and close and sync it when the block ends. Raises `DiskFull` if the disk is full."""
    try:
        with open(path, "xb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as out:
                yield out
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(
            f"The disk of {path.parent.parent} is full.", "Free space there, or name another folder."
        ) from error


def _add_member(out: zipfile.ZipFile, name: str, source: bytes | Path) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"The file name {name!r} is not Unicode.", "Rename the file.") from None
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    if isinstance(source, bytes):
        out.writestr(entry, source)
        return
    entry.file_size = source.stat().st_size
    with open(source, "rb") as file, out.open(entry, "w") as target:
        shutil.copyfileobj(file, target, _PIECE_SIZE)


def _require_space(files: dict[str, Path], archive: Path) -> None:
    needed = sum(path.stat().st_size for path in files.values())
    if needed > shutil.disk_usage(archive.parent).free:
        raise DiskFull(
            f"The disk of {archive.parent} is full: packing needs {needed:,} bytes.",
            "Free space there, or choose another folder.",
        )
