"""Lists folders into the index: streamed to readers, stored page by page, and prefetched for a walk.

- A reader gets the files that are known at once, and each further page as it arrives. Readers of one folder share one
  listing. Each page is stored with the token of the next one, so an interrupted listing, also one whose process died,
  is resumed.
- For a walk (`prefetch`), one query lists up to fifty folders, and up to eight queries are in flight. Drive has been
  observed to answer such queries with no files although there are some. So the query also names a canary, a folder that
  is known to hold files; if its files are missing from the answer, each folder is listed by itself.
- If names in one folder are looked up again and again, a page of its listing is fetched after 16, 32, 64, … lookups. A
  small folder is soon listed, and a large one costs few additional calls.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

from fsspec.asyn import get_loop

from haversack.drive.index.changes import ChangesFollower, now
from haversack.drive.index.index import DriveIndex, ListingPage
from haversack.drive.index.prefetch import WalkDetector
from haversack.drive.remote import calls
from haversack.drive.remote.api import DriveApi, File
from haversack.errors import HaversackError, RemoteError
from haversack.http import wait

_MAX_IN_FLIGHT = 8
_LOOKUPS_BEFORE_LISTING = 16
_FOLDERS_COUNTED = 1000
_ROWS_AT_ONCE = 1000
# The drive's statuses for a page token that it does not know any more.
_PAGE_TOKEN_REFUSED = (400, 404, 410)


class FolderListing:
    """One listing in flight, of one folder or of several by one query. A reader is a call of `FolderListings.entries`.

    `pages` counts the pages that are stored in the index; `error` is what ended the listing, or None. `has_reader` says
    that a reader waits for it; without one, it stops after `max_pages` pages (None: no limit). The
    event loop's thread sets the fields; readers on other threads wait for `_changed`, which guards `pages`, `error`
    and `_finished`. `complete` says that every file of `parents` is in the index.
    """

    def __init__(self, parents: Sequence[str], *, has_reader: bool, max_pages: int | None = None) -> None:
        self.parents = tuple(parents)
        self.has_reader = has_reader
        self.max_pages = max_pages
        self.pages = 0
        self.complete = False
        self.error: BaseException | None = None
        self._finished = False
        self._changed = threading.Condition()

    def add_page(self) -> None:
        """Count a page that was stored, and wake the readers."""
        with self._changed:
            self.pages += 1
            self._changed.notify_all()

    def finish(self, error: BaseException | None) -> None:
        """Mark the listing as finished, by `error` if that is not None, and wake the readers."""
        with self._changed:
            self.error, self._finished = error, True
            self._changed.notify_all()

    def is_finished(self) -> bool:
        """Whether no more pages will come. Raises the error that ended the listing, if one did."""
        with self._changed:
            if self.error is not None:
                raise self.error
            return self._finished

    def wait(self, pages: int | None = None) -> None:
        """Block until the listing is finished or, if `pages` is given, has stored more than `pages` pages."""
        with self._changed:
            self._changed.wait_for(lambda: self._finished or (pages is not None and self.pages > pages))


class FolderListings:
    """Lists the folders of one drive into `index`, for readers (`entries`) and ahead of them (prefetch).

    `entries` and `count_lookup` are thread-safe. Everything else runs on the event loop's thread, which owns the
    fields.
    """

    def __init__(self, api: DriveApi, index: DriveIndex, follower: ChangesFollower) -> None:
        self._api = api
        self._index = index
        self._follower = follower
        self._walk = WalkDetector(index)
        self._running: dict[str, FolderListing] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._prefetches_in_flight = 0
        self._lookups: dict[str, int] = {}
        self._canary: str | None = None
        # Pages that arrived while others were being stored, each with the future that its listing waits for.
        self._unsaved: list[tuple[ListingPage, asyncio.Future[bool]]] = []
        self._saving = False

    def entries(self, parent: str) -> Iterator[tuple[str, File]]:
        """Yield (shown name, file) for everything in the folder `parent`, in no particular order.

        The first ones are yielded before the last page has arrived. Only if the index is not current, or has stale rows
        of the folder, is the whole listing awaited first. Raises `NotFound`, `ConnectionFailed`, `SignInError` or
        `RemoteError`, also after some were yielded.
        """
        current = self._follower.is_current(parent)
        listed = current and self._index.is_listed(parent)
        listing = None if listed else wait(self._listing_for_reader(parent, restart=not current))
        if listed and self._walk.is_prefetched(parent):
            self._walk.folder_read(parent)
            in_flight = self._prefetches_in_flight
            if in_flight < _MAX_IN_FLIGHT and self._walk.has_batch(alone=not in_flight):
                get_loop().call_soon_threadsafe(self._prefetch)
        if listing is not None and (not current or self._index.has_stale_rows(parent)):
            listing.wait()  # only a complete listing shows which files are gone
        after = 0
        while True:
            # Read before the rows: a page that is stored after that is waited for, or read in the next round.
            pages, finished = (listing.pages, listing.is_finished()) if listing is not None else (0, True)
            more = True
            while more and (rows := self._index.page(parent, after, _ROWS_AT_ONCE)):
                for _, shown, file in rows:
                    yield shown, file
                after, more = rows[-1][0], len(rows) == _ROWS_AT_ONCE
            if listing is not None and not finished:
                listing.wait(pages)
            elif listing.complete if listing is not None else self._index.is_listed(parent):
                return
            else:
                listing = wait(self._listing_for_reader(parent, restart=False))

    def count_lookup(self, parent: str) -> None:
        """Count a lookup in the folder `parent` that the index could not answer.

        At 16, 32, 64, … lookups, start to fetch a page of the folder's listing.
        """
        count = self._lookups[parent] = self._lookups.pop(parent, 0) + 1
        if count >= _LOOKUPS_BEFORE_LISTING and count & (count - 1) == 0:
            get_loop().call_soon_threadsafe(self._list_one_page, parent)
        if len(self._lookups) > _FOLDERS_COUNTED:
            self._lookups.pop(next(iter(self._lookups)), None)

    # On the event loop's thread

    async def _listing_for_reader(self, parent: str, *, restart: bool) -> FolderListing:
        """Return the listing that a reader of the folder waits for: one in flight or a new one.

        With `restart`, a new one starts with the first page.
        """
        self._walk.folder_read(parent)
        self._prefetch()
        running = self._running.get(parent)
        # A query of many folders that has reached its third page is not joined: a large folder may hold up this one.
        if running is not None and (len(running.parents) == 1 or running.pages < 2) and running.max_pages is None:
            running.has_reader = True
            return running
        if restart:
            await asyncio.to_thread(self._index.drop_listing, parent)
        listing = FolderListing([parent], has_reader=True)
        self._start(listing)
        return listing

    def _start(self, listing: FolderListing) -> asyncio.Task[None]:
        """Run a listing in a task of its own."""
        for parent in listing.parents:
            self._running[parent] = listing
        task = asyncio.ensure_future(self._run(listing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, listing: FolderListing) -> None:
        """Carry out a listing, pass its error to its readers, and prefetch further."""
        error: BaseException | None = None
        try:
            await (self._list_many(listing) if len(listing.parents) > 1 else self._list_one(listing))
        except BaseException as raised:  # noqa: BLE001 - raised in the readers of the listing
            error = raised
        for parent in listing.parents:
            if self._running.get(parent) is listing:
                del self._running[parent]
        listing.finish(error)
        if listing.complete:
            self._walk.queue_subfolders(listing.parents)
            self._prefetch()
        else:
            self._walk.discard(listing.parents)

    async def _list_one(self, listing: FolderListing) -> None:
        """List one folder from where its last listing stopped; from the first page if that cannot be resumed."""
        (parent,) = listing.parents
        started = now()
        number, token = await asyncio.to_thread(self._index.begin_listing, parent)
        try:
            reached_end = await self._fetch_pages(listing, [parent], number, token)
        except RemoteError as error:
            if token is None or error.status not in _PAGE_TOKEN_REFUSED:
                raise
            reached_end = None
        if reached_end is None:
            # The drive refused a page token of an earlier process, or the index was cleared.
            await asyncio.to_thread(self._index.drop_listing, parent)
            started = now()
            number, token = await asyncio.to_thread(self._index.begin_listing, parent)
            await self._fetch_pages(listing, [parent], number, None)
        if listing.complete and token is None:
            self._follower.add_answer([parent], started)

    async def _list_many(self, listing: FolderListing) -> None:
        """List several folders by one query; each by itself if the answer cannot be trusted or is an error."""
        parents, started = list(listing.parents), now()
        canary = self._pick_canary(parents)
        number = await asyncio.to_thread(self._index.begin_listings, parents)
        try:
            queried = [*parents, canary] if canary else parents
            reached_end = await self._fetch_pages(listing, queried, number, None, canary)
        except RemoteError:
            reached_end = True  # one of the folders may be gone or forbidden, which says nothing about the others
        if listing.complete:
            self._follower.add_answer(parents, started)
        elif reached_end:
            self._canary = None
            await self._list_each(listing)

    async def _list_each(self, listing: FolderListing) -> None:
        """List each folder by a query of its own, eight at a time. A folder that fails leaves `complete` False.

        Raises only what is no `HaversackError`.
        """
        singles = [FolderListing([parent], has_reader=listing.has_reader) for parent in listing.parents]
        for start in range(0, len(singles), _MAX_IN_FLIGHT):
            group = singles[start : start + _MAX_IN_FLIGHT]
            results = await asyncio.gather(*(self._list_one(one) for one in group), return_exceptions=True)
            if bugs := [error for error in results if error is not None and not isinstance(error, HaversackError)]:
                raise bugs[0]
        listing.complete = all(one.complete for one in singles)

    async def _fetch_pages(
        self, listing: FolderListing, queried: list[str], number: int, token: str | None, canary: str | None = None
    ) -> bool | None:
        """Fetch the pages of a listing and store each; the next page is in flight while one is stored.

        Args:
            listing: The listing, whose `pages` and `complete` are set.
            queried: The folders in the query: those of the listing, and the canary.
            number: The listing number in the index.
            token: The page token to start with; None for the first page.
            canary: A folder that is known to hold files.

        Returns True at the last page, and False if it stopped before because there is no reader and the walk has ended
        or `max_pages` was reached. Returns None if the index refused a page because it was cleared. The listing is
        complete at the last page, except with several folders whose answer has no file at all, or none of `canary`.
        """
        since = self._index.mark()
        answered: set[str] = set()
        request = asyncio.ensure_future(self._api.send(calls.listing(queried, token)))
        while True:
            page, mark = await request, since
            enough = listing.max_pages is not None and listing.pages + 1 >= listing.max_pages
            more = page.token is not None and not enough and (listing.has_reader or self._walk.is_walking())
            if more:
                since = self._index.mark()
                request = asyncio.ensure_future(self._api.send(calls.listing(queried, page.token)))
            answered.update(file.parent for file in page.files)
            trusted = len(queried) == 1 or (canary in answered if canary else bool(answered))
            completed = listing.parents if page.token is None and trusted else ()
            parent = queried[0] if len(queried) == 1 else None
            try:
                stored = await self._save_page(ListingPage(page.files, mark, parent, page.token, completed, number))
            except BaseException:
                request.cancel()
                raise
            if not stored:
                request.cancel()
                return None
            listing.complete = bool(completed)
            listing.add_page()
            if not more:
                return page.token is None

    async def _save_page(self, page: ListingPage) -> bool:
        """Store a page in the index; return whether the index accepted it.

        Pages that arrive during a transaction are stored together in the next one, since a transaction costs as much as
        some hundred rows.
        """
        saved: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._unsaved.append((page, saved))
        if not self._saving:
            self._saving = True
            task = asyncio.ensure_future(self._save_pages())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await saved

    async def _save_pages(self) -> None:
        """Store pages until none is left. An error is raised in each `_save_page` that waits for the transaction."""
        while self._unsaved:
            batch, self._unsaved = self._unsaved, []
            try:
                results = await asyncio.to_thread(self._index.learn_pages, [page for page, _ in batch])
            except BaseException as error:  # noqa: BLE001 - raised in the callers of `_save_page`
                for _, saved in batch:
                    if not saved.done():
                        saved.set_exception(error)
                continue
            for (_, saved), result in zip(batch, results, strict=True):
                if not saved.done():
                    saved.set_result(result)
        self._saving = False

    def _list_one_page(self, parent: str) -> None:
        """Start to fetch the next page of a folder's listing, unless it is listed or being listed."""
        if parent not in self._running and not self._index.is_listed(parent):
            self._start(FolderListing([parent], has_reader=False, max_pages=1))

    def _prefetch(self) -> None:
        """Start queries for the folders that a walk is likely to read next, up to eight in flight."""
        while self._prefetches_in_flight < _MAX_IN_FLIGHT:
            batch = self._walk.next_batch(self._running, alone=not self._prefetches_in_flight)
            if not batch:
                return
            self._prefetches_in_flight += 1
            self._start(FolderListing(batch, has_reader=False)).add_done_callback(self._prefetch_ended)

    def _prefetch_ended(self, task: asyncio.Task[None]) -> None:
        self._prefetches_in_flight -= 1
        if not task.cancelled():
            self._prefetch()

    def _pick_canary(self, parents: Sequence[str]) -> str | None:
        """Return a small folder that is known to hold files and is not in `parents`; None if there is none."""
        if self._canary is None or not self._index.is_listed(self._canary):
            self._canary = self._index.small_listed_folder()
        return self._canary if self._canary not in parents else None
