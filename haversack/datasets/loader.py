"""Images decoded before they are asked for.

A batch is cut into one piece for each core; a thread reads and decodes its piece into the batch's own memory, for with
single images threads would wait for each other. The batches that follow are begun meanwhile; where the data set is
still on its way, their bytes are asked for first, and once there is a batch the rest is fetched beside that. Decoded
pixels are kept (`pixels`), and copied from there in later epochs.
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
from haversack.datasets.decode import Form, Pixels, decode, prepare
from haversack.datasets.pixels import PixelCache
from haversack.errors import HaversackError, ImageInvalid

log = logging.getLogger(__name__)

Corrupt = Literal["raise", "skip", "blank"]
"""What to do with an image that cannot be read."""
Rows = NDArray[np.int64]
ImageChange = Callable[[Pixels, int], Pixels]
"""Gives another image in place of that of a row."""
Finished = Callable[[], tuple[NDArray[Any], Rows]]
"""Waits for a batch: its images and rows, without those that are skipped. Raises `ImageInvalid`."""

# Batches that are begun before they are asked for, and how many have their bytes asked for.
_AHEAD = 3
_WANTED = 16
_LEAST_IN_A_PIECE = 4


class FileSource(Protocol):
    """What a loader needs of a `Dataset`: its name, the names of its files, and their bytes."""

    source: str

    @property
    def files(self) -> list[str]: ...

    @property
    def content(self) -> str: ...

    def read(self, name: str) -> bytes: ...

    def want(self, names: Iterable[str]) -> None: ...

    def fetch(self) -> None: ...


class Loader:
    """The images of `dataset` called `names`, a row each, as pixels of one form. Safe for threads."""

    def __init__(
        self, dataset: FileSource, names: Sequence[str], form: Form, corrupt: Corrupt, cache: PixelCache | None
    ) -> None:
        self.dataset = dataset
        self.names = names
        self._form = form
        self._corrupt = corrupt
        self._cache = cache
        # Where affinity is known, it is what this process may use of the machine.
        self._threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, "haversack-images")
        self._said: set[str] = set()
        if cache:
            weakref.finalize(self, cache.close)  # also at the end of the process
        self._is_read = False
        self._fetching: threading.Thread | None = None

    def __reduce__(self) -> Any:
        return Loader, (self.dataset, self.names, self._form, self._corrupt, self._cache)

    def begin(self, rows: Rows, change: ImageChange | None, dtype: str = "uint8") -> Finished:
        """Have these images decoded, and `change` made to each; as float32 they are from 0 to 1."""
        out = np.empty((len(rows), *self._form.shape), dtype)
        good = np.ones(len(rows), bool)
        count = max(1, min(self._threads, len(rows) // _LEAST_IN_A_PIECE))
        bounds = [len(rows) * number // count for number in range(count + 1)]
        pieces = [
            self._pool.submit(self._fill, rows[start:stop], out[start:stop], good[start:stop], change)
            for start, stop in itertools.pairwise(bounds)
        ]

        def finished() -> tuple[NDArray[Any], Rows]:
            for piece in pieces:
                piece.result()
            return (out, rows) if good.all() else (out[good], rows[good])

        return finished

    def sample(self, row: int, change: ImageChange | None, dtype: str) -> NDArray[Any]:
        """One image, decoded by the caller. Raises `ImageInvalid`, also where such images are to be skipped."""
        out, good = np.empty((1, *self._form.shape), dtype), np.ones(1, bool)
        self._fill(np.array([row]), out, good, change)
        if not good[0]:
            raise ImageInvalid(f"{self.names[row]} cannot be read as an image.", 'Give corrupt="blank".')
        return out[0]

    def want(self, rows: Rows) -> None:
        """Say which images will be needed next, in this order."""
        if self._cache:
            rows = rows[~self._cache.has(rows)]
        if len(rows):
            self.dataset.want(self.names[row] for row in rows.tolist())
            if not self._is_read:
                self._is_read = True
                self._pool.submit(prepare, self.names[rows[0]])

    def fetch_rest(self) -> None:
        """Begin to fetch the data set beside what is wanted, unless its pixels were all here; returns at once."""
        if self._is_read and self._fetching is None:
            self._fetching = threading.Thread(target=self._fetch, daemon=True, name="haversack-fetch")
            self._fetching.start()

    def close(self) -> None:
        """Let go of the threads, and bring what was decoded to the disk."""
        self._pool.shutdown(cancel_futures=True)
        if self._cache:
            self._cache.flush()

    def _fill(self, rows: Rows, out: NDArray[Any], good: NDArray[np.bool_], change: ImageChange | None) -> None:
        """Put the images into `out`; `good` are those that could be read."""
        pixels = out if out.dtype == np.uint8 else np.empty(out.shape, np.uint8)
        self._fill_pixels(rows, pixels, good)
        if self._corrupt == "blank":
            good[:] = True
        if change is not None:
            for place, row in enumerate(rows.tolist()):
                pixels[place] = change(pixels[place], row)
        if pixels is not out:
            np.multiply(pixels, np.float32(1 / 255), out=out, dtype=np.float32)

    def _fill_pixels(self, rows: Rows, out: Pixels, good: NDArray[np.bool_]) -> None:
        """Put them into `out` from the cache, or decode and keep them."""
        cache = self._cache
        here = cache.has(rows) if cache else np.zeros(len(rows), bool)
        if cache and here.all():
            cache.read(rows, out)
        else:
            for place, row in enumerate(rows.tolist()):
                if cache and here[place]:
                    cache.read(rows[place : place + 1], out[place : place + 1])
                else:
                    good[place] = self._decode(row, out[place])
            if cache and (new := ~here & good).any():
                cache.keep(rows[new], out[new])

    def _decode(self, row: int, out: Pixels) -> bool:
        """Whether the image could be read; it is black where not."""
        name = self.names[row]
        try:
            out[...] = decode(self.dataset.read(name), self._form, name)
        except ImageInvalid as error:
            if self._corrupt == "raise":
                raise
            out[...] = 0
            if name not in self._said:
                self._said.add(name)
                log.warning("%s It is %s.", error.what, "passed over" if self._corrupt == "skip" else "taken as black")
            return False
        return True

    def _fetch(self) -> None:
        try:
            with progress.unseen():
                self.dataset.fetch()
        except (HaversackError, OSError, ValueError) as error:
            # Among them what a file says that was closed meanwhile, with its data set. Readers are told by themselves.
            log.debug("%s is fetched as it is read: %s", self.dataset.source, error)


class Prefetcher:
    """Batches on their way, for whoever takes one after the other.

    `rows_of` says what is in some batches of an epoch, `begin` begins one. After an epoch comes the next one, or the
    same `again`, as its taker did before.
    """

    def __init__(
        self,
        loader: Loader,
        rows_of: Callable[[int, Sequence[int]], list[Rows]],
        begin: Callable[[int, Rows], Finished],
        again: bool,
    ) -> None:
        self._loader = loader
        self._rows_of = rows_of
        self._begin = begin
        self._again = again
        self._rows: dict[tuple[int, int], Rows] = {}
        self._coming: dict[tuple[int, int], Finished] = {}
        self._last: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def take(self, epoch: int, step: int, steps: int) -> tuple[NDArray[Any], Rows]:
        """Batch `step` of an epoch of `steps`; those that follow are begun. Raises `ImageInvalid`."""
        at = epoch, step
        with self._lock:
            if self._last and step == 0:
                self._again = epoch == self._last[0]
            # Of what is begun for who goes to and fro, most would be decoded in vain.
            if self._last is None or step == 0 or at == (self._last[0], self._last[1] + 1):
                self._look_ahead(epoch, step, steps)
            elif at not in self._coming:
                self._want([at])
            self._last = at
            finished = self._coming.pop(at, None) or self._begin(epoch, self._rows[at])
        batch = finished()
        self._loader.fetch_rest()
        return batch

    def clear(self) -> None:
        """Forget what was begun."""
        with self._lock:
            self._coming.clear()

    def _look_ahead(self, epoch: int, step: int, steps: int) -> None:
        places = range(step, step + _WANTED)
        soon = dict.fromkeys((epoch if self._again else epoch + place // steps, place % steps) for place in places)
        if not all(at in self._rows for at in itertools.islice(soon, _WANTED // 2)):
            self._want(soon)
        following = itertools.islice(soon, _AHEAD + 1)
        self._coming = {at: self._coming.get(at) or self._begin(at[0], self._rows[at]) for at in following}

    def _want(self, batches: Iterable[tuple[int, int]]) -> None:
        """Know what is in these batches, and say that it will be needed next."""
        self._rows = {}
        for epoch, several in itertools.groupby(batches, key=lambda at: at[0]):
            steps = [step for _, step in several]
            self._rows.update(zip([(epoch, step) for step in steps], self._rows_of(epoch, steps), strict=True))
        self._loader.want(np.concatenate(list(self._rows.values())))
