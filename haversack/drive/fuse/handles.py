"""What is open in a mount: files, folders, and files that were deleted while open."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from haversack.drive.cache.partial import CompleteFile, PartialFile
from haversack.drive.remote.calls import File
from haversack.drive.writeback.draft import Draft


@dataclass
class Orphan:
    """A file that was deleted or replaced while open; its open handles keep reading and writing it.

    `Operations` creates it, and drops it when `references`, the number of open handles, falls to zero.

    | field | type | meaning |
    |---|---|---|
    | `file` | File | the file as it was when it was deleted |
    | `draft` | Draft or None | its written bytes, shared by all handles; None until one of them writes |
    | `references` | int | open handles of the file |
    """

    file: File
    draft: Draft | None
    references: int


@dataclass(slots=True)
class OpenFile:
    """One open handle of a file. `Operations` creates it in `open` and `create`, and drops it in `release`.

    It reads the file on the drive, `file`, until the file is being written by any handle: from then on all handles
    share its `draft`, the local copy that will be uploaded. The mount's *version* is a counter that every change of a
    name bumps (see `Operations`).

    | field | type | meaning |
    |---|---|---|
    | `path` | str | the path in the mount at which it was opened; not updated by a rename |
    | `file` | File | the version of the file that reads use while `draft` is None |
    | `draft` | Draft or None | the draft that reads and writes use; the handle holds one reference to it |
    | `writes` | bool | opened for writing |
    | `appends` | bool | opened with `O_APPEND` |
    | `checked_version` | int | the mount's version at which `file` and `draft` were last looked up |
    | `orphan` | Orphan or None | set once the file was deleted while open |
    | `pinned` | set | files of the content cache whose descriptors the kernel may still be reading from |

    `lock` guards `draft`, `checked_version` and `orphan`. `file` is replaced under it too, except by a read that found
    the file changed on the drive. `lock` is acquired before the locks of the draft, of the journal, and of the mount's
    version.
    """

    path: str
    file: File
    draft: Draft | None
    writes: bool
    appends: bool
    checked_version: int
    orphan: Orphan | None = None
    pinned: set[CompleteFile | PartialFile] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


class OpenFolder:
    """An open folder, whose entries the kernel fetches in parts.

    Args:
        path: the folder's path in the mount.
        start: starts the listing; returns the mount's version (a counter of changes, see `Operations`) for which the
            entries hold, -1 for none, and an iterator over their names and files.

    `version` is the version that `start` returned last. Not thread-safe: the kernel reads an open folder in sequence.
    """

    def __init__(self, path: str, start: Callable[[], tuple[int, Iterator[tuple[str, File]]]]) -> None:
        self.path = path
        self._start = start
        self.version, self._entries = start()
        self._position = 0
        self._last: tuple[str, File] | None = None

    def after(self, position: int) -> Iterator[tuple[str, File, int]]:
        """Yield (name, file, position) of each entry after `position`, a number of entries; 0 is the start.

        When the kernel's buffer had no room for the last entry, the kernel asks for that entry again, and it is
        repeated from memory. Any other jump starts the listing again and skips `position` entries.
        """
        if position == self._position - 1 and self._last is not None:
            yield (*self._last, self._position)
        elif position != self._position:
            self.version, self._entries = self._start()
            self._position = 0
            for _ in itertools.islice(self._remaining(), position):
                continue
        yield from self._remaining()

    def _remaining(self) -> Iterator[tuple[str, File, int]]:
        for entry in self._entries:
            self._last = entry
            self._position += 1
            yield (*entry, self._position)
