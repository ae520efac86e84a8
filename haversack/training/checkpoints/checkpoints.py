"""`Checkpoints`: complete, verified states of a run, saved beside a loop that does not wait for them.

    with haversack.Checkpoints("rsna", "drive://haversack/runs") as checkpoints:
        restored = checkpoints.restore(like=state)
        state, first = (restored.tree, restored.step + 1) if restored else (state, 0)
        for step in range(first, 10_000):
            state = train(state)
            if step % 100 == 0:
                checkpoints.save(step, state)

`save` copies the tree and returns; a thread writes it to this machine's disk, and another brings it to the store that
outlives the machine. What is committed is complete, and what is restored was read whole and compared with its hashes.
This module holds the order of things: what can be saved stands in `snapshot`, how one checkpoint gets to a disk in
`store`, to a drive in `remote` and `carrier`, who may write in `ownership`.
"""

from __future__ import annotations

import errno
import logging
import secrets
import time
import warnings
from collections.abc import Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from haversack import settings
from haversack.errors import (
    DiskFull,
    HaversackError,
    InputError,
    IntegrityError,
    NotFound,
    RunTaken,
    TrainingError,
)
from haversack.training.checkpoints import manifest, ownership, store, tensors
from haversack.training.checkpoints.failpoints import failpoint
from haversack.training.checkpoints.manifest import CheckpointManifest, Kind
from haversack.training.checkpoints.ownership import RunOwner
from haversack.training.checkpoints.remote import RemoteStore
from haversack.training.checkpoints.replicator import Replicator
from haversack.training.checkpoints.snapshot import Arrays, Buffers, Snapshot, rebuild
from haversack.training.checkpoints.store import Link, LocalStore, Refused

_LONGEST_NAME = 200
_CLAIMS = 10
"""Attempts to claim a run that others claim at the same time."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """One committed state of a run. `where` is its folder, `size` in bytes, `when` it was saved, `session` by whom."""

    id: str
    step: int
    where: str
    size: int
    when: datetime
    best: bool
    milestone: bool
    session: RunOwner
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class PassedOver:
    """A checkpoint that is not whole, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Restored:
    """What `restore` found: the newest whole checkpoint, and the newer ones that are not."""

    step: int
    tree: Any
    facts: Mapping[str, Any]
    checkpoint: Checkpoint
    passed_over: list[PassedOver]


