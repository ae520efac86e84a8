"""Create many folders with few calls: one batch for each hundred, parents before their children."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from haversack.drive.index import names
from haversack.drive.remote import calls
from haversack.drive.resolve import Names
from haversack.drive.tree import Drive
from haversack.errors import AlreadyExists, HaversackError, NotFound
from haversack.http import wait


def make_folders(drive: Drive, paths: Iterable[Names]) -> None:
    """Create the folders at `paths`, tuples of names below My Drive, and those above them; existing ones stay.

    Raises `NotAFolder` if a file has the name of a folder, `Forbidden` if the drive does not allow it,
    `ConnectionFailed`, `SignInError`, or another `RemoteError`. Folders that were created before the error stay.
    """
    wanted = {path[:depth] for path in paths for depth in range(1, len(path) + 1)}
    for _, level in groupby(sorted(wanted, key=len), len):
        _create_level(drive, list(level))


def _create_level(drive: Drive, level: list[Names]) -> None:
    """Create the missing ones of these folders, whose parents exist."""
    parents = {path: drive.folder(path[:-1]).id for path in level}
    _look_up(drive, parents)
    missing = [path for path in level if not _exists(drive, path)]
    ids = wait(drive.api.new_ids(len(missing)))
    made = [calls.create_folder(file_id, parents[path], path[-1]) for file_id, path in zip(ids, missing, strict=True)]
    for file_id, answer in zip(ids, wait(drive.api.batch(made)), strict=True):
        if isinstance(answer, AlreadyExists):
            answer = wait(drive.api.get(file_id))  # an earlier attempt created it, and its answer was lost
        if isinstance(answer, HaversackError):
            raise answer
        drive.index.put_empty(answer)


def _look_up(drive: Drive, parents: dict[Names, str]) -> None:
    """Look up in batches the names that are not cached, so that `_exists` needs no call for them.

    A name that more than one name on the drive may be shown as is left to `_exists`.
    """
    asked = [
        (parent, path[-1])
        for path, parent in parents.items()
        if names.meant(path[-1]) == [path[-1]] and names.unnumbered(path[-1]) is None
        if not drive.index.lookup(parent, path[-1])[0]
    ]
    since = drive.index.mark()
    for (parent, name), found in zip(asked, wait(drive.api.lookups(asked)), strict=True):
        drive.index.learn_lookup(parent, [name], found, since)


def _exists(drive: Drive, path: Names) -> bool:
    """Whether there is a folder at `path`. Raises `NotAFolder` if there is a file."""
    try:
        drive.folder(path)
    except NotFound:
        return False
    return True
