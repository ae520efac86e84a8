"""`Checkpoints`: complete, verified states of a run, saved without blocking the training loop.

    with haversack.Checkpoints("rsna", "drive://haversack/runs") as checkpoints:
        restored = checkpoints.restore(like=state)
        state, first = (restored.tree, restored.step + 1) if restored else (state, 0)
        for step in range(first, 10_000):
            state = train(state)
            if step % 100 == 0:
                checkpoints.save(step, state)

`save` copies the tree and returns. The writer thread writes the copy to this machine's disk, and the replicator thread
uploads it to a store that outlives the machine. A committed checkpoint is complete, and `restore` compares everything
that it reads with the hashes in the manifest.

This module calls the others in this order: `snapshot` copies trees, `store` commits to the disk, `remote` to a store,
`replicator` uploads, `copies` finds what both have, `ownership` explains who may commit.
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
    RunLost,
    RunTaken,
    TrainingError,
)
from haversack.training.checkpoints import manifest, ownership, snapshot, store, tensors
from haversack.training.checkpoints.copies import Checkpoint, Copies, Copy, newest_of
from haversack.training.checkpoints.failpoints import failpoint
from haversack.training.checkpoints.manifest import ARRAYS_FILE, CheckpointManifest, Kind
from haversack.training.checkpoints.ownership import RunOwner
from haversack.training.checkpoints.remote import RemoteStore
from haversack.training.checkpoints.replicator import Replicator
from haversack.training.checkpoints.snapshot import Arrays, Buffers, Snapshot, rebuild
from haversack.training.checkpoints.store import ChainConflict, LocalStore
from haversack.training.checkpoints.tensors import FileChecksum

_MAX_NAME_BYTES = 200
_CLAIM_ATTEMPTS = 10
"""How often a claim is retried that lost a race with another session's claim."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PassedOver:
    """A damaged or incomplete checkpoint that `restore` tried.

    Attributes:
        where: its folder if it is on this disk, otherwise the path of its manifest in the store.
        reason: a sentence on what is wrong with it.
    """

    where: str
    reason: str


@dataclass(frozen=True)
class Restored:
    """The result of `restore`.

    Attributes:
        step, tree, facts: what was passed to `save`.
        checkpoint: the description of the checkpoint.
        passed_over: the damaged checkpoints that were tried before it.
    """

    step: int
    tree: Any
    facts: Mapping[str, Any]
    checkpoint: Checkpoint
    passed_over: list[PassedOver]


