"""Brings a run's checkpoints from this machine's disk to the store that outlives it, behind the loop's back.

The loop never waits for a store. One that is away is remarked once; what was committed here meanwhile stays here, and
once it answers gets what it should have by then: the newest checkpoint, the best one and the milestones. What falls out
there is removed after the newer one is there, its size compared.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor

from haversack.errors import ConnectionFailed, HaversackError
from haversack.training.checkpoints import manifest, store
from haversack.training.checkpoints.failpoints import failpoint
from haversack.training.checkpoints.manifest import CheckpointManifest
from haversack.training.checkpoints.remote import RemoteStore
from haversack.training.checkpoints.store import Link, LocalStore, Refused

_log = logging.getLogger(__name__)


class Replicator:
    """Between the two stores of one run, of which `remote` keeps the newest `keep`, the best and the milestones."""

    def __init__(self, local: LocalStore, remote: RemoteStore, keep: int) -> None:
        self.remote = remote
        self.refused = False
        self.carrying = ""
        self.pending = 0
        """How many checkpoints the store should have by now and has not, as far as is known."""
        self._local = local
        self._keep = keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="haversack-carrier")
        self._latest: Future[None] | None = None
        self._asked = 0
        self._claim: CheckpointManifest | None = None
        self._term = 0
        self._error: HaversackError | None = None

    def begin(self, claim: CheckpointManifest) -> None:
        """Make the run this session's there too, at once or when the store answers. Raises `Refused`."""
        self.refused, self._claim, self._term = False, claim, claim.term
        try:
            self._take()
            self.pending = len(self._due(self.remote.links()))
        except (HaversackError, OSError) as error:
            self._away(error)
        self._submit()

    def soon(self) -> None:
        """Have the thread bring what is due; asking again before it has begun changes nothing."""
        self.pending = max(self.pending, 1)
        self._submit()

    def _submit(self) -> None:
        self._asked += 1
        self._latest = self._thread.submit(self._carry, self._asked)

    def wait(self) -> None:
        """Return when the newest checkpoint is there. Raises what keeps it away, and `Refused`."""
        if self._error is not None or self._latest is None:
            self.soon()
        assert self._latest is not None
        self._latest.result()
        if self.refused:
            raise Refused
        if self._error is not None:
            raise self._error

    def end(self, release: CheckpointManifest) -> None:
        """Wait, and let go of the run there. Raises as `wait`."""
        self.wait()
        self.remote.commit(release)

    def _carry(self, asked: int) -> None:
        if asked != self._asked or self.refused:
            return
        try:
            self._take()
            self._bring()
        except Refused:
            self.refused = True
        except (HaversackError, OSError) as error:
            self._away(error)
        else:
            if self._error is not None:
                _log.warning("%s has the newest checkpoint again.", self.remote.url)
            self._error = None
            if asked == self._asked:
                self.pending = 0
        failpoint("after-carrying")

    def _take(self) -> None:
        """Make the claim, unless that is done. A session that was begun there while it was away comes before ours."""
        if self._claim is None:
            return
        links = self.remote.links()
        terms = [link.manifest.term for link in links if link.manifest]
        if max(terms, default=0) >= self._claim.term:
            raise Refused
        self.remote.take(self._claim, links)
        self._claim = None

    def _bring(self) -> None:
        links = self.remote.links()
        if any(link.manifest.term > self._term for link in links if link.manifest):
            raise Refused
        for link, made in self._due(links):
            self._bring_one(link, made)
        links = self.remote.links()
        for link in store.fallen_out(links, self._keep):
            self.remote.remove(link)

    def _due(self, links: list[Link]) -> list[tuple[Link, CheckpointManifest]]:
        """The checkpoints here that the store should have besides those of its `links`.

        What was not sent in time and has been overtaken since, on another machine, stays here.
        """
        there = {link.manifest.id: link.manifest for link in store.sound(links) if link.manifest}
        newest = max((made.age for made in there.values()), default=(0, 0))
        here = [(link, link.manifest) for link in store.kept(self._local.links(), 1) if link.manifest]
        return [
            (link, made)
            for link, made in here
            if made.id not in there and (made.age >= newest or made.best or made.milestone)
        ]

    def _bring_one(self, link: Link, made: CheckpointManifest) -> None:
        self.carrying = link.name
        arrays = self._local.folder / link.name / manifest.STATE
        try:
            self.remote.commit(made, arrays)
        except FileNotFoundError as error:
            # Removed here before it was begun: a newer one is there, whose turn comes.
            if arrays.exists():
                raise ConnectionFailed(f"{self.remote.url} is not there any more.", "Look at the store.") from error
        finally:
            self.carrying = ""

    def _away(self, error: HaversackError | OSError) -> None:
        self.pending = max(self.pending, len(store.kept(self._local.links(), 1)))
        if not isinstance(error, HaversackError):
            error = ConnectionFailed(f"{self.remote.url} does not work as it should: {error}.", "Look at the store.")
        if self._error is None:
            _log.warning("%s The checkpoints are on this machine and go there once it answers.", error.what)
        self._error = error
