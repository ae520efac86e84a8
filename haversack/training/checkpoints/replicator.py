"""Replicates a run's checkpoints from this machine's disk to a store, in a thread of its own.

The training loop never waits for the store. If the store does not answer, that is logged once, and the checkpoints stay
on this disk. When the store answers again, it gets the newest checkpoint and those that retention keeps apart (the
best, the last that has not diverged, the milestones), not every checkpoint in between. Checkpoints that retention no
longer keeps are deleted there once the newer ones are complete.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor

from haversack.errors import ConnectionFailed, HaversackError
from haversack.training.checkpoints import store
from haversack.training.checkpoints.failpoints import failpoint
from haversack.training.checkpoints.manifest import ARRAYS_FILE, CheckpointManifest
from haversack.training.checkpoints.remote import RemoteStore
from haversack.training.checkpoints.store import ChainConflict, Link, LocalStore

_log = logging.getLogger(__name__)


class Replicator:
    """Replicates one run from `local` to `remote`.

    Of the checkpoints in `remote`, retention keeps the newest `keep` and those apart.

    | field | type | changed by |
    |---|---|---|
    | `lost` | bool, whether another session extended the store's chain | replicator thread; reset by `claim` |
    | `uploading` | name of the local link in flight, "" if none; it must not be deleted | replicator thread |
    | `pending` | number of checkpoints that the store lacks, as far as is known | caller, writer, replicator thread |
    | `_claim` | claim that is not yet committed in the store, None once it is | `claim`; replicator thread |
    | `_term` | term of this session | `claim` |
    | `_error` | why the last attempt failed, None if it did not | `claim`; replicator thread |
    | `_requests` | number of the latest request; an older one in the queue is skipped | `schedule`, `claim`, `wait` |
    | `_latest` | `Future` of the latest request, None before the first | `schedule`, `claim`, `wait` |

    There is no lock: each field is one reference, read and replaced at once. `schedule` may be called by the writer
    thread; `claim`, `wait` and `release` belong to the caller's thread, while no write is pending.
    """

    def __init__(self, local: LocalStore, remote: RemoteStore, keep: int) -> None:
        self.remote = remote
        self.lost = False
        self.uploading = ""
        self.pending = 0
        self._local = local
        self._keep = keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="haversack-carrier")
        self._latest: Future[None] | None = None
        self._requests = 0
        self._claim: CheckpointManifest | None = None
        self._term = 0
        self._error: HaversackError | None = None

    def claim(self, claim: CheckpointManifest) -> None:
        """Commit `claim` in the store, and schedule the upload of what the store lacks.

        If the store does not work, nothing is raised: the claim stays pending and is retried with every replication.
        Raises `ChainConflict` if another session has claimed the run in the store with this term or a later one.
        """
        self.lost, self._claim, self._term = False, claim, claim.term
        try:
            self._commit_claim()
            self.pending = len(self._missing(self.remote.links()))
        except (HaversackError, OSError) as error:
            self._record_failure(error)
        self._submit()

    def schedule(self) -> None:
        """Schedule the upload of what the store lacks; return at once. Requests that have not begun become one."""
        self.pending = max(self.pending, 1)
        self._submit()

    def _submit(self) -> None:
        self._requests += 1
        self._latest = self._thread.submit(self._replicate, self._requests)

    def wait(self) -> None:
        """Wait until the newest checkpoint and those that are kept apart are in the store.

        If the last attempt failed, retry once. Raises `ChainConflict` if another session extended the store's chain,
        `ConnectionFailed` or another `HaversackError` of the store if the attempt fails.
        """
        if self._error is not None or self._latest is None:
            self.schedule()
        assert self._latest is not None
        self._latest.result()
        if self.lost:
            raise ChainConflict
        if self._error is not None:
            raise self._error

    def release(self, release: CheckpointManifest) -> None:
        """Call `wait`, then commit `release` in the store.

        Raises `ChainConflict` if another session extended the store's chain, `ConnectionFailed` or another
        `HaversackError` of the store if the upload or the commit fails.
        """
        self.wait()
        self.remote.commit(release)

    def _replicate(self, request: int) -> None:
        """Commit the pending claim and replicate once; does nothing if a later request is queued or the run is lost."""
        if request != self._requests or self.lost:
            return
        try:
            self._commit_claim()
            self._replicate_missing()
        except ChainConflict:
            self.lost = True
        except (HaversackError, OSError) as error:
            self._record_failure(error)
        else:
            if self._error is not None:
                _log.warning("%s works again and has the newest checkpoint.", self.remote.url)
            self._error = None
            if request == self._requests:
                self.pending = 0
        failpoint("after-carrying")

    def _commit_claim(self) -> None:
        """Commit the claim if it is pending.

        Raises `ChainConflict` if the store has a session of the same term or a later one, which claimed the run while
        the store did not answer us.
        """
        if self._claim is None:
            return
        links = self.remote.links()
        terms = [link.manifest.term for link in links if link.manifest]
        if max(terms, default=0) >= self._claim.term:
            raise ChainConflict
        self.remote.commit_claim(self._claim, links)
        self._claim = None

    def _replicate_missing(self) -> None:
        """Upload the checkpoints that the store lacks, then delete its expired links. Raises `ChainConflict`."""
        links = self.remote.links()
        if any(link.manifest.term > self._term for link in links if link.manifest):
            raise ChainConflict
        for link, checkpoint in self._missing(links):
            self._upload(link, checkpoint)
        links = self.remote.links()
        for link in store.expired(links, self._keep):
            self.remote.delete(link)

    def _missing(self, links: list[Link]) -> list[tuple[Link, CheckpointManifest]]:
        """Return the local checkpoints that the store should hold and that are not among its `links`, oldest first.

        A newest local checkpoint is left out if the store has a newer one, from a session on another machine.
        """
        stored = {link.manifest.id: link.manifest for link in store.readable_checkpoints(links) if link.manifest}
        newest = max((checkpoint.order for checkpoint in stored.values()), default=(0, 0))
        local = [(link, link.manifest) for link in store.retained(self._local.links(), 1) if link.manifest]
        return [
            (link, checkpoint)
            for link, checkpoint in local
            if checkpoint.id not in stored and (checkpoint.order >= newest or checkpoint.best or checkpoint.milestone)
        ]

    def _upload(self, link: Link, checkpoint: CheckpointManifest) -> None:
        """Commit a local checkpoint in the store; does nothing if retention deleted it on this disk before."""
        self.uploading = link.name
        arrays = self._local.folder / link.name / ARRAYS_FILE
        try:
            self.remote.commit(checkpoint, arrays)
        except FileNotFoundError as error:
            # The local arrays are gone if a newer checkpoint expired this one, and then the newer one is uploaded next.
            if arrays.exists():
                raise ConnectionFailed(f"{self.remote.url} is gone.", "Check the store.") from error
        finally:
            self.uploading = ""

    def _record_failure(self, error: HaversackError | OSError) -> None:
        """Remember why the store failed; log it if the previous attempt succeeded."""
        self.pending = max(self.pending, len(store.retained(self._local.links(), 1)))
        if not isinstance(error, HaversackError):
            error = ConnectionFailed(f"{self.remote.url} does not work as expected: {error}.", "Check the store.")
        if self._error is None:
            _log.warning("%s Checkpoints stay on this machine and are replicated once it works again.", error.what)
        self._error = error