class Checkpoints:
    """The checkpoints of the run `name`.

    Args:
        name: one folder's name.
        where: None for the data folder of this machine alone; a folder to be used instead of it; or a URL that fsspec
            opens (`drive://haversack/runs`, `s3://bucket/runs`) for a store besides it that outlives the machine.
        keep: how many of the newest are kept, besides the best one and the milestones.
        take_over: whether to take the run from a session that seems to be alive.

    Looking (`all`, `latest`, `restore`) leaves the run to whoever owns it; the first `save`, or `claim`, makes it this
    session's. `close`, or the end of the `with`, waits until the last checkpoint is in the store and tells what kept it
    away; without it that store may get the last one only with the next session. One object is used by one thread, and
    may be used again after `close`.

    Raises `InputError` for a name that is no folder's name.
    """

    def __init__(self, name: str, where: str | Path | None = None, *, keep: int = 3, take_over: bool = False) -> None:
        if keep < 1:
            raise InputError(f"keep={keep} would keep no checkpoint.", "Keep at least 1.")
        self.name = _checked(name)
        self.keep = keep
        self.take_over = take_over
        is_url = isinstance(where, str) and "://" in where
        parent = settings.load().data / "runs" if where is None or is_url else Path(where).expanduser().absolute()
        self.folder = parent / self.name
        self._local = LocalStore(self.folder / "checkpoints")
        self._carrier = Replicator(self._local, RemoteStore(str(where), self.name), keep) if is_url else None
        self._buffers = Buffers()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="haversack-checkpoint")
        self._writing: Future[None] | None = None
        self._clearing: Future[None] | None = None
        self._session: RunOwner | None = None
        self._lost: HaversackError | None = None
        self._last: CheckpointManifest | None = None

    # Saving

    def save(
        self,
        step: int,
        tree: Any,
        *,
        facts: Mapping[str, Any] | None = None,
        best: bool = False,
        milestone: bool = False,
        wait: bool = False,
    ) -> None:
        """Save `tree` as the state of the run after `step`; returns when it is copied, or committed with `wait`.

        Args:
            step: a number that the caller can go on from; a larger one need not be newer.
            tree: nested dicts, lists and tuples of arrays (numpy, JAX, torch) and plain values (None, bool, int, float,
                str, bytes).
            facts: JSON to be kept with it, readable without the arrays.
            best: whether it takes the place of the best one so far, which is kept whatever its age.
            milestone: whether it is kept for good.

        One is written at a time: this waits for the one before it. Raises that one's error, then is ready again:
        `DiskFull`, `TrainingError`; `RunTaken` when another session owns the run, `RunLost` when one has taken it over;
        `InputError` for what cannot be saved. A store that is away is no error here; `wait` and `close` raise it.
        """
        self._settle()
        kept = manifest.checked_facts(facts)
        self.claim()
        failpoint("before-snapshot")
        snapshot = self._buffers.take(tree)
        failpoint("after-snapshot")
        link = self._new_link("checkpoint")
        link = replace(link, step=step, tree=snapshot.structure, facts=kept, best=best, milestone=milestone)
        self._writing = self._writer.submit(self._write, link, snapshot)
        # Apart, since removing a gigabyte takes a while: the buffers are free once the new one is written.
        self._clearing = self._writer.submit(self._retain)
        if wait:
            self.wait()

    def claim(self) -> None:
        """Make the run this session's; nothing to do when it is. Raises `RunTaken`, and `RunLost` once it was lost."""
        if self._lost is not None:
            raise self._lost
        attempts = 0
        while self._session is None:
            try:
                self._take()
            except Refused as error:
                # Another session came between the look and the claim; the next look shows it.
                attempts += 1
                if attempts == _CLAIMS:
                    raise self._taken_just_now() from error
            except OSError as error:
                raise self._said(error, "the beginning of the session") from error

    @property
    def saving(self) -> bool:
        """Whether a checkpoint is being written, so that a `save` now would wait for it."""
        return self._writing is not None and not self._writing.done()

    @property
    def pending(self) -> int:
        """How many checkpoints are still to be brought to the store that outlives this machine, as far as is known."""
        return self._carrier.pending if self._carrier is not None else 0

    def wait(self) -> None:
        """Return when what was saved is committed, here and in the store, and what falls out here is gone.

        Raises as `save` does for the one before, and `ConnectionFailed` or what the store raises when it is not there.
        """
        self._settle()
        self._cleared()
        if self._carrier is not None and self._session is not None:
            try:
                self._carrier.wait()
            except Refused as error:
                raise self._lose() from error

    def close(self) -> None:
        """Wait, and let go of the run, so that another session may have it. Raises as `wait`. Twice is fine."""
        try:
            self._settle()
            self._cleared()
            if self._session is not None and self._lost is None:
                self._release()
        finally:
            self._session = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Looking

    def all(self) -> list[Checkpoint]:
        """The checkpoints that are there, oldest first; whether they are whole shows when they are restored."""
        first_copies: dict[str, Checkpoint] = {}
        for checkpoint in [copy.describe() for copy in _sound(self._copies(looking=True))]:
            first_copies.setdefault(checkpoint.id, checkpoint)
        return [*reversed(first_copies.values())]

    @property
    def latest(self) -> Checkpoint | None:
        """The newest checkpoint, None when there is none."""
        return next(reversed(self.all()), None)

    def restore(self, like: Any = None, *, step: int | None = None) -> Restored | None:
        """The newest checkpoint that is whole, or the newest of `step`; None when none was ever saved.

        Args:
            like: a tree such as was saved; arrays come back in its kinds, and JAX's on its devices in its sharding.
                Without it all arrays are numpy's, and namedtuples are tuples.

        What is newer and not whole is passed over, with a warning. Raises `IntegrityError` when none is whole,
        `NotFound` when there is none of `step`, `TrainingError` when `like` is another tree than was saved,
        `ConnectionFailed` when the store does not answer and nothing is here.
        """
        self._settle()
        passed_over: dict[str, PassedOver] = {}
        # Looked up again after each that is not whole: the run's owner may have saved and cleared away meanwhile.
        while copy := next((copy for copy in self._newest_first(step) if copy.where not in passed_over), None):
            try:
                made, arrays = self._read(copy)
            except IntegrityError as error:
                passed_over[copy.where] = PassedOver(copy.where, error.what)
                warnings.warn(f"A checkpoint of {self.name} was passed over: {error.what}", stacklevel=2)
                continue
            tree = rebuild(made.tree, arrays, like)
            return Restored(made.step, tree, made.facts, copy.describe(), [*passed_over.values()])
        if passed_over:
            raise IntegrityError(
                f"None of the {len(passed_over)} checkpoints of {self.name} is whole.",
                "Look for a copy elsewhere, or begin a run of another name.",
            )
        if step is not None:
            raise self._none_of(step)
        return None

    def delete(self, step: int) -> None:
        """Delete the checkpoints of `step` for good. Raises `NotFound` when there is none, and as `claim`, `wait`."""
        self.claim()
        self.wait()
        found = [copy for copy in _sound(self._copies()) if _step_of(copy) == step]
        if not found:
            raise self._none_of(step)
        # The newest link of a chain stays, so another one comes after what is to go.
        self._last = self._local.commit(self._new_link("claim"))
        if self._carrier is not None:
            self._carrier.remote.commit(self._last)
        for copy in found:
            copy.store.remove(copy.link)

    # Its own

    def _take(self) -> None:
        """One attempt to make the run this session's in both chains. Raises `Refused`."""
        links = self._local.links()
        known = [copy.link.manifest for copy in self._copies() if copy.link.manifest]
        if not self.take_over:
            self._check_free(known)
        session = RunOwner.begin()
        term = max((link.term for link in known), default=0) + 1
        count = max((link.count for link in known), default=0)
        claim = CheckpointManifest(secrets.token_hex(8), "claim", session, time.time(), term, count)
        if self._carrier is not None:
            self._carrier.begin(claim)
        self._last = self._local.take(claim, links)
        self._session = session

    def _settle(self) -> None:
        """Wait for what is being written; its error is raised once."""
        if self._writing is not None:
            # Forgotten only when it is done: an interrupt here must not free the buffers that are being written.
            futures.wait([self._writing])
            writing, self._writing = self._writing, None
            writing.result()
        if self._carrier is not None and self._carrier.refused and self._lost is None:
            raise self._lose()

    def _write(self, link: CheckpointManifest, snapshot: Snapshot) -> None:
        def fill(folder: Path) -> dict[str, tensors.Written]:
            return {manifest.STATE: tensors.write(folder / manifest.STATE, snapshot.arrays)}

        try:
            self._last = self._local.commit(link, fill)
            if self._carrier is not None:
                self._carrier.soon()
        except Refused as error:
            raise self._lose() from error
        except OSError as error:
            raise self._said(error, f"the checkpoint of step {link.step}") from error

    def _cleared(self) -> None:
        if self._clearing is not None:
            futures.wait([self._clearing])

    def _retain(self) -> None:
        """Delete what falls out here, after the newer one is there; what cannot be deleted now is the next time."""
        if self._lost is not None:
            return
        try:
            self._delete_old()
        except OSError as error:
            _log.warning("An old checkpoint of %s could not be deleted: %s.", self.name, error)
        failpoint("after-removal")

    def _delete_old(self) -> None:
        links = self._local.links()
        staying = store.kept([*links, *self._local.fetched()], self.keep)
        for link in [*store.fallen_out(links, self.keep), *self._local.fetched()]:
            if link not in staying and not (self._carrier is not None and link.name == self._carrier.carrying):
                self._local.remove(link)

    def _release(self) -> None:
        """End the session in both chains; the one here also when the other store is away."""
        release = self._new_link("release")
        try:
            self._local.commit(release)
            if self._carrier is not None:
                self._carrier.end(release)
        except Refused as error:
            raise self._lose() from error
        except HaversackError:
            raise
        except OSError as error:
            raise self._said(error, "the end of the session") from error

    def _new_link(self, kind: Kind) -> CheckpointManifest:
        assert self._session is not None
        assert self._last is not None
        count = self._last.count + (kind == "checkpoint")
        return CheckpointManifest(secrets.token_hex(8), kind, self._session, time.time(), self._last.term, count)

    def _copies(self, *, looking: bool = False) -> list[_Copy]:
        """Every link here, then every one in the store that outlives the machine; without those when it is away.

        Who is `looking` for a checkpoint is told so, and gets the store's error when there is nothing here.
        """
        found = [_Copy(link, self._local) for link in (*self._local.links(), *self._local.fetched())]
        if self._carrier is None:
            return found
        try:
            return found + [_Copy(link, self._carrier.remote) for link in self._carrier.remote.links()]
        except HaversackError as error:
            if looking and not found:
                raise
            if looking:
                _log.warning("%s What is on this machine is used.", error.what)
            return found

    def _newest_first(self, step: int | None) -> list[_Copy]:
        """What is or may be a checkpoint, of `step` where one is given; of two copies the one here comes first."""
        copies = self._copies(looking=True)
        good = _sound(copies)
        if step is not None:
            return [copy for copy in good if _step_of(copy) == step]
        # One whose manifest cannot be read may be the newest: it is to be told of, so it comes first.
        return [copy for copy in reversed(copies) if copy.link.manifest is None] + good

    def _read(self, copy: _Copy) -> tuple[CheckpointManifest, Arrays]:
        """A checkpoint's arrays, brought here first where they are elsewhere."""
        made, link = copy.link.manifest, copy.link
        if made is None:
            raise IntegrityError(f"{link.name}: {link.fault}.", "Take another checkpoint.")
        try:
            if isinstance(copy.store, RemoteStore):
                remote = copy.store
                link = self._local.adopt(made, lambda folder: remote.fetch(made, folder))
            return made, self._local.read(link)
        except IntegrityError:
            if link is not copy.link:
                self._local.remove(link)
            raise
        except OSError as error:
            if isinstance(error, HaversackError):
                raise
            raise self._said(error, f"the copy of step {made.step}") from error

    def _none_of(self, step: int) -> NotFound:
        return NotFound(f"The run {self.name} has no checkpoint of step {step}.", "See what it has with all().")

    def _newest_link(self) -> CheckpointManifest | None:
        """The last thing that any session did in either store."""
        return _newest([copy.link.manifest for copy in self._copies() if copy.link.manifest])

    def _check_free(self, known: list[CheckpointManifest]) -> None:
        newest = _newest(known)
        if newest is None or newest.kind == "release" or newest.session.is_here:
            return
        if newest.session.seems_alive(newest.time):
            raise ownership.taken(self.name, newest.session, newest.time)

    def _taken_just_now(self) -> RunTaken:
        newest = self._newest_link()
        assert newest is not None
        return ownership.taken(self.name, newest.session, newest.time)

    def _lose(self) -> HaversackError:
        """Stop for good: another session has the run."""
        newest = self._newest_link()
        owner = newest.session if newest is not None and newest.session != self._session else None
        self._lost = ownership.lost(self.name, owner)
        return self._lost

    def _said(self, error: OSError, what: str) -> HaversackError:
        if isinstance(error, HaversackError):
            return error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFull(
                f"The disk is full, so {what} of {self.name} was not written.",
                "Free space on it; the checkpoints before it are kept.",
            )
        return TrainingError(
            f"{what[0].upper()}{what[1:]} of {self.name} could not be written: {error.strerror or error}.",
            f"Look at {self.folder}; the checkpoints before it are kept.",
        )


