"""How a job's lock is found: by its environment page's archive on the drive, else by the indexes.

A page, which `haversack.environment` describes, is locked by itself and stored on the drive of a named hub. A notebook
whose imports the page's packages serve gets exactly the page's environment; one that needs more gets a lock of its own,
with the page's versions where that is possible.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from haversack.notebook.record.store import Options, has_copy
from haversack.packages import archive
from haversack.packages import python as python_
from haversack.packages.archive import Archives
from haversack.packages.lock import Lock, Locker
from haversack.packages.requirements import Requirements


@dataclass(frozen=True)
class Locked:
    """A job's lock.

    Attributes:
        lock: the lock.
        kept: whether the job had it already.
        wheels: a folder with all its wheels; None if they come from the indexes.
        page: the lock of the notebook's environment page, if that is to be stored on the drive.
    """

    lock: Lock
    kept: bool = False
    wheels: Path | None = None
    page: Lock | None = None


@dataclass(frozen=True)
class EnvironmentPage:
    """An environment that `haversack.environment` describes, and its archive on the drive of a named hub."""

    needed: Requirements
    archives: Archives
    key: str

    def store(self, lock: Lock, tree: Path) -> threading.Thread:
        """Store the wheels of `lock` in a new thread, which is returned, while the job runs."""
        thread = threading.Thread(target=self.archives.store, args=(self.key, lock, tree / "bin" / "python"))
        thread.start()
        return thread


def page_of(needed: Requirements, options: Options, notify: Callable[[str], None]) -> EnvironmentPage | None:
    """Return the page of a notebook with a named hub; None without a page or a drive for the next machine.

    Of a notebook that is somebody else's, nothing is stored for other notebooks.
    """
    if not needed.environment.packages or not has_copy(options.hub) or not options.trusted:
        return None
    from haversack.drive.filesystem import DriveFileSystem

    python = options.python or needed.python or python_.own().version
    key = archive.key_of(needed.page, python, options.as_of or "")
    return EnvironmentPage(needed.page, Archives(DriveFileSystem(hub=options.hub), notify), key)


def lock(
    locker: Locker,
    needed: Requirements,
    options: Options,
    known: Lock | None,
    page: EnvironmentPage | None,
    scratch: Path,
) -> Locked:
    """Lock what a notebook needs: from its page's archive if that has it, else from the indexes.

    `known` is the job's lock for another kind of machine; `scratch` is an existing folder for the archive's wheels.
    """
    find = partial(locker.find, python=options.python or "", as_of=options.as_of or "")
    if page is None:
        return Locked(find(needed, known=known))
    archived = page.archives.fetch(page.key, scratch)
    own = archived.lock if archived is not None else find(page.needed, known=known)
    stored = None if archived is not None else own
    if all(one.project in own.packages for one in needed.requirements):
        return Locked(own, wheels=archived.wheels if archived is not None else None, page=stored)
    return Locked(find(needed, known=own), page=stored)
