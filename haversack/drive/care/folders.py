"""Folders made many at a time: a call for each hundred, those above before those that lie in them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from haversack.drive.index import names
from haversack.drive.remote import calls
from haversack.drive.tree import Drive, Names
from haversack.errors import AlreadyExists, HaversackError, NotFound
from haversack.http import wait


def make_folders(drive: Drive, paths: Iterable[Names]) -> None:
    """See to it that there are folders at `paths`, and on the way to them; those that are there stay as they are.

    Raises `NotAFolder` where a file stands in the way, and as every call of a drive does.
    """
    wanted = {path[:depth] for path in paths for depth in range(1, len(path) + 1)}
    for _, level in groupby(sorted(wanted, key=len), len):
        _make(drive, list(level))


def _make(drive: Drive, level: list[Names]) -> None:
    """Make folders whose parents are there."""
    parents = {path: drive.folder(path[:-1]).id for path in level}
    _look_up(drive, parents)
    missing = [path for path in level if not _is_there(drive, path)]
    ids = wait(drive.api.new_ids(len(missing)))
    made = [calls.create_folder(file_id, parents[path], path[-1]) for file_id, path in zip(ids, missing, strict=True)]
    for file_id, answer in zip(ids, wait(drive.api.batch(made)), strict=True):
        if isinstance(answer, AlreadyExists):
            answer = wait(drive.api.get(file_id))  # made by a try whose answer was lost
        if isinstance(answer, HaversackError):
            raise answer
        drive.index.put_empty(answer)


def _look_up(drive: Drive, parents: dict[Names, str]) -> None:
    """Ask for the names that are not known, many to a call; those that several files may be shown under ask alone."""
    asked = [
        (parent, path[-1])
        for path, parent in parents.items()
        if names.meant(path[-1]) == [path[-1]] and names.unnumbered(path[-1]) is None
        if not drive.index.lookup(parent, path[-1])[0]
    ]
    since = drive.index.mark()
    for (parent, name), found in zip(asked, wait(drive.api.lookups(asked)), strict=True):
        drive.index.learn_lookup(parent, [name], found, since)


def _is_there(drive: Drive, path: Names) -> bool:
    try:
        drive.folder(path)
    except NotFound:
        return False
    return True
