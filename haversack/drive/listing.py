"""Folders listed: streamed, saved page by page, and ahead of a walk.

Who reads a folder gets what is known at once and each page as it comes; several readers of one folder share one
listing. A page token is kept with its page, so a listing that was cut off, also by the death of the process, goes on.

A walk (`find`, `os.walk`, `rglob`) is recognised by a folder that is read soon after the folder it lies in. The folders
next to and below it are then listed ahead, up to fifty to a query and several queries side by side, further ahead the
longer the walk goes on, and no more once it has stopped. Drive has been seen to answer such a query with nothing where
there is something, so a folder that is known to hold something is asked about along; when even that one seems empty,
each folder is asked about by itself.

A folder of which names are looked up again and again is listed along, a page now and then, so that a small one is soon
known whole and a large one costs few calls more.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence

from fsspec.asyn import get_loop

from haversack.drive import calls
from haversack.drive.api import PARENTS_PER_QUERY, DriveApi, File
from haversack.drive.changes import Following
from haversack.drive.index import Index
from haversack.errors import HaversackError, RemoteError
from haversack.http import wait

_SIDE_BY_SIDE = 8
# Who goes through a folder's folders is likely to go on: a few queries at once, and soon as many as there may be.
_FIRST_WINDOW = 4 * PARENTS_PER_QUERY
# A walk that has not read a folder for this many seconds has stopped.
_STOPPED_AFTER = 10.0
_FIRST_ALONG = 16
_PAGE_TOKEN_REFUSED = (400, 404, 410)


class Listing:
    """One listing under way, of one folder or of several.

    `wanted` says that somebody waits for it; `most` is how many pages of it are fetched when nobody does.
    """

    def __init__(self, parents: Sequence[str], *, wanted: bool, most: int | None = None) -> None:
        self.parents = tuple(parents)
        self.wanted = wanted
        self.most = most
        self.pages = 0
        self.complete = False
        self.error: BaseException | None = None
        self._over = False
        self._changed = threading.Condition()

    def step(self) -> None:
        with self._changed:
            self.pages += 1
            self._changed.notify_all()

    def end(self, error: BaseException | None) -> None:
        with self._changed:
            self.error, self._over = error, True
            self._changed.notify_all()

    def is_over(self) -> bool:
        """Raises what ended it before its time."""
        with self._changed:
            if self.error is not None:
                raise self.error
            return self._over

    def wait(self, pages: int | None = None) -> None:
        """Wait for more than `pages` pages, or for the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or (pages is not None and self.pages > pages))


