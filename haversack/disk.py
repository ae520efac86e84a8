"""This machine's disk: atomic replace, fsync, MD5, and which boot of the machine this is.

A file that others read is written to a temporary file beside it, which is then renamed: it is complete or absent. With
`durable` its bytes are synced before the rename, so that this holds after a power cut too. What was written without
fsync may be lost at the next boot; `boot_id` tells two boots apart.

The module is not called `files` because `haversack.files` is the public name for uploads and downloads.
"""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = ".haversack-"
"""How the names of temporary files begin. One that a kill left behind may be deleted."""


@contextmanager
def replacing(path: Path, *, durable: bool = True, suffix: str = "") -> Iterator[Path]:
    """Yield the path of a temporary file in `path`'s folder, which the block must write; then rename it to `path`.

    If the block raises, the temporary file is deleted and `path` is unchanged. `durable` syncs the file, but not its
    folder, before the rename. `suffix` ends the temporary name, for libraries that choose a format by it. Raises
    `OSError`.
    """
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}{suffix}")
    try:
        yield temporary
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write(path: Path, content: str | bytes, *, durable: bool = True, private: bool = False) -> None:
    """Write a whole file by atomic replace, text as UTF-8. Its folder must exist.

    Bytes that were decoded with `surrogateescape` are written as they were. `durable` syncs the file before the rename.
    `private` lets only this user read it. Raises `OSError`, and `UnicodeEncodeError` for other lone surrogates.
    """
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    with replacing(path, durable=durable) as temporary:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(temporary, flags, 0o600 if private else 0o666), "wb") as file:
            file.write(data)


def delete_tree(folder: Path) -> None:
    """Delete a folder with everything in it. Raises `OSError`.

    Folders in it that their owner may not enter, such as an overlay file system's work folder, are deleted too.
    """
    try:
        shutil.rmtree(folder)
    except PermissionError:
        for at, folders, _ in os.walk(folder):
            for name in folders:
                path = os.path.join(at, name)
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
        shutil.rmtree(folder)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that files created, renamed or deleted in it stay so after a power cut. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def md5(path: Path) -> str:
    """The MD5 of a file's bytes, in hex. Raises `OSError`."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@functools.cache
def boot_id() -> str:
    """A string that is the same until this machine boots again; "" where the system has none (outside Linux)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