@dataclass(frozen=True)
class _Copy:
    """One link in one store."""

    link: Link
    store: LocalStore | RemoteStore

    @property
    def where(self) -> str:
        parent = self.store.url if isinstance(self.store, RemoteStore) else self.store.folder
        return f"{parent}/{self.link.name}"

    def describe(self) -> Checkpoint:
        made = self.link.manifest
        assert made is not None
        when = datetime.fromtimestamp(made.time, UTC)
        return Checkpoint(
            made.id, made.step, self.where, made.size, when, made.best, made.milestone, made.session, made.facts
        )


def _sound(copies: list[_Copy]) -> list[_Copy]:
    """The checkpoints whose manifests can be read, newest first, of two copies the one here first."""
    good = [copy for copy in copies if copy.link.manifest and copy.link.manifest.kind == "checkpoint"]
    return sorted(good, key=lambda copy: copy.link.manifest.age if copy.link.manifest else (0, 0), reverse=True)


def _newest(known: list[CheckpointManifest]) -> CheckpointManifest | None:
    return max(known, key=lambda link: (*link.age, link.kind == "release"), default=None)


def _checked(name: str) -> str:
    """A name that stays in its folder, on any file system."""
    bad = not name or name.startswith(".") or len(name.encode()) > _LONGEST_NAME
    if bad or any(sign in "/\\:*?#[]" or not sign.isprintable() for sign in name):
        raise InputError(
            f"{name!r} cannot be the name of a run.",
            "Choose a name without a dot in front and without any of these: / \\ : * ? # [ ]",
        )
    return name


def _step_of(copy: _Copy) -> int | None:
    return copy.link.manifest.step if copy.link.manifest else None