class Listings:
    """The listings of one drive. `entries` and `missed` may be called from any thread."""

    def __init__(self, api: DriveApi, index: Index, following: Following) -> None:
        self._api = api
        self._index = index
        self._following = following
        self._running: dict[str, Listing] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._missed: dict[str, int] = {}
        self._canary: str | None = None
        # The walk: folders to list, the ones listed ahead of it, how far ahead it may be, what was read, when.
        self._stack: list[str] = []
        self._ahead: set[str] = set()
        self._window = 0
        self._read: dict[str, float] = {}
        self._stepped = 0.0
        self._flights = 0

    def entries(self, parent: str) -> Iterator[tuple[str, File]]:
        """What is in a folder, by the name it is shown under, in no order; the first before the last is known.

        Raises `NotFound` when there is no such folder, `ConnectionFailed` and `RemoteError`.
        """
        current = self._following.current()
        known = current and self._index.is_listed(parent)
        listing = None if known else wait(self._wanted(parent, anew=not current))
        if known and parent in self._ahead:
            get_loop().call_soon_threadsafe(self._step, parent)
        if listing is not None and (not current or self._index.is_doubted(parent)):
            listing.wait()  # what is gone is only known at the end
        after = 0
        while True:
            pages, over = (listing.pages, listing.is_over()) if listing is not None else (0, True)
            while rows := self._index.page(parent, after):
                for _, shown, file in rows:
                    yield shown, file
                after = rows[-1][0]
            if listing is not None and not over:
                listing.wait(pages)
            elif listing.complete if listing is not None else self._index.is_listed(parent):
                return
            else:
                listing = wait(self._wanted(parent, anew=False))

    def missed(self, parent: str) -> None:
        """A name in that folder had to be looked up."""
        count = self._missed[parent] = self._missed.pop(parent, 0) + 1
        if count >= _FIRST_ALONG and count & (count - 1) == 0:
            get_loop().call_soon_threadsafe(self._list_along, parent)
        if len(self._missed) > 1000:
            self._missed.pop(next(iter(self._missed)), None)

    # On the loop's thread

    async def _wanted(self, parent: str, *, anew: bool) -> Listing:
        """The listing of a folder that somebody reads."""
        self._step(parent)
        running = self._running.get(parent)
        # In a query of many folders a small one may have to wait for a crowded one.
        if running is not None and (len(running.parents) == 1 or running.pages < 2) and running.most is None:
            running.wanted = True
            return running
        if anew:
            await asyncio.to_thread(self._index.drop_listing, parent)
        listing = Listing([parent], wanted=True)
        self._begin(listing)
        return listing

    def _begin(self, listing: Listing) -> asyncio.Task[None]:
        for parent in listing.parents:
            self._running[parent] = listing
        task = asyncio.ensure_future(self._run(listing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, listing: Listing) -> None:
        error: BaseException | None = None
        try:
            await (self._list_many(listing) if len(listing.parents) > 1 else self._list_one(listing))
        except BaseException as raised:  # noqa: BLE001 - who waits for the listing gets it
            error = raised
        for parent in listing.parents:
            if self._running.get(parent) is listing:
                del self._running[parent]
        listing.end(error)
        if not listing.complete:
            self._ahead.difference_update(listing.parents)
        elif self._window:
            self._stack += self._index.unlisted(listing.parents)
            self._go_on()

    async def _list_one(self, listing: Listing) -> None:
        (parent,) = listing.parents
        number, token = await asyncio.to_thread(self._index.begin_listing, parent)
        try:
            whole = await self._pages(listing, [parent], token)
        except RemoteError as error:
            if token is None or error.status not in _PAGE_TOKEN_REFUSED:
                raise
            whole = None
        if whole is None:
            # The drive does not know the page token of an earlier session any more, or all was forgotten.
            await asyncio.to_thread(self._index.drop_listing, parent)
            number, _ = await asyncio.to_thread(self._index.begin_listing, parent)
            whole = await self._pages(listing, [parent], None)
        if whole:
            await asyncio.to_thread(self._index.end_listing, [parent], number)
            listing.complete = True

    async def _list_many(self, listing: Listing) -> None:
        parents = list(listing.parents)
        asked = [*parents, canary] if (canary := self._known_to_hold(parents)) else parents
        number = await asyncio.to_thread(self._index.begin_listings, parents)
        found: set[str] = set()
        try:
            whole = await self._pages(listing, asked, None, found)
        except RemoteError:
            whole = True  # one of them may be gone or closed to us, which says nothing of the others
            found.clear()
        if whole and (canary in found if canary else found):
            await asyncio.to_thread(self._index.end_listing, parents, number)
            listing.complete = True
        elif whole:
            self._canary = None
            await self._list_each(listing)

    async def _list_each(self, listing: Listing) -> None:
        """Ask for each folder by itself, which is always answered right."""
        alone = [Listing([parent], wanted=listing.wanted) for parent in listing.parents]
        for start in range(0, len(alone), _SIDE_BY_SIDE):
            some = alone[start : start + _SIDE_BY_SIDE]
            done = await asyncio.gather(*(self._list_one(one) for one in some), return_exceptions=True)
            if lost := [error for error in done if error is not None and not isinstance(error, HaversackError)]:
                raise lost[0]
        listing.complete = all(one.complete for one in alone)

    async def _pages(
        self, listing: Listing, asked: list[str], token: str | None, found: set[str] | None = None
    ) -> bool | None:
        """Fetch and keep page by page, the next one while the last is kept; into `found` goes who holds something.

        Whether it came to the end; None when what was kept before was forgotten meanwhile.
        """
        since = self._index.mark()
        coming = asyncio.ensure_future(self._api.do(calls.listing(asked, token)))
        while True:
            page, mark = await coming, since
            enough = listing.most is not None and listing.pages + 1 >= listing.most
            more = page.token is not None and not enough and (listing.wanted or self._is_walking())
            if more:
                since = self._index.mark()
                coming = asyncio.ensure_future(self._api.do(calls.listing(asked, page.token)))
            parent = asked[0] if len(asked) == 1 else None
            try:
                kept = await asyncio.to_thread(self._index.learn_page, parent, page.files, mark, page.token)
            except BaseException:
                coming.cancel()
                raise
            if not kept:
                coming.cancel()
                return None
            if found is not None:
                found.update(file.parent for file in page.files)
            listing.step()
            if not more:
                return page.token is None

    def _list_along(self, parent: str) -> None:
        if parent not in self._running and not self._index.is_listed(parent):
            self._begin(Listing([parent], wanted=False, most=1))

    # The walk

    def _step(self, parent: str) -> None:
        """A folder is read: perhaps a step of a walk."""
        now = time.monotonic()
        if now - self._stepped > _STOPPED_AFTER:
            self._stack.clear()
            self._ahead.clear()
            self._window = 0
        self._stepped = now
        was_ahead = parent in self._ahead
        self._ahead.discard(parent)
        self._read.pop(parent, None)
        self._read[parent] = now
        if len(self._read) > 1000:
            del self._read[next(iter(self._read))]
        file = self._index.get(parent)
        above = file.parent if file is not None else ""
        if not was_ahead and now - self._read.get(above, -_STOPPED_AFTER) < _STOPPED_AFTER:
            # Also in the middle: a query may have been in vain, because somebody changed something meanwhile.
            if not self._stack:
                self._stack = [one for one in self._index.unlisted([above]) if one != parent]
            self._window = max(self._window * 2, _FIRST_WINDOW)
        if self._window:
            self._go_on()

    def _is_walking(self) -> bool:
        return bool(self._window) and time.monotonic() - self._stepped < _STOPPED_AFTER

    def _go_on(self) -> None:
        """List ahead as far as the walk is worth; half a query only where none is under way that may fill it."""
        while self._is_walking() and len(self._ahead) < self._window and self._flights < _SIDE_BY_SIDE:
            some: list[str] = []
            while self._stack and len(some) < PARENTS_PER_QUERY - 1:
                folder = self._stack.pop()
                if folder not in self._running and folder not in self._ahead and not self._index.is_listed(folder):
                    some.append(folder)
            if not some:
                return
            if self._flights and len(some) < PARENTS_PER_QUERY - 1:
                self._stack += reversed(some)
                return
            self._ahead.update(some)
            self._flights += 1
            self._begin(Listing(some, wanted=False)).add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._flights -= 1
        if not task.cancelled():
            self._go_on()

    def _known_to_hold(self, parents: Sequence[str]) -> str | None:
        """A folder that holds something, to ask about along."""
        if self._canary is None or not self._index.is_listed(self._canary):
            self._canary = self._index.small_folder()
        return self._canary if self._canary not in parents else None
