"""Folders listed: streamed, saved page by page, and ahead of a walk.

Who reads a folder gets what is known at once and each page as it comes; several readers of one folder share one
listing. A page token is kept with its page, so a listing that was cut off, also by the death of the process, goes on.

Ahead of a walk (`walk`) up to fifty folders are listed by one query, and several queries side by side. Drive has been
seen to answer such a query with nothing where there is something, so a folder that is known to hold something is asked
about along; when even that one seems empty, each folder is asked about by itself.

A folder of which names are looked up again and again is listed along, a page now and then, so that a small one is soon
known whole and a large one costs few calls more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

from fsspec.asyn import get_loop

from haversack.drive.index.changes import ChangesFollower, now
from haversack.drive.index.index import Answered, DriveIndex
from haversack.drive.index.prefetch import WalkDetector
from haversack.drive.remote import calls
from haversack.drive.remote.api import DriveApi, File
from haversack.errors import HaversackError, RemoteError
from haversack.http import wait

_SIDE_BY_SIDE = 8
_FIRST_ALONG = 16
_ROWS_AT_ONCE = 1000
_PAGE_TOKEN_REFUSED = (400, 404, 410)


class FolderListing:
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


class FolderListings:
    """The listings of one drive. `entries` and `missed` may be called from any thread."""

    def __init__(self, api: DriveApi, index: DriveIndex, following: ChangesFollower) -> None:
        self._api = api
        self._index = index
        self._following = following
        self._walk = WalkDetector(index)
        self._running: dict[str, FolderListing] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._flights = 0
        self._missed: dict[str, int] = {}
        self._canary: str | None = None
        # Pages that came while others were being kept; who waits for each.
        self._unkept: list[tuple[Answered, asyncio.Future[bool]]] = []
        self._keeping = False

    def entries(self, parent: str) -> Iterator[tuple[str, File]]:
        """What is in a folder, by the name it is shown under, in no order; the first before the last is known.

        Raises `NotFound` when there is no such folder, `ConnectionFailed` and `RemoteError`.
        """
        current = self._following.current(parent)
        known = current and self._index.is_listed(parent)
        listing = None if known else wait(self._wanted(parent, anew=not current))
        if known and self._walk.is_ahead(parent):
            self._walk.step(parent)
            if self._flights < _SIDE_BY_SIDE and self._walk.wants(alone=not self._flights):
                get_loop().call_soon_threadsafe(self._go_on)
        if listing is not None and (not current or self._index.is_doubted(parent)):
            listing.wait()  # what is gone is only known at the end
        after = 0
        while True:
            pages, over = (listing.pages, listing.is_over()) if listing is not None else (0, True)
            more = True
            while more and (rows := self._index.page(parent, after, _ROWS_AT_ONCE)):
                for _, shown, file in rows:
                    yield shown, file
                after, more = rows[-1][0], len(rows) == _ROWS_AT_ONCE
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

    async def _wanted(self, parent: str, *, anew: bool) -> FolderListing:
        """The listing of a folder that somebody reads."""
        self._walk.step(parent)
        self._go_on()
        running = self._running.get(parent)
        # In a query of many folders a small one may have to wait for a crowded one.
        if running is not None and (len(running.parents) == 1 or running.pages < 2) and running.most is None:
            running.wanted = True
            return running
        if anew:
            await asyncio.to_thread(self._index.drop_listing, parent)
        listing = FolderListing([parent], wanted=True)
        self._begin(listing)
        return listing

    def _begin(self, listing: FolderListing) -> asyncio.Task[None]:
        for parent in listing.parents:
            self._running[parent] = listing
        task = asyncio.ensure_future(self._run(listing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, listing: FolderListing) -> None:
        error: BaseException | None = None
        try:
            await (self._list_many(listing) if len(listing.parents) > 1 else self._list_one(listing))
        except BaseException as raised:  # noqa: BLE001 - who waits for the listing gets it
            error = raised
        for parent in listing.parents:
            if self._running.get(parent) is listing:
                del self._running[parent]
        listing.end(error)
        if listing.complete:
            self._walk.listed(listing.parents)
            self._go_on()
        else:
            self._walk.not_listed(listing.parents)

    async def _list_one(self, listing: FolderListing) -> None:
        (parent,) = listing.parents
        begun = now()
        number, token = await asyncio.to_thread(self._index.begin_listing, parent)
        try:
            whole = await self._pages(listing, [parent], number, token)
        except RemoteError as error:
            if token is None or error.status not in _PAGE_TOKEN_REFUSED:
                raise
            whole = None
        if whole is None:
            # The drive does not know the page token of an earlier session any more, or all was forgotten.
            await asyncio.to_thread(self._index.drop_listing, parent)
            begun = now()
            number, token = await asyncio.to_thread(self._index.begin_listing, parent)
            await self._pages(listing, [parent], number, None)
        if listing.complete and token is None:
            self._following.answered([parent], begun)

    async def _list_many(self, listing: FolderListing) -> None:
        parents, begun = list(listing.parents), now()
        canary = self._known_to_hold(parents)
        number = await asyncio.to_thread(self._index.begin_listings, parents)
        try:
            whole = await self._pages(listing, [*parents, canary] if canary else parents, number, None, canary)
        except RemoteError:
            whole = True  # one of them may be gone or closed to us, which says nothing of the others
        if listing.complete:
            self._following.answered(parents, begun)
        elif whole:
            self._canary = None
            await self._list_each(listing)

    async def _list_each(self, listing: FolderListing) -> None:
        """Ask for each folder by itself, which is always answered right."""
        alone = [FolderListing([parent], wanted=listing.wanted) for parent in listing.parents]
        for start in range(0, len(alone), _SIDE_BY_SIDE):
            some = alone[start : start + _SIDE_BY_SIDE]
            done = await asyncio.gather(*(self._list_one(one) for one in some), return_exceptions=True)
            if lost := [error for error in done if error is not None and not isinstance(error, HaversackError)]:
                raise lost[0]
        listing.complete = all(one.complete for one in alone)

    async def _pages(
        self, listing: FolderListing, asked: list[str], number: int, token: str | None, canary: str | None = None
    ) -> bool | None:
        """Fetch and keep page by page, the next one while the last is kept.

        Whether it came to the end; None when what was kept before was forgotten meanwhile. The listing is complete with
        that, unless many folders were asked about and the answer is nothing, or nothing of `canary`.
        """
        since = self._index.mark()
        found: set[str] = set()
        coming = asyncio.ensure_future(self._api.do(calls.listing(asked, token)))
        while True:
            page, mark = await coming, since
            enough = listing.most is not None and listing.pages + 1 >= listing.most
            more = page.token is not None and not enough and (listing.wanted or self._walk.is_on())
            if more:
                since = self._index.mark()
                coming = asyncio.ensure_future(self._api.do(calls.listing(asked, page.token)))
            found.update(file.parent for file in page.files)
            sure = len(asked) == 1 or (canary in found if canary else bool(found))
            ended = listing.parents if page.token is None and sure else ()
            parent = asked[0] if len(asked) == 1 else None
            try:
                kept = await self._keep(Answered(page.files, mark, parent, page.token, ended, number))
            except BaseException:
                coming.cancel()
                raise
            if not kept:
                coming.cancel()
                return None
            listing.complete = bool(ended)
            listing.step()
            if not more:
                return page.token is None

    async def _keep(self, page: Answered) -> bool:
        """Keep a page, and with it those that come meanwhile: each transaction costs as much as some hundred rows."""
        kept = asyncio.get_running_loop().create_future()
        self._unkept.append((page, kept))
        if not self._keeping:
            self._keeping = True
            task = asyncio.ensure_future(self._keep_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await kept

    async def _keep_all(self) -> None:
        while self._unkept:
            some, self._unkept = self._unkept, []
            try:
                answers = await asyncio.to_thread(self._index.learn_pages, [page for page, _ in some])
            except BaseException as error:  # noqa: BLE001 - who waits for a page gets it
                for _, kept in some:
                    if not kept.done():
                        kept.set_exception(error)
                continue
            for (_, kept), answer in zip(some, answers, strict=True):
                if not kept.done():
                    kept.set_result(answer)
        self._keeping = False

    def _list_along(self, parent: str) -> None:
        if parent not in self._running and not self._index.is_listed(parent):
            self._begin(FolderListing([parent], wanted=False, most=1))

    def _go_on(self) -> None:
        """List ahead of the walk as far as it is worth."""
        while self._flights < _SIDE_BY_SIDE:
            some = self._walk.next(self._running, alone=not self._flights)
            if not some:
                return
            self._flights += 1
            self._begin(FolderListing(some, wanted=False)).add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._flights -= 1
        if not task.cancelled():
            self._go_on()

    def _known_to_hold(self, parents: Sequence[str]) -> str | None:
        """A folder that holds something, to ask about along."""
        if self._canary is None or not self._index.is_listed(self._canary):
            self._canary = self._index.small_folder()
        return self._canary if self._canary not in parents else None