class Checkpoints:
    """The checkpoints of the run `name`.

    Args:
        name: name of the run, which becomes a folder's name.
        where: None for this machine's data folder; a folder to use in its place; or a URL that fsspec opens
            (`drive://haversack/runs`, `s3://bucket/runs`) of a store that outlives the machine, in addition to the data
            folder.
        keep: number of newest checkpoints that retention keeps, in addition to the best one, the last one that has not
            diverged, and the milestones.
        take_over: whether to claim the run from a session that seems alive.

    Reading (`all`, `latest`, `restore`) claims nothing. The first `save`, `claim` or `delete` claims the run for this
    session. `close`, or the end of the `with` block, waits until the last checkpoint is in the store and raises if it
    cannot get there; without `close` the last checkpoint may reach the store only in the next session. Not thread-safe:
    use one object in one thread. It may be used again after `close`.

    On the disk and in the store, a run is a chain of links. Each link is a checkpoint, a claim or a release, and names
    its successor. Retention deletes the checkpoints that need not be kept.

    Raises `InputError` for a name that is not one folder's name on every file system, and for `keep` below 1.

    The states of a checkpoint:

    | state | what exists |
    |---|---|
    | in memory | a copy of the tree in `_buffers` |
    | written | a folder `.aside-…` with arrays and manifest, both synced |
    | committed | a folder such as `00000012` on the disk, durable |
    | replicated | also `ID.safetensors` and a link such as `00000009.json` in the store |
    | superseded | the same, but retention no longer keeps it: it is neither among the newest nor kept apart |
    | deleted | nothing |

    Its transitions; "writer" and "replicator" are threads of this object, "caller" is the thread that calls it:

    | transition | cause | thread |
    |---|---|---|
    | → in memory | `save` copies the tree | caller |
    | in memory → written | the arrays are written, then the manifest | writer |
    | written → committed | the folder is renamed to its number, the folder above is synced | writer |
    | in memory or written → deleted | the write fails; the next `save`, `wait`, `close`, … raises the error | writer |
    | in memory or written → deleted | the process dies; the next claim deletes the folder | |
    | committed → replicated | the arrays are uploaded, then the link is created | replicator |
    | committed or replicated → superseded | a newer checkpoint is committed | writer |
    | superseded → deleted | on the disk: retention after a save, but not while it is uploaded | writer |
    | superseded → deleted | in the store: retention after the newer one is replicated | replicator |
    | committed or replicated → deleted | `delete` | caller |

    The replicator skips a checkpoint that is no longer the newest when its turn comes, unless it is kept apart: as the
    best, as a milestone, or as the last one that has not diverged.

    The states of this object's claim on the run:

    | state | `_session` | `_lost` | next state |
    |---|---|---|---|
    | unclaimed | None | None | claimed |
    | claimed | the session | None | released or lost |
    | lost | the session; None after `close` | the error | none: `claim` and `save` raise `_lost` |
    | released | None | None | claimed |

    | transition | cause |
    |---|---|
    | unclaimed or released → claimed | `claim` commits a claim in the store (later if it fails) and on the disk |
    | the same, by taking over | the same, although an owner seems alive; only with `take_over`, else `RunTaken` |
    | claimed → lost | a commit here or in the store finds another session's link, or our last link gone |
    | claimed → released | `close` commits a release on the disk and in the store |

    A former owner stays "claimed" after a take-over until its next commit, which is refused.

    | field | type | changed by |
    |---|---|---|
    | `_buffers` | `Buffers` | caller, while nothing is pending; else the writer |
    | `_pending_memory`, `_pending_write`, `_pending_cleanup` | `Future` or None | caller |
    | `_session` | `RunOwner` or None | caller |
    | `_lost` | `RunLost` or None | caller or writer; never reset |
    | `_last_link` | the last manifest committed on the disk | caller (`claim`, `delete`), writer (`save`) |

    No lock guards them: the caller waits for the pending write before it uses what the writer uses, and the writer is
    one thread. `Replicator` has its own table.
    """

    def __init__(self, name: str, where: str | Path | None = None, *, keep: int = 3, take_over: bool = False) -> None:
        if keep < 1:
            raise InputError(f"keep={keep} would delete every checkpoint.", "Keep at least 1.")
        self.name = _check_name(name)
        self.keep = keep
        self.take_over = take_over
        is_url = isinstance(where, str) and "://" in where
        parent = settings.load().data / "runs" if where is None or is_url else Path(where).expanduser().absolute()
        self.folder = parent / self.name
        self._local = LocalStore(self.folder / "checkpoints")
        remote = RemoteStore(str(where), self.name) if is_url else None
        self._replicator = Replicator(self._local, remote, keep) if remote is not None else None
        self._copies = Copies(self._local, remote)
        self._buffers = Buffers()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="haversack-checkpoint")
        self._pending_memory: Future[None] | None = None
        self._pending_write: Future[None] | None = None
        self._pending_cleanup: Future[None] | None = None
        self._session: RunOwner | None = None
        self._lost: RunLost | None = None
        self._last_link: CheckpointManifest | None = None

    # Saving

    def save(
        self,
        step: int,
        tree: Any,
        *,
        facts: Mapping[str, Any] | None = None,
        best: bool = False,
        milestone: bool = False,
        diverged: bool = False,
        wait: bool = False,
    ) -> None:
        """Save `tree` as the state of the run after `step`; return once it is copied. Claims the run.

        Args:
            step: number from which the caller can resume. A later save may have a smaller one.
            tree: nested dicts, lists and tuples of arrays (numpy, JAX, torch) and plain values (None, bool, int, float,
                str, bytes).
            facts: a dict of JSON values, which `all` returns without reading the arrays. None for {}.
            best: whether this is the best checkpoint so far. Retention keeps the last one that was saved as best.
            milestone: whether retention always keeps it.
            diverged: whether the state is no longer worth going on from, for example because weights are NaN. Retention
                keeps the last checkpoint that has not diverged.
            wait: whether to call `wait` before returning, which may raise more errors.

        One checkpoint is written at a time, so `save` waits for the previous one and raises its error: `DiskFull`,
        `TrainingError` if the disk fails, `RunLost`. This call then saves nothing; the next call works again, except
        after `RunLost`. Also raises `RunTaken` if another session owns the run and seems alive, and `InputError` for a
        tree or facts that cannot be saved. A store that does not answer is an error only in `wait` and `close`.
        """
        self._wait_for_write()
        copied_facts = manifest.copy_facts(facts)
        self.claim()
        failpoint("before-snapshot")
        copied = self._buffers.copy(tree)
        failpoint("after-snapshot")
        link = self._new_link("checkpoint")
        link = replace(link, step=step, tree=copied.structure, facts=copied_facts)
        link = replace(link, best=best, milestone=milestone, diverged=diverged)
        self._pending_write = self._writer.submit(self._write, link, copied)
        # A task of its own: the next save may use the buffers while old checkpoints, gigabytes perhaps, are deleted.
        self._pending_cleanup = self._writer.submit(self._apply_retention)
        if wait:
            self.wait()

    def prepare(self, tree: Any) -> None:
        """Make memory ready for saves of trees like `tree`, in the writer thread; return at once.

        Without it, the first `save` waits for memory, several times as long as a later one takes. Raises `InputError`
        for a tree that cannot be saved.
        """
        self._pending_memory = self._writer.submit(self._buffers.prepare, snapshot.forms(tree))

    def claim(self) -> None:
        """Claim the run for this session; does nothing if it is claimed.

        If the store fails, the run is claimed on the disk, and the claim in the store is retried with each save.

        Raises `RunTaken` if another session owns the run and seems alive (unless `take_over`) or wins the race for it
        ten times, `RunLost` if this object lost the run before, `DiskFull` and `TrainingError` if the claim cannot be
        written.
        """
        if self._lost is not None:
            raise self._lost
        attempts = 0
        while self._session is None:
            try:
                self._try_claim()
            except ChainConflict as error:
                # A race: another session committed between our read of the chain and our claim. Read it again.
                attempts += 1
                if attempts == _CLAIM_ATTEMPTS:
                    raise self._race_error() from error
            except OSError as error:
                raise self._disk_error(error, "the claim") from error

    @property
    def saving(self) -> bool:
        """Whether the writer thread is busy with a write or with memory for it, so that `save` would wait."""
        pending = (self._pending_memory, self._pending_write)
        return any(future is not None and not future.done() for future in pending)

    @property
    def copy_seconds(self) -> float:
        """How long the last `save` copied its tree: what a save costs that need not wait for anything else."""
        return self._buffers.copy_seconds

    @property
    def pending(self) -> int:
        """The number of checkpoints to upload, as known from the last contact with the store; 0 without a store."""
        return self._replicator.pending if self._replicator is not None else 0

    def wait(self) -> None:
        """Wait until the last checkpoint is committed on the disk and retention there is done.

        If the run is claimed and has a store, also wait until the last checkpoint and those that are kept apart are in
        the store. Raises the error of the pending write: `DiskFull`, `TrainingError` or `RunLost`. Raises `RunLost`
        if another session extended the chain in the store, and `ConnectionFailed` or another `HaversackError` of the
        store if the upload fails.
        """
        self._wait_for_write()
        self._wait_for_cleanup()
        if self._replicator is not None and self._session is not None:
            try:
                self._replicator.wait()
            except ChainConflict as error:
                raise self._mark_lost() from error

    def close(self) -> None:
        """Wait until the last checkpoint is on the disk and in the store, then release the run for other sessions.

        May be called twice. Raises the error of the pending write (`DiskFull`, `TrainingError`, `RunLost`); the run is
        then not released, and seems taken to other processes while this one lives. Raises `RunLost` if another session
        took the run over, and `DiskFull` or `TrainingError` if the release cannot be written. Raises `ConnectionFailed`
        or another `HaversackError` of the store if the last checkpoint or the release cannot be uploaded; the run is
        then released on the disk only.
        """
        try:
            self._wait_for_write()
            self._wait_for_cleanup()
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

    # Reading

    def all(self) -> list[Checkpoint]:
        """Return the checkpoints on the disk and in the store, oldest first; only manifests are read and verified.

        Of two copies the one on the disk is returned. Checkpoints whose manifest is damaged are left out. If the store
        fails, the checkpoints on the disk are returned, with a warning in the log; if the disk has nothing of the run,
        raises the store's error, `ConnectionFailed` or another `HaversackError`.
        """
        first_copies: dict[str, Checkpoint] = {}
        for checkpoint in [copy.describe() for copy in self._copies.checkpoints(for_reader=True)]:
            first_copies.setdefault(checkpoint.id, checkpoint)
        return [*reversed(first_copies.values())]

    @property
    def latest(self) -> Checkpoint | None:
        """The checkpoint that was committed last, on the disk or in the store; None if there is none.

        Only manifests are read: the data may be damaged.

        Raises `ConnectionFailed` or another `HaversackError` of the store if it fails and the disk has nothing of the
        run.
        """
        return next(reversed(self.all()), None)

    def restore(self, like: Any = None, *, step: int | None = None, diverged: bool = True) -> Restored | None:
        """Return the newest checkpoint that is complete and undamaged; with `step`, the newest of that step.

        Args:
            like: a tree of the same form as the saved one. Each array gets the library of its counterpart there, an
                array of JAX or torch also its device, and one of JAX its sharding. An empty dict fits every dict, so
                `optimizer.state_dict()` fits before the first step; arrays in it get the library that they were saved
                from. Without `like` all arrays are numpy's, and namedtuples are tuples.
            step: the step to restore.
            diverged: False passes over the checkpoints that were saved as diverged.

        Every byte is compared with the manifest's hash. A checkpoint that only the store has is first downloaded into
        the run's folder on this disk. Damaged checkpoints are passed over with a Python warning. Returns None if the
        run has no checkpoint.

        Raises `IntegrityError` if all are damaged, `NotFound` if there is none of `step`, `TrainingError` if `like`
        differs from the saved tree or a download cannot be written, and `DiskFull`. Raises `ConnectionFailed` or
        another `HaversackError` of the store if it fails and the disk has nothing of the run, or during a download.
        Raises the error of the pending write: `DiskFull`, `TrainingError` or `RunLost`.
        """
        self._wait_for_write()
        passed_over: dict[str, PassedOver] = {}
        # Listed again after each damaged one: the owner may have saved and deleted checkpoints in the meantime.
        while copy := next(
            (copy for copy in self._copies.to_restore(step, diverged=diverged) if copy.where not in passed_over), None
        ):
            try:
                checkpoint, arrays = self._read(copy)
            except IntegrityError as error:
                passed_over[copy.where] = PassedOver(copy.where, error.what)
                message = f"A damaged checkpoint of the run {self.name} was passed over: {error.what}"
                warnings.warn(message, stacklevel=2)
                continue
            tree = rebuild(checkpoint.tree, arrays, like)
            return Restored(checkpoint.step, tree, checkpoint.facts, copy.describe(), [*passed_over.values()])
        if passed_over:
            raise IntegrityError(
                f"None of the {len(passed_over)} checkpoints of the run {self.name} is complete and undamaged.",
                "Look for a copy elsewhere, or start a run of another name.",
            )
        if step is not None:
            raise self._not_found(step)
        return None

    def delete(self, step: int) -> None:
        """Delete all checkpoints of `step` for good, on the disk and in the store. Claims the run, and waits as `wait`.

        Raises `NotFound` if there is none; `RunTaken` if another session owns the run and seems alive; `RunLost` if
        another session took it over; `DiskFull` or `TrainingError` if a claim or the pending write fails; and
        `ConnectionFailed` or another `HaversackError` of the store.
        """
        self.claim()
        self.wait()
        found = [copy for copy in self._copies.checkpoints() if copy.step == step]
        if not found:
            raise self._not_found(step)
        try:
            # A chain's newest link cannot be deleted, so commit a claim after the checkpoints.
            self._last_link = self._local.commit(self._new_link("claim"))
            if self._replicator is not None:
                self._replicator.remote.commit(self._last_link)
            for copy in found:
                copy.store.delete(copy.link)
        except ChainConflict as error:
            raise self._mark_lost() from error
        except OSError as error:
            raise self._disk_error(error, f"the deletion of step {step}") from error

    # Private

    def _try_claim(self) -> None:
        """Claim the run in the store (or leave that pending) and then on the disk, in one attempt.

        Raises `ChainConflict` if another session commits in the meantime, `RunTaken`, and `OSError`.
        """
        links = self._local.links()
        known = [copy.link.manifest for copy in self._copies.all() if copy.link.manifest]
        if not self.take_over:
            self._check_free(known)
        session = RunOwner.of_this_process()
        term = max((link.term for link in known), default=0) + 1
        count = max((link.count for link in known), default=0)
        claim = CheckpointManifest(secrets.token_hex(8), "claim", session, time.time(), term, count)
        if self._replicator is not None:
            self._replicator.claim(claim)
        self._last_link = self._local.commit_claim(claim, links)
        self._session = session

    def _wait_for_write(self) -> None:
        """Wait for the writer and raise its error, once; raises `RunLost` if the replicator lost the run."""
        if self._pending_memory is not None:
            futures.wait([self._pending_memory])
            self._pending_memory = None
        if self._pending_write is not None:
            # Cleared only once it is done: after a KeyboardInterrupt here the buffers are still being written.
            futures.wait([self._pending_write])
            write, self._pending_write = self._pending_write, None
            write.result()
        if self._replicator is not None and self._replicator.lost and self._lost is None:
            raise self._mark_lost()

    def _write(self, link: CheckpointManifest, copied: Snapshot) -> None:
        """Commit a checkpoint on the disk and schedule its replication. Runs in the writer thread.

        Raises `RunLost`, `DiskFull`, `TrainingError`.
        """

        def write_files(folder: Path) -> dict[str, FileChecksum]:
            return {ARRAYS_FILE: tensors.write(folder / ARRAYS_FILE, copied.arrays)}

        try:
            self._last_link = self._local.commit(link, write_files)
            if self._replicator is not None:
                self._replicator.schedule()
        except ChainConflict as error:
            raise self._mark_lost() from error
        except OSError as error:
            raise self._disk_error(error, f"the checkpoint of step {link.step}") from error

    def _wait_for_cleanup(self) -> None:
        if self._pending_cleanup is not None:
            futures.wait([self._pending_cleanup])

    def _apply_retention(self) -> None:
        """Delete expired checkpoints from the disk; log what cannot be deleted. Runs in the writer thread."""
        if self._lost is not None:
            return
        try:
            self._delete_expired()
        except OSError as error:
            _log.warning(
                "An expired checkpoint of the run %s cannot be deleted: %s. The next save retries.", self.name, error
            )
        failpoint("after-removal")

    def _delete_expired(self) -> None:
        """Delete the expired links and copies on the disk, except the one that is being uploaded."""
        links = self._local.links()
        staying = store.retained([*links, *self._local.fetched_copies()], self.keep)
        for link in [*store.expired(links, self.keep), *self._local.fetched_copies()]:
            if link not in staying and not (self._replicator is not None and link.name == self._replicator.uploading):
                self._local.delete(link)

    def _release(self) -> None:
        """Commit a release on the disk, also if the store fails, and then in the store.

        Raises `RunLost`, `DiskFull`, `TrainingError`, and the store's `HaversackError`s.
        """
        release = self._new_link("release")
        try:
            self._local.commit(release)
            if self._replicator is not None:
                self._replicator.release(release)
        except ChainConflict as error:
            raise self._mark_lost() from error
        except HaversackError:
            raise
        except OSError as error:
            raise self._disk_error(error, "the release") from error

    def _new_link(self, kind: Kind) -> CheckpointManifest:
        """Return a link of this session with the next count, not yet in a chain."""
        assert self._session is not None
        assert self._last_link is not None
        count = self._last_link.count + (kind == "checkpoint")
        return CheckpointManifest(secrets.token_hex(8), kind, self._session, time.time(), self._last_link.term, count)

    def _read(self, copy: Copy) -> tuple[CheckpointManifest, Arrays]:
        """Return the manifest and the verified arrays of a copy; one in the store is downloaded to the disk first.

        Raises `IntegrityError`, after deleting a download that is damaged; `DiskFull`, `TrainingError`, and the store's
        `HaversackError`s.
        """
        checkpoint, link = copy.link.manifest, copy.link
        if checkpoint is None:
            raise IntegrityError(f"{link.name}: {link.fault}.", "Restore another checkpoint.")
        try:
            if isinstance(copy.store, RemoteStore):
                remote = copy.store
                link = self._local.add_copy(checkpoint, lambda folder: remote.fetch(checkpoint, folder))
            return checkpoint, self._local.read(link)
        except IntegrityError:
            if link is not copy.link:
                self._local.delete(link)
            raise
        except OSError as error:
            if isinstance(error, HaversackError):
                raise
            raise self._disk_error(error, f"the local copy of step {checkpoint.step}") from error

    def _not_found(self, step: int) -> NotFound:
        return NotFound(f"The run {self.name} has no checkpoint of step {step}.", "List its checkpoints with all().")

    def _check_free(self, known: list[CheckpointManifest]) -> None:
        """Raise `RunTaken` if the newest of the `known` links is from a session elsewhere that seems alive."""
        newest = newest_of(known)
        if newest is None or newest.kind == "release" or newest.session.is_this_process:
            return
        if newest.session.seems_alive(newest.time):
            raise ownership.run_taken(self.name, newest.session, newest.time)

    def _race_error(self) -> RunTaken:
        """Return the error for a claim that lost every race; it names the owner of the newest link."""
        newest = self._copies.newest()
        assert newest is not None
        return ownership.run_taken(self.name, newest.session, newest.time)

    def _mark_lost(self) -> RunLost:
        """Move to the state "lost" and return the `RunLost`, which names the new owner if there is one."""
        newest = self._copies.newest()
        owner = newest.session if newest is not None and newest.session != self._session else None
        self._lost = ownership.run_lost(self.name, owner)
        return self._lost

    def _disk_error(self, error: OSError, what: str) -> HaversackError:
        """Return `DiskFull` or `TrainingError` for an `OSError` from writing `what`; a `HaversackError` as it is."""
        if isinstance(error, HaversackError):
            return error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFull(
                f"The disk is full, so {what} of the run {self.name} was not written.",
                "Free space on it; the checkpoints saved before are intact.",
            )
        return TrainingError(
            f"{what[0].upper()}{what[1:]} of the run {self.name} could not be written: {error.strerror or error}.",
            f"Check the folder {self.folder}; the checkpoints saved before are intact.",
        )


def _check_name(name: str) -> str:
    """Return `name`; raises `InputError` if it is not one folder's name on every file system."""
    bad = not name or name.startswith(".") or len(name.encode()) > _MAX_NAME_BYTES
    if bad or any(sign in "/\\:*?#[]" or not sign.isprintable() for sign in name):
        raise InputError(
            f"{name!r} cannot be the name of a run.",
            f"Choose a name of up to {_MAX_NAME_BYTES} bytes that does not start with a dot and has none of "
            "/ \\ : * ? # [ ] in it.",
        )
    return name
