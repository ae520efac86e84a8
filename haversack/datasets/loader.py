"""Loading of image batches: parallel decoding, prefetching of files and batches, and use of the pixel cache.

A batch is split into one piece per core. A thread reads and decodes its whole piece into the batch's array: tasks of
single images would spend their time waiting for each other. `Prefetcher` submits the next batches while the current one
is in use. If the data set is not on this machine yet, the files of the next batches are fetched first, and, after the
first batch, the rest of the data set in the background. Decoded pixels are cached (`pixels`) and copied from there in
later epochs.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from haversack import progress
from haversack.datasets.decode import Form, Pixels, decode, preload
from haversack.datasets.pixels import PixelCache
from haversack.errors import HaversackError, ImageInvalid

log = logging.getLogger(__name__)

Corrupt = Literal["raise", "skip", "blank"]
"""How to treat an image that cannot be decoded: raise `ImageInvalid`, leave it out of its batch, or make it black."""
Rows = NDArray[np.int64]
Transform = Callable[[Pixels, int], Pixels]
"""Maps the pixels and the row of an image to other pixels of the same shape."""
PendingBatch = Callable[[], tuple[NDArray[Any], Rows]]
"""Waits for a submitted batch; returns its images and their rows, without skipped ones. Raises `ImageInvalid`."""

# The number of batches to decode ahead of the current one.
_DECODE_AHEAD = 3
# The number of batches, from the current one on, whose files are fetched ahead.
_FETCH_AHEAD = 16
_MIN_PIECE_SIZE = 4


class FileSource(Protocol):
    """The part of `haversack.Dataset` that a loader uses; each member is that of the same name there."""

    source: str

    @property
    def files(self) -> list[str]: ...

    @property
    def content(self) -> str: ...

    def read(self, name: str) -> bytes: ...

    def want(self, names: Iterable[str]) -> None: ...

    def fetch(self) -> None: ...


class Loader:
    """Loads images of a data set as pixels of one form, from the pixel cache or by decoding. Thread-safe.

    Pickling creates a loader with threads of its own.

    Args:
        dataset: has the image files.
        names: the images' names in it; image `row` is the file `names[row]`.
        form: the height, width and channels of the pixels, and the way to resize to them.
        corrupt: what to do with an image that cannot be decoded: "raise" `ImageInvalid`, "skip" it in its batch, or use
            a "blank" (black) image.
        cache: the pixel cache of these images; None for none.

    Methods that load images raise `ImageInvalid`; `NotFound` for a name that is not in the data set; and, if a file
    cannot be fetched or is damaged, `ConnectionFailed`, `SignInError`, `RemoteError`, `DiskFull`, `IntegrityError` or
    `ArchiveInvalid`.
    """

    def __init__(
        self, dataset: FileSource, names: Sequence[str], form: Form, corrupt: Corrupt, cache: PixelCache | None
    ) -> None:
        self.dataset = dataset
        self.names = names
        self._form = form
        self._corrupt = corrupt
        self._cache = cache
        # The CPU affinity limits how many cores this process may use.
        self._threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, "haversack-images")
        self._warned: set[str] = set()
        if cache:
            weakref.finalize(self, cache.close)  # also runs at process exit
        # Whether any file is needed, because its pixels are not cached.
        self._needs_files = False
        self._background_fetch: threading.Thread | None = None

    def __reduce__(self) -> Any:
        return Loader, (self.dataset, self.names, self._form, self._corrupt, self._cache)

    def submit(self, rows: Rows, transform: Transform | None, dtype: str = "uint8") -> PendingBatch:
        """Submit the images `rows` to the thread pool; return a function that waits for the batch.

        The function returns the images, of shape (len(rows), height, width, channels), and their rows, both without
        skipped images, and raises the errors that the class names. `transform` maps (pixels, row) to other pixels of
        the same shape; None for none. With the `dtype` "float32" values are scaled to the range 0 to 1.
        """
        out = np.empty((len(rows), *self._form.shape), dtype)
        good = np.ones(len(rows), bool)
        count = max(1, min(self._threads, len(rows) // _MIN_PIECE_SIZE))
        bounds = [len(rows) * number // count for number in range(count + 1)]
        pieces = [
            self._pool.submit(self._fill, rows[start:stop], out[start:stop], good[start:stop], transform)
            for start, stop in itertools.pairwise(bounds)
        ]

        def wait() -> tuple[NDArray[Any], Rows]:
            for piece in pieces:
                piece.result()
            return (out, rows) if good.all() else (out[good], rows[good])

        return wait

    def load(self, row: int, transform: Transform | None, dtype: str) -> NDArray[Any]:
        """Load image `row` in the calling thread; return it with shape (height, width, channels).

        `transform` and `dtype` are as in `submit`. Raises `ImageInvalid` if it cannot be decoded, also with
        `corrupt="skip"`, because a single image cannot be left out.
        """
        out, good = np.empty((1, *self._form.shape), dtype), np.ones(1, bool)
        self._fill(np.array([row]), out, good, transform)
        if not good[0]:
            raise ImageInvalid(
                f"{self.names[row]} cannot be read as an image.", 'Use corrupt="blank" to replace it by a black image.'
            )
        image: NDArray[Any] = out[0]
        return image

    def prefetch_files(self, rows: Rows) -> None:
        """Prefetch the files of the images `rows`, in this order, except those whose pixels are cached.

        The files replace those of an earlier call that are not fetched yet. Returns at once.
        """
        if self._cache:
            rows = rows[~self._cache.has(rows)]
        if len(rows):
            self.dataset.want(self.names[row] for row in rows.tolist())
            if not self._needs_files:
                self._needs_files = True
                self._pool.submit(preload, self.names[rows[0]])

    def fetch_in_background(self) -> None:
        """Start a thread that fetches the whole data set; return at once.

        Does nothing if it was started before, or if `prefetch_files` has found every pixel in the cache so far. A fetch
        that fails is only logged: reads then fetch single files.
        """
        if self._needs_files and self._background_fetch is None:
            self._background_fetch = threading.Thread(target=self._fetch, daemon=True, name="haversack-fetch")
            self._background_fetch.start()

    def close(self) -> None:
        """Cancel batches that have not begun, wait for the threads of the pool, and sync the pixel cache.

        `submit` cannot be called afterwards. A fetch in the background is not stopped.
        """
        self._pool.shutdown(cancel_futures=True)
        if self._cache:
            self._cache.flush()

    def _fill(self, rows: Rows, out: NDArray[Any], good: NDArray[np.bool_], transform: Transform | None) -> None:
        """Load images into `out`; set `good` to False for those to leave out of the batch."""
        pixels = out if out.dtype == np.uint8 else np.empty(out.shape, np.uint8)
        self._fill_pixels(rows, pixels, good)
        if self._corrupt == "blank":
            good[:] = True
        if transform is not None:
            for place, row in enumerate(rows.tolist()):
                pixels[place] = transform(pixels[place], row)
        if pixels is not out:
            np.multiply(pixels, np.float32(1 / 255), out=out, dtype=np.float32)

    def _fill_pixels(self, rows: Rows, out: Pixels, good: NDArray[np.bool_]) -> None:
        """Copy pixels from the cache into `out`, or decode them and add them to the cache; set `good` if decoded."""
        cache = self._cache
        cached = cache.has(rows) if cache else np.zeros(len(rows), bool)
        if cache and cached.all():
            cache.read(rows, out)
        else:
            for place, row in enumerate(rows.tolist()):
                if cache and cached[place]:
                    cache.read(rows[place : place + 1], out[place : place + 1])
                else:
                    good[place] = self._decode(row, out[place])
            if cache and (new := ~cached & good).any():
                cache.add(rows[new], out[new])

    def _decode(self, row: int, out: Pixels) -> bool:
        """Decode an image into `out`; if that fails, make it black, warn once, and return False.

        Raises `ImageInvalid` instead with `corrupt="raise"`.
        """
        name = self.names[row]
        try:
            out[...] = decode(self.dataset.read(name), self._form, name)
        except ImageInvalid as error:
            if self._corrupt == "raise":
                raise
            out[...] = 0
            if name not in self._warned:
                self._warned.add(name)
                log.warning(
                    "%s It is %s.", error.what, "skipped" if self._corrupt == "skip" else "used as a black image"
                )
            return False
        return True

    def _fetch(self) -> None:
        try:
            with progress.hidden():
                self.dataset.fetch()
        except (HaversackError, OSError, ValueError) as error:
            # Reads raise errors of their own. `ValueError` comes from a data set that is closed during the fetch.
            log.debug(
                "The background fetch of %s ended; files are fetched when they are read: %s", self.dataset.source, error
            )


class Prefetcher:
    """Decodes the next batches of an epoch while the current one is in use. Thread-safe.

    Batches that are requested in order of their steps are prefetched: 3 are decoded and the files of 16 are fetched
    ahead. Others are only loaded when they are requested. What follows the last batch of an epoch is guessed: the next
    epoch, or the same one again, as for validation data. The guess is what happened last: whenever step 0 is requested,
    its epoch is compared with that of the previous request.

    Args:
        loader: decodes the images and prefetches their files.
        rows_of: a function of (epoch, steps) that returns the image rows of each of the steps.
        submit: a function of (epoch, rows) that submits a batch to the loader and returns a function that waits for it.
        repeat_epoch: the first guess: True for the same epoch again, False for the next one.
    """

    def __init__(
        self,
        loader: Loader,
        rows_of: Callable[[int, Sequence[int]], list[Rows]],
        submit: Callable[[int, Rows], PendingBatch],
        repeat_epoch: bool,
    ) -> None:
        self._loader = loader
        self._rows_of = rows_of
        self._submit = submit
        # The fields below are guarded by _lock; keys, and _last, are (epoch, step).
        self._repeat_epoch = repeat_epoch
        self._rows: dict[tuple[int, int], Rows] = {}
        self._pending: dict[tuple[int, int], PendingBatch] = {}
        self._last: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def get(self, epoch: int, step: int, steps: int) -> tuple[NDArray[Any], Rows]:
        """Return the images and rows of batch `step` of an epoch of `steps` batches; submit those that follow.

        Raises `ImageInvalid` for an image that cannot be decoded, and `NotFound`, `RemoteError`, `ConnectionFailed`,
        `IntegrityError` or another `HaversackError` for one that cannot be read.
        """
        at = epoch, step
        with self._lock:
            if self._last and step == 0:
                self._repeat_epoch = epoch == self._last[0]
            # Random access gets no prefetching: most of the batches would be decoded in vain.
            if self._last is None or step == 0 or at == (self._last[0], self._last[1] + 1):
                self._prefetch(epoch, step, steps)
            elif at not in self._pending:
                self._plan([at])
            self._last = at
            wait = self._pending.pop(at, None) or self._submit(epoch, self._rows[at])
        batch = wait()
        self._loader.fetch_in_background()
        return batch

    def clear(self) -> None:
        """Forget the batches that are submitted and not requested yet. Their decoding is not cancelled."""
        with self._lock:
            self._pending.clear()

    def _prefetch(self, epoch: int, step: int, steps: int) -> None:
        """Submit this batch and those that follow, unless they are pending, and prefetch the files of more of them."""
        places = range(step, step + _FETCH_AHEAD)
        upcoming = dict.fromkeys(
            (epoch if self._repeat_epoch else epoch + place // steps, place % steps) for place in places
        )
        if not all(at in self._rows for at in itertools.islice(upcoming, _FETCH_AHEAD // 2)):
            self._plan(upcoming)
        following = itertools.islice(upcoming, _DECODE_AHEAD + 1)
        self._pending = {at: self._pending.get(at) or self._submit(at[0], self._rows[at]) for at in following}

    def _plan(self, batches: Iterable[tuple[int, int]]) -> None:
        """Compute the rows of these batches, in place of those computed before, and prefetch their files."""
        self._rows = {}
        for epoch, several in itertools.groupby(batches, key=lambda at: at[0]):
            steps = [step for _, step in several]
            self._rows.update(zip([(epoch, step) for step in steps], self._rows_of(epoch, steps), strict=True))
        self._loader.prefetch_files(np.concatenate(list(self._rows.values())))
