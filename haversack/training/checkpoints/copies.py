"""The copies of a run's links: on this machine's disk and in a store that outlives it.

A checkpoint may be in both, and a store that does not answer hides its part. Nothing is cached: another session may
commit and delete at any time, so every call lists both again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from haversack.errors import HaversackError
from haversack.training.checkpoints.manifest import CheckpointManifest
from haversack.training.checkpoints.ownership import RunOwner
from haversack.training.checkpoints.remote import RemoteStore
from haversack.training.checkpoints.store import Link, LocalStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """One committed state of a run.

    Attributes:
        id: random, unique in the run.
        step: the step that it was saved after.
        where: its folder if it is on this disk, otherwise the path of its manifest in the store.
        size: in bytes.
        when: the time of the save, in UTC.
        best, milestone, diverged: the arguments of `save`.
        session: the session that saved it.
        facts: the argument of `save`, {} if none was given.
    """

    id: str
    step: int
    where: str
    size: int
    when: datetime
    best: bool
    milestone: bool
    diverged: bool
    session: RunOwner
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Copy:
    """A link of the chain (checkpoint, claim or release) as it is in one of the two stores, the disk or the remote."""

    link: Link
    store: LocalStore | RemoteStore

    @property
    def where(self) -> str:
        parent = self.store.url if isinstance(self.store, RemoteStore) else self.store.folder
        return f"{parent}/{self.link.name}"

    def describe(self) -> Checkpoint:
        """Return the `Checkpoint` that describes this copy, which must be a checkpoint with a readable manifest."""
        found = self.link.manifest
        assert found is not None
        when = datetime.fromtimestamp(found.time, UTC)
        return Checkpoint(
            found.id,
            found.step,
            self.where,
            found.size,
            when,
            found.best,
            found.milestone,
            found.diverged,
            found.session,
            found.facts,
        )

    @property
    def step(self) -> int | None:
        """The step that it was saved after; None if its manifest is unreadable."""
        return self.link.manifest.step if self.link.manifest else None

    @property
    def has_diverged(self) -> bool:
        return self.link.manifest is not None and self.link.manifest.diverged


class Copies:
    """The copies of one run's links on the disk and, if the run has one, in its store. It has no state of its own."""

    def __init__(self, local: LocalStore, remote: RemoteStore | None) -> None:
        self._local = local
        self._remote = remote

    def all(self, *, for_reader: bool = False) -> list[Copy]:
        """Return all links on the disk, then all in the store; those of the store are left out if it fails.

        `for_reader` logs a warning if the store fails, or raises its `HaversackError` if the disk has nothing.
        """
        found = [Copy(link, self._local) for link in (*self._local.links(), *self._local.fetched_copies())]
        if self._remote is None:
            return found
        try:
            return found + [Copy(link, self._remote) for link in self._remote.links()]
        except HaversackError as error:
            if for_reader and not found:
                raise
            if for_reader:
                _log.warning("%s Using the checkpoints on this machine.", error.what)
            return found

    def checkpoints(self, *, for_reader: bool = False) -> list[Copy]:
        """Return the checkpoints whose manifest is readable, newest first, on the disk before the store.

        `for_reader` is as in `all`, and so is what is raised.
        """
        return _readable(self.all(for_reader=for_reader))

    def to_restore(self, step: int | None, *, diverged: bool) -> list[Copy]:
        """Return the copies to try in a restore, newest first, on the disk before the store; of `step` if given.

        Without `step`, links with an unreadable manifest come first. With `diverged` False, the diverged ones are left
        out. Raises the store's `HaversackError` if it fails and the disk has nothing.
        """
        copies = self.all(for_reader=True)
        readable = [copy for copy in _readable(copies) if diverged or not copy.has_diverged]
        if step is not None:
            return [copy for copy in readable if copy.step == step]
        # One with an unreadable manifest may be the newest, so it is tried first and reported as passed over.
        return [copy for copy in reversed(copies) if copy.link.manifest is None] + readable

    def newest(self) -> CheckpointManifest | None:
        """Return the newest link of any session, on the disk or in the store."""
        return newest_of(copy.link.manifest for copy in self.all() if copy.link.manifest)


def newest_of(known: Iterable[CheckpointManifest]) -> CheckpointManifest | None:
    """Return the newest link; a release is newer than other links of the same order. None for none."""
    return max(known, key=lambda link: (*link.order, link.kind == "release"), default=None)


def _readable(copies: list[Copy]) -> list[Copy]:
    """Return the checkpoints whose manifest is readable, newest first; copies of one checkpoint keep their order."""
    readable = [copy for copy in copies if copy.link.manifest and copy.link.manifest.kind == "checkpoint"]
    return sorted(readable, key=lambda copy: copy.link.manifest.order if copy.link.manifest else (0, 0), reverse=True)
