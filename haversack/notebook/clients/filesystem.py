"""The drive as an fsspec file system in a kernel whose clients are apart: trainings keep their checkpoints there.

It has the methods that `training` uses, and their errors. Each is carried out by the `DriveFileSystem` of a process of
haversack's own Python, one for the kernel's whole life. Bytes go by files of this disk, which both processes see, not
through the pipe. It does not open files: that needs haversack in the notebook's own environment.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from fsspec.spec import AbstractFileSystem

from haversack.errors import InputError
from haversack.notebook.clients.client import Client

_client = Client()
os.register_at_fork(after_in_child=_client.forget)


def register() -> None:
    """Let fsspec open `drive://` with this file system from now on, in this process."""
    import fsspec

    fsspec.register_implementation("drive", ClientFileSystem, clobber=True)


def close() -> None:
    """End the process that carries out the calls; the next call starts another one."""
    _client.close()


class ClientFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The default drive, of which `DriveFileSystem` has each method's description.

    Any call may raise what that raises, and `ConnectionFailed` if the process dies; the next call starts another one.
    """

    protocol = "drive"
    root_marker = ""

    def __init__(self, **options: Any) -> None:
        """Make the file system; `options` are fsspec's own. No process is started before the first call."""
        super().__init__(**{**options, "use_listings_cache": False})

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        return list(_ask("ls", path, detail=detail))

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return dict(_ask("info", path))

    def exists(self, path: str, **options: Any) -> bool:
        return bool(_ask("exists", path))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        _ask("makedirs", path, exist_ok=exist_ok)

    def mv(self, path1: str, path2: str, recursive: bool = False, maxdepth: int | None = None, **options: Any) -> None:
        _ask("mv", path1, path2, recursive=recursive)

    def rm(self, path: str | list[str], recursive: bool = False, maxdepth: int | None = None) -> None:
        _ask("rm", path, recursive=recursive)

    def rm_file(self, path: str) -> None:
        _ask("rm_file", path)

    _rm = rm_file

    def get_file(self, rpath: str, lpath: str, callback: Any = None, **options: Any) -> None:
        _ask("get_file", rpath, os.path.abspath(lpath))

    def put_file(self, lpath: str, rpath: str, callback: Any = None, mode: str = "overwrite", **options: Any) -> None:
        _ask("put_file", os.path.abspath(lpath), rpath, mode=mode)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        with tempfile.TemporaryDirectory(prefix="haversack-") as folder:
            copy = Path(folder, "copy")
            self.get_file(path, str(copy))
            return copy.read_bytes()[start:end]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="haversack-") as folder:
            source = Path(folder, "source")
            source.write_bytes(value)
            self.put_file(str(source), path, mode=mode)

    def invalidate_cache(self, path: str | None = None) -> None:
        _ask("invalidate_cache", path)

    def reserve(self) -> str:
        return str(_ask("reserve"))

    def deliver(self, source: str | Path, path: str, *, mark: str, file_id: str | None = None) -> None:
        _ask("deliver", os.path.abspath(source), path, mark=mark, file_id=file_id)

    def purge(self, path: str) -> None:
        _ask("purge", path)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> NoReturn:
        raise InputError(
            f"drive://{path} cannot be opened in this kernel, whose environment has none of haversack's clients.",
            "Mount the drive with google.colab.drive.mount, or import haversack in the notebook.",
        )


def _ask(method: str, *arguments: Any, **options: Any) -> Any:
    """Call a method of the drive's file system in the process that has it."""
    return _client.ask(f"drive.{method}", arguments=list(arguments), options=options)
