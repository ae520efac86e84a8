"""`Checkpoints`: complete, verified states of a run, saved beside a loop that does not wait for them.

    with haversack.Checkpoints("rsna", "drive://haversack/runs") as checkpoints:
        restored = checkpoints.restore(like=state)
        state, first = (restored.tree, restored.step + 1) if restored else (state, 0)
        for step in range(first, 10_000):
            state = train(state)
            if step % 100 == 0:
                checkpoints.save(step, state)

`save` copies the tree and returns; a thread writes it, to this machine's disk first. What is committed is complete,
and what is restored was read whole and compared with its hashes. This module holds the order of things; how one
checkpoint gets to a disk stands in `store`, who may write in `ownership`, what can be saved in `snapshot`.
"""

from __future__ import annotations

import errno
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
from haversack.errors import DiskFull, HaversackError, InputError, IntegrityError, NotFound, TrainingError
from haversack.training import manifest, ownership, tensors
from haversack.training.manifest import Kind, Manifest
from haversack.training.ownership import Session
from haversack.training.snapshot import Buffers, Snapshot, rebuild
from haversack.training.store import Link, LocalStore, Refused

_LONGEST_NAME = 200


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
    session: Session
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
        where: None for the data folder of this machine, or a folder to be used instead of it.
        keep: how many of the newest are kept, besides the best one and the milestones.
        take_over: whether to take the run from a session that seems to be alive.

    Looking (`all`, `latest`, `restore`) leaves the run to whoever owns it; the first `save`, or `claim`, makes it this
    session's. One object is used by one thread.

    Raises `InputError` for a name that is no folder's name.
    """

    def __init__(self, name: str, where: str | Path | None = None, *, keep: int = 3, take_over: bool = False) -> None:
        if keep < 1:
            raise InputError(f"keep={keep} would keep no checkpoint.", "Keep at least 1.")
        self.name = _checked(name)
        self.keep = keep
        self.take_over = take_over
        self.folder = (Path(where).expanduser().absolute() if where else settings.load().data / "runs") / self.name
        self._local = LocalStore(self.folder / "checkpoints")
        self._buffers = Buffers()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="haversack-checkpoint")
        self._writing: Future[None] | None = None
        self._session: Session | None = None
        self._lost: HaversackError | None = None
        self._last: Manifest | None = None

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
        `InputError` for what cannot be saved.
        """
        self._settle()
        kept = manifest.checked_facts(facts)
        self.claim()
        snapshot = self._buffers.take(tree)
        link = self._new_link("checkpoint")
        link = replace(link, step=step, tree=snapshot.structure, facts=kept, best=best, milestone=milestone)
        self._writing = self._writer.submit(self._write, link, snapshot)
        if wait:
            self.wait()

    def claim(self) -> None:
        """Make the run this session's; nothing to do when it is. Raises `RunTaken`, and `RunLost` once it was lost."""
        if self._lost is not None:
            raise self._lost
        if self._session is not None:
            return
        links = [link.manifest for link in self._local.links() if link.manifest]
        if links and not self.take_over:
            self._check_free(links[-1])
        session = Session.begin()
        term = max((link.term for link in links), default=0) + 1
        count = max((link.count for link in links), default=0)
        claim = Manifest(secrets.token_hex(8), "claim", session, time.time(), term, count)
        try:
            self._last = self._local.take(claim)
        except Refused as error:
            raise self._taken_by_now() from error
        except OSError as error:
            raise self._said(error, "the run's folder") from error
        self._session = session

    @property
    def saving(self) -> bool:
        """Whether a checkpoint is being written, so that a `save` now would wait for it."""
        return self._writing is not None and not self._writing.done()

    def wait(self) -> None:
        """Return when what was saved is committed. Raises as `save` does for the one before."""
        self._settle()

    def close(self) -> None:
        """Wait, and let go of the run, so that another session may have it. Raises as `wait`. Twice is fine."""
        try:
            self._settle()
            if self._session is not None and self._lost is None:
                self._last = self._local.commit(self._new_link("release"))
        except Refused as error:
            raise self._lose() from error
        except OSError as error:
            raise self._said(error, "the end of the session") from error
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
        return [self._checkpoint(link) for link in self._good_links()]

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
        `NotFound` when there is none of `step`, `TrainingError` when `like` is another tree than was saved.
        """
        self._settle()
        passed_over: dict[str, PassedOver] = {}
        # Looked up again after each that is not whole: the run's owner may have saved and cleared away meanwhile.
        while link := next((link for link in self._newest_first(step) if link.name not in passed_over), None):
            try:
                arrays = self._read(link)
            except IntegrityError as error:
                passed_over[link.name] = PassedOver(str(self._local.folder / link.name), error.what)
                warnings.warn(f"A checkpoint of {self.name} was passed over: {error.what}", stacklevel=2)
                continue
            assert link.manifest is not None
            tree = rebuild(link.manifest.tree, arrays, like)
            checkpoint = self._checkpoint(link)
            return Restored(checkpoint.step, tree, checkpoint.facts, checkpoint, [*passed_over.values()])
        if passed_over:
            raise IntegrityError(
                f"None of the {len(passed_over)} checkpoints of {self.name} is whole.",
                "Look for a copy elsewhere, or begin a run of another name.",
            )
        if step is not None:
            raise self._none_of(step)
        return None

    def delete(self, step: int) -> None:
        """Delete the checkpoints of `step` for good. Raises `NotFound` when there is none, and as `claim`."""
        self._settle()
        self.claim()
        found = [link for link in self._good_links() if _step_of(link) == step]
        if not found:
            raise self._none_of(step)
        for link in found:
            if link.manifest == self._last:
                self._last = self._local.commit(self._new_link("claim"))
            self._local.remove(link)

    # Its own

    def _settle(self) -> None:
        """Wait for what is being written; its error is raised once."""
        if self._writing is None:
            return
        # Forgotten only when it is done: an interrupt here must not free the buffers that are being written.
        futures.wait([self._writing])
        writing, self._writing = self._writing, None
        writing.result()

    def _write(self, link: Manifest, snapshot: Snapshot) -> None:
        def fill(folder: Path) -> dict[str, tensors.Written]:
            return {manifest.STATE: tensors.write(folder / manifest.STATE, snapshot.arrays)}

        try:
            self._last = self._local.commit(link, fill)
            self._retain()
        except Refused as error:
            raise self._lose() from error
        except OSError as error:
            raise self._said(error, f"the checkpoint of step {link.step}") from error

    def _retain(self) -> None:
        """Delete what is neither among the newest, nor the best, nor a milestone; called after a newer one is there."""
        good = self._good_links()
        kept = {link.name for link in good[-self.keep :]}
        kept |= {link.name for link in good if link.manifest and link.manifest.milestone}
        kept |= {link.name for link in [link for link in good if link.manifest and link.manifest.best][-1:]}
        # What cannot be read, claims and releases go with the checkpoints of their age.
        old = [link for link in self._local.links() if len(good) > self.keep and link.name < good[-self.keep].name]
        for link in [*old, *self._local.fetched()]:
            if link.name not in kept:
                self._local.remove(link)

    def _new_link(self, kind: Kind) -> Manifest:
        assert self._session is not None
        assert self._last is not None
        count = self._last.count + (kind == "checkpoint")
        return Manifest(secrets.token_hex(8), kind, self._session, time.time(), self._last.term, count)

    def _newest_first(self, step: int | None) -> list[Link]:
        """The links that are or may be checkpoints, of `step` where one is given."""
        good = [link for link in reversed(self._good_links()) if step is None or _step_of(link) == step]
        if step is not None:
            return good
        # One whose manifest cannot be read may be the newest: it is to be told of, so it comes first.
        return [*reversed([link for link in self._local.links() if link.manifest is None]), *good]

    def _good_links(self) -> list[Link]:
        """The checkpoints whose manifests can be read, oldest first, each once."""
        by_id = {}
        for link in [*self._local.fetched(), *self._local.links()]:
            if link.manifest is not None and link.manifest.kind == "checkpoint":
                by_id[link.manifest.id] = link
        return sorted(by_id.values(), key=lambda link: link.manifest.age if link.manifest else (0, 0))

    def _read(self, link: Link) -> dict:
        if link.manifest is None:
            raise IntegrityError(f"{link.name}: {link.fault}.", "Take another checkpoint.")
        return self._local.read(link)

    def _checkpoint(self, link: Link) -> Checkpoint:
        made = link.manifest
        assert made is not None
        when = datetime.fromtimestamp(made.time, UTC)
        where = str(self._local.folder / link.name)
        return Checkpoint(
            made.id, made.step, where, made.size, when, made.best, made.milestone, made.session, made.facts
        )

    def _none_of(self, step: int) -> NotFound:
        return NotFound(f"The run {self.name} has no checkpoint of step {step}.", "See what it has with all().")

    def _check_free(self, newest: Manifest) -> None:
        owner = newest.session
        if newest.kind != "release" and not owner.is_here and owner.seems_alive(newest.time):
            raise ownership.taken(self.name, owner, newest.time)

    def _owner(self) -> Manifest | None:
        return next((link.manifest for link in reversed(self._local.links()) if link.manifest), None)

    def _taken_by_now(self) -> TrainingError:
        owner = self._owner()
        return ownership.taken(self.name, owner.session, owner.time) if owner else ownership.lost(self.name, None)

    def _lose(self) -> HaversackError:
        """Stop for good: another session has the run."""
        owner = self._owner()
        self._lost = ownership.lost(self.name, owner.session if owner else None)
        return self._lost

    def _said(self, error: OSError, what: str) -> HaversackError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFull(
                f"The disk is full, so {what} of {self.name} was not written.",
                "Free space on it; the checkpoints before it are kept.",
            )
        return TrainingError(
            f"{what.capitalize()} of {self.name} could not be written: {error.strerror or error}.",
            f"Look at {self.folder}; the checkpoints before it are kept.",
        )


def _checked(name: str) -> str:
    """A name that stays in its folder, on any file system."""
    bad = not name or name.startswith(".") or len(name.encode()) > _LONGEST_NAME
    if bad or any(sign in "/\\:" or not sign.isprintable() for sign in name):
        raise InputError(
            f"{name!r} cannot be the name of a run.",
            'Choose a name without "/", "\\" and ":" and with no dot in front.',
        )
    return name


def _step_of(link: Link) -> int | None:
    return link.manifest.step if link.manifest else None
