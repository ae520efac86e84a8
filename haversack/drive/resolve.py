"""Resolves paths on the drive to files: each name is looked up in the folder above it, and shortcuts are followed.

Lookups are answered from the journal's drafts, then from the index, and only then by the drive, with one call for each
name. A folder is never listed to find one of its files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from haversack.drive.index import names
from haversack.drive.index.changes import ChangesFollower, now
from haversack.drive.index.index import DriveIndex
from haversack.drive.index.listing import FolderListings
from haversack.drive.remote import calls
from haversack.drive.remote.api import SHORTCUT, DriveApi, File
from haversack.drive.writeback.journal import Journal
from haversack.errors import NotAFolder, NotFound
from haversack.http import wait

Names = tuple[str, ...]
"""A path as the shown names from My Drive down; () is My Drive itself."""
TARGETS = ".shortcut-targets-by-id"
"""A folder beside My Drive in a mount, as in Colab's: the path `TARGETS/<id>/<name>` is the file with that id, wherever
it is on the drive. Shortcuts are shown as symbolic links to it."""

_MAX_DEPTH = 200


class PathResolver:
    """Resolves the paths of one drive, whose top folder is `root`. Thread-safe.

    A path is a tuple of shown names, those under which files are shown in a mount. A draft is a file that was written
    on this machine and is not uploaded yet. `TARGETS` is a folder beside My Drive through which every file can be
    reached by its id: at `TARGETS/<id>/<name>`.

    Every method raises `ConnectionFailed`, `SignInError` or `RemoteError` if the drive has to be asked and fails.
    """

    def __init__(
        self,
        root: File,
        api: DriveApi,
        index: DriveIndex,
        follower: ChangesFollower,
        listings: FolderListings,
        journal: Journal,
    ) -> None:
        self._root = root
        self._api = api
        self._index = index
        self._follower = follower
        self._listings = listings
        self._journal = journal

    def resolve(self, path: Names, *, follow: bool) -> list[File]:
        """Return the folders from the root down to `path` and, last, the file or folder at `path`.

        Shortcuts on the way are followed; one at the end only with `follow`. For a path below `TARGETS`, the list
        starts with the file that its id names. Raises `NotFound` (also for a shortcut to a folder that contains it),
        and `NotAFolder` if a file is where a folder is needed.
        """
        found, depth_of_first = self._start_of(path)
        for depth in range(depth_of_first, len(path)):
            folder, name = found[-1], path[depth]
            if not folder.is_folder:
                raise NotAFolder(f"{'/'.join(path[:depth])} on the drive is a file.", "Give a path through folders.")
            child = self.child(folder.id, name)
            if child is not None and (follow or depth + 1 < len(path)):
                child = self.follow(child)
                if len(found) > _MAX_DEPTH or (child.is_folder and any(child.id == one.id for one in found)):
                    child = None  # a shortcut to one of the folders above it
            if child is None:
                raise _not_found(path[: depth + 1])
            found.append(child)
        return found

    def resolve_in(self, folder: File, path: Names) -> File:
        """Return what is at `path`, whose parent is `folder`, with one lookup; a shortcut as itself.

        Raises `NotFound`.
        """
        found = self.child(folder.id, path[-1])
        if found is None:
            raise _not_found(path)
        return found

    def child(self, parent: str, shown: str) -> File | None:
        """Return what is shown as `shown` in the folder with the id `parent`: a draft, or a file; a shortcut as itself.

        None if there is nothing, or only a file on the drive that a draft under another name has new bytes for or
        replaces. Asks the drive unless the index has a current answer.
        """
        for name in names.meant(shown):
            if (draft := self._journal.at(parent, name)) is not None:
                return draft.as_file()
        known, file = self._index.lookup(parent, shown)
        if not known or not self._follower.is_current(parent, (parent, shown)):
            file = wait(self._look_up(parent, shown))
            self._listings.count_lookup(parent)
        return file if file is not None and file.id not in self._journal.claimed_ids() else None

    def follow(self, file: File) -> File:
        """Return the target of a shortcut; `file` itself if it is no shortcut or its target is gone or in the trash."""
        if file.mime_type != SHORTCUT:
            return file
        try:
            return self.target(file.target)
        except NotFound:
            return file

    def target(self, file_id: str) -> File:
        """Return the file with this id, from the index if that is current, else from the drive.

        Raises `NotFound` if it does not exist or is in the trash.
        """
        if file_id == self._root.id:
            return self._root
        found = self._index.get(file_id) if self._follower.is_current() else None
        if found is None:
            found = self.fetch(file_id)
        if found.trashed:
            raise NotFound(f"{found.name} is in the drive's trash.", "Restore it there.", status=404)
        return found

    def fetch(self, file_id: str) -> File:
        """Request the file with this id from the drive, store it in the index, and return it. Raises `NotFound`."""
        since = self._index.mark()
        found = wait(self._api.get(file_id))
        self._index.learn([found], since)
        return found

    def prefetch_targets(self, ids: Sequence[str]) -> None:
        """Request the files with these ids that the index does not hold, in batches, and store them in the index.

        A file that the drive refuses is left out.
        """
        missing = [calls.get(one) for one in ids if one != self._root.id and self._index.get(one) is None]
        if missing:
            since = self._index.mark()
            found = wait(self._api.batch(missing))
            self._index.learn([file for file in found if isinstance(file, File)], since)

    def _start_of(self, path: Names) -> tuple[list[File], int]:
        """Return where the resolution of `path` starts, as a list of one file, and how many names lead there.

        `TARGETS` and `TARGETS/<id>` are folders that the drive does not have: they get made-up ids. Raises `NotFound`
        if the third name below `TARGETS` is not the shown name of the file with that id.
        """
        if path[:1] != (TARGETS,):
            return [self._root], 0
        if len(path) < 3:
            return [replace(self._root, id="/".join(path), name=path[-1])], len(path)
        target = self.target(path[1])
        if path[2] != names.shown_name(target):
            raise _not_found(path[:3])
        return [target], 3

    async def _look_up(self, parent: str, shown: str) -> File | None:
        """Ask the drive which file is shown as `shown` in a folder; None if there is none.

        One request, which names every drive name that can be shown so. For `name (1)` it also asks for `name`, because
        the number depends on the files of that name.
        """
        plain = names.unnumbered(shown)
        shown_names = [shown] if plain is None else [shown, plain]
        since, asked = self._index.mark(), now()
        lookups = [(parent, name) for one in shown_names for name in names.meant(one)]
        found = {file.id: file for files in await self._api.lookups(lookups) for file in files}
        if self._index.learn_lookup(parent, shown_names, list(found.values()), since):
            self._follower.add_answer([(parent, one) for one in shown_names], asked)
        known, file = self._index.lookup(parent, shown)
        if known:
            return file
        # The folder changed during the request, so the index has refused the answer. The oldest file has the name.
        candidates = [file for file in found.values() if names.shown_name(file) == shown]
        return min(candidates, key=lambda file: (file.created, file.id), default=None)


def _not_found(path: Names) -> NotFound:
    return NotFound(f"There is no {'/'.join(path)} on the drive.", "Check the name.", status=404)
