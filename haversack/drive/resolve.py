"""The way from My Drive down to a path: each name looked up in the folder above it, shortcuts followed.

What is known is asked of the index, and the drive only about what is not, a name at a time: a folder is never listed to
find one of its files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from haversack.drive.index.changes import ChangesFollower, now
from haversack.drive.index.index import DriveIndex, names
from haversack.drive.index.listing import FolderListings
from haversack.drive.remote import calls
from haversack.drive.remote.api import SHORTCUT, DriveApi, File
from haversack.drive.writeback.journal import Journal
from haversack.errors import NotAFolder, NotFound
from haversack.http import wait

Names = tuple[str, ...]
"""The names from My Drive down; () is My Drive itself."""
TARGETS = ".shortcut-targets-by-id"
"""Beside My Drive in a mount, as in Colab's: what shortcuts lead to, `TARGETS/<id>/<name>`, wherever it lies."""

_LONGEST_WAY = 200


class PathResolver:
    """The ways of one drive, whose folder at the top is `root`. Safe to use from any thread."""

    def __init__(
        self,
        root: File,
        api: DriveApi,
        index: DriveIndex,
        following: ChangesFollower,
        listings: FolderListings,
        journal: Journal,
    ) -> None:
        self._root = root
        self._api = api
        self._index = index
        self._following = following
        self._listings = listings
        self._journal = journal

    def to(self, path: Names, follow: bool) -> list[File]:
        """The folders from the top down to a path, and what is there."""
        way, passed = self._top(path)
        for depth in range(passed, len(path)):
            at, name = way[-1], path[depth]
            if not at.is_folder:
                raise NotAFolder(f"{'/'.join(path[:depth])} on the drive is a file.", "Give a path through folders.")
            found = self.child(at.id, name)
            if found is not None and (follow or depth + 1 < len(path)):
                found = self.followed(found)
                if len(way) > _LONGEST_WAY or (found.is_folder and any(found.id == one.id for one in way)):
                    found = None  # a shortcut that leads round in a circle
            if found is None:
                raise NotFound(
                    f"There is no {'/'.join(path[: depth + 1])} on the drive.", "Check the name.", status=404
                )
            way.append(found)
        return way

    def step(self, folder: File, path: Names) -> File:
        """What is at a path of which `folder` is the last but one, a shortcut as itself. Raises `NotFound`."""
        found = self.child(folder.id, path[-1])
        if found is None:
            raise NotFound(f"There is no {'/'.join(path)} on the drive.", "Check the name.", status=404)
        return found

    def child(self, parent: str, shown: str) -> File | None:
        for name in names.meant(shown):
            if (draft := self._journal.at(parent, name)) is not None:
                return draft.as_file()
        known, file = self._index.lookup(parent, shown)
        if not known or not self._following.current(parent, (parent, shown)):
            file = wait(self._asked(parent, shown))
            self._listings.missed(parent)
        return file if file is not None and file.id not in self._journal.owned() else None

    def followed(self, file: File) -> File:
        """What a shortcut leads to; a file itself, and a shortcut that leads nowhere."""
        if file.mime_type != SHORTCUT:
            return file
        try:
            return self.target(file.target)
        except NotFound:
            return file

    def target(self, file_id: str) -> File:
        if file_id == self._root.id:
            return self._root
        found = self._index.get(file_id) if self._following.current() else None
        if found is None:
            found = self.fresh(file_id)
        if found.trashed:
            raise NotFound(f"{found.name} is in the drive's trash.", "Restore it there.", status=404)
        return found

    def fresh(self, file_id: str) -> File:
        """The file of that id as it is on the drive now."""
        since = self._index.mark()
        found = wait(self._api.get(file_id))
        self._index.learn([found], since)
        return found

    def learn_targets(self, ids: Sequence[str]) -> None:
        """Ask about all that are not known at once."""
        asked = [calls.get(one) for one in ids if one != self._root.id and self._index.get(one) is None]
        if asked:
            since = self._index.mark()
            found = wait(self._api.batch(asked))
            self._index.learn([file for file in found if isinstance(file, File)], since)

    def _top(self, path: Names) -> tuple[list[File], int]:
        """Where a path begins, and how many of its names that takes."""
        if path[:1] != (TARGETS,):
            return [self._root], 0
        if len(path) < 3:
            return [replace(self._root, id="/".join(path), name=path[-1])], len(path)
        target = self.target(path[1])
        if path[2] != names.shown(target):
            raise NotFound(f"There is no {'/'.join(path[:3])} on the drive.", "Check the name.", status=404)
        return [target], 3

    async def _asked(self, parent: str, shown: str) -> File | None:
        """Ask the drive what is shown under a name; one call, whatever the folder's size."""
        looked_at = [shown] if (plain := names.unnumbered(shown)) is None else [shown, plain]
        since, asked = self._index.mark(), now()
        wanted = [(parent, name) for one in looked_at for name in names.meant(one)]
        found = {file.id: file for same in await self._api.lookups(wanted) for file in same}
        if self._index.learn_lookup(parent, looked_at, list(found.values()), since):
            self._following.answered([(parent, one) for one in looked_at], asked)
        known, file = self._index.lookup(parent, shown)
        if known:
            return file
        # Somebody changes something here just now, so the answer is not kept; the oldest has the plain name.
        same = [file for file in found.values() if names.shown(file) == shown]
        return min(same, key=lambda file: (file.created, file.id), default=None)
